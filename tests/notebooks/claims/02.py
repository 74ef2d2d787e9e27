# The answer, in the order of its sentences.
assert dense_from["bitmap"] < 0.1 < dense_from["tiled-csl"] < dense_from["csr"], "who is smaller than dense from where"
assert abs(dense_from["tiled-csl"] - 0.5) < 0.01, "Tiled-CSL from a half on"
assert max(limit.sparsity for limit in reached.values()) < rivals["fp6"] < rivals["int4"] < 0.85, "reach and rivals"
# "Left of its crossing a format makes a model larger": to prune to 50 % and save as CSR.
assert weights.loc[weights["sparsity"] == 0.5, "csr"].item() > weights["dense"][0], "where did the memory go"
at = weights[weights["sparsity"] == sparsity].iloc[0]
assert near, "the slider shows the memory of one GPU"
assert at["bitmap"] < limit_gb < weights["dense"][0], "pruned it fits one GPU, dense it does not"
assert abs(weights["dense"][0] / (2e-9 * llm.published.parameters) - 1) < 0.01, "GB of the dense model"
# "Their bytes must match the formula, and decoding must return the matrix."
assert exact["decoded right"].all(), "decoding returns the matrix"
assert exact["difference [%]"].abs().max() < 0.5, "the difference is chance"
assert padding < 0.002, "padding is little"
assert (needed.diff().dropna() > 0).all().all(), "fewer bits need more sparsity"
# "What is left of the published range decides."
assert reached["llama-3.1-8b"].sparsity < reached["llama-2-7b"].sparsity < 0.55, "newer models bear less"
# Exercises
assert 0.75 < break_even_sparsity(FORMATS["macko"], FORMATS["bitmap"], m, k) < 0.8, "a little right of 75 %"
assert abs(FORMATS["int4"].bits_per_weight(m, k, 0.0) - (4 + 16 / 128)) < 0.01, "INT4 as the exercise has it"
