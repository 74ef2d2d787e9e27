"""What notebook 09 says with the inputs as stored."""

from perfmodel.formats import FORMATS, break_even_sparsity

attention = {name for name in table.index if "self_attn" in name}
assert len(matrices) == len(shapes) == 7, "one layer as weights: every matrix is found"
assert abs(inspected.sparsity - 0.636) < 0.002, "70 % in the MLP and 40 % in attention"
assert abs(load_model(path).parameters / 1.1e9 - 1) < 0.01, "the shape of a 1.1-billion-parameter model"
assert swollen == {"csr": 4, "tiled-csl": 4, "bitmap": 0}, "half must go before Tiled-CSL pays; a bitmap gains on all"
assert (size.loc[list(attention), "tiled-csl"] > size.loc[list(attention), "dense"]).all(), "attention at 40 % swells"
gain = table["dense us"] / table["us"]
assert gain["0.self_attn.k_proj"] < 1.05 < 1.5 < gain["0.mlp.up_proj"], (
    "a matrix that small gains little, those of the MLP more"
)
assert (table["spread"] - 1).abs().max() < 0.5, "near one, as the example's zeros are random"
assert target.stat().st_size < (folder / "model.safetensors").stat().st_size, "in Tiled-CSL the MLP takes less"
assert deployment.sparse.extrapolated, "the pruned one is outside the evidence"
least = {name: break_even_sparsity(FORMATS[name], FORMATS["dense"]) for name in ("csr", "tiled-csl", "bitmap")}
paper = {"csr": 2 / 3, "tiled-csl": 1 / 2, "bitmap": 1 / 16}
assert all(0 < least[name] - paper[name] < 0.001 for name in paper), (
    "exercise 1: as on paper, a little later for padding"
)
# Exercise 2
crowd = {size: CheckpointPlan("", gpu, size, plan_matrices(found, gpu, size), 0) for size in (1, 16, 64, 256, 1024)}
gains = {size: one.total_us(one.matrices[0].dense_kernel) / one.total_us() for size, one in crowd.items()}
assert gains[1] > 1.3 > gains[256] + 0.2, "the bitmap's gain fades, and near 256 tokens it is gone"
late = [matrix for matrix in crowd[1024].matrices if matrix.best_kernel == "sparta"]
assert late == crowd[1024].sparse_matrices, "at 1024 SparTA comes up"
assert all(matrix.times["sparta"].extrapolated for matrix in late), "nobody has measured it near there"
