# The answer, and "an H100 needs more zeros than an RTX 4090".
assert start.idxmax() == "h100" and start.between(0.45, 0.56).all(), "sparse overtakes dense near half empty"
assert gain["rtx-4090"] > gain["a100-80gb"] > gain["h100"] > 1.1, (
    "the slower the memory for its SMs, the more there is to save"
)
# "From 256 tokens on sparse wins at no sparsity in reach on A100 and RTX 4090."
many = maps[(maps["n"] >= 256) & maps["gpu"].isin(["a100-80gb", "rtx-4090"])]
assert many["speedup"].max() < 1, "wins nowhere"
assert not maps[(maps["gpu"] == "a100-80gb") & maps["n"].isin([8, 16, 32]) & (maps["sparsity"] > 0.7)][
    "extrapolated"
].any(), "the A100 has published times at 8 to 32 tokens"
assert maps[maps["gpu"] == "h100"]["extrapolated"].all(), "the rest is carried over by datasheet"
assert list(limits) == ["opt-66b, one shot,"] and limits["opt-66b, one shot,"].sparsity == 0.5, "the dotted line"
# "Small matrices leave little to gain."
assert by_model.loc[["opt-1.3b", "opt-6.7b", "opt-13b", "opt-66b"], 8].is_monotonic_increasing, (
    "larger models gain more"
)
# The slider: "at which batch does pruning stop helping?"
pruned = kinds[(kinds["change"] == "pruned") & (kinds["sparsity"] == 0.8)].set_index("n")["speedup"]
assert pruned[1] > 1.5 > pruned[4096], "less at many tokens than at one"
# On every GPU: "the intervals matter more than the marks".
assert (wide["rounded"] > wide["pruned"]).sum() > 0.9 * wide.dropna().shape[0], "rounding is ahead nearly everywhere"
assert sure["rounded"] > sure["pruned"] > len(listed) / 2, "on most GPUs both beat dense for certain"
