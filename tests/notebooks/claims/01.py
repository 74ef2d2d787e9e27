# The first answer, and what the verdict rests on.
assert at < ridge / 15, "far left of the ridge"
assert memory_share > 0.7, "the dense product draws most of the memory's rate"
assert compute_share < 0.05, "and next to nothing of the Tensor Cores"
assert str(product.bound) == "memory", "only fewer bytes can make it faster"
# "Published, at 8 tokens on an A100": the model says the same.
assert abs(drawn / memory_share - 1) < 0.1, "model and publication agree"
assert np.allclose(by_columns[:3], [1, 8, 64], rtol=0.02), "the intensity is about n"
assert held > 0.97, "the matrices are nearly the whole model"
assert ridges["h100"] > ridges["h200"] > ridges["a100-80gb"], "where the ridge moved"
assert dense_us[3] < 1.2 * dense_us[0], "32 tokens take almost as long as one"
assert dense_us[-2] > 3 * dense_us[0], "and 1024 do not"
few = gain[gain["n"] == 8].set_index("sparsity")
# "What sparsity can buy": places take their share of 1 / (1 - s), and the dense product its own.
assert (few["Tiled-CSL bytes"] < 1 / (1 - few.index)).all(), "places have to be stored too"
assert few.loc[0.9, "flash-llm"] < 0.6 * few.loc[0.9, "Tiled-CSL bytes"], "towards 90 % it falls behind its bytes"
assert few.loc[0.5, "flash-llm"] > 0.9 * few.loc[0.5, "Tiled-CSL bytes"], "at low sparsity it follows them"
assert np.allclose(known["flash-llm"], known["published"], rtol=0.12), "lines meet markers"
assert set(known["n"]) >= {8, 16, 32}, "there are markers to meet"
assert gain.loc[gain["n"] == 4096, "flash-llm"].max() < 1, "the bytes lose their say"
