# The answer.
assert (held_out["n"] == 16).all() and not held_out["fitted"].any(), "which no model was fitted on"
assert len(held_out) > 100, "errors are means over many rows"
assert errors["mean"].max() <= 0.11 and errors["mean"]["flash-llm"] < 0.03, (
    "the closed forms miss the published times by little"
)
assert by_sparsity.between(1.3, 2.3).all() and by_sparsity.is_monotonic_increasing, (
    "on average so much faster than cuBLAS"
)
# "A fit that only remembers would betray itself."
means = table["mean"].unstack()
assert (means["held out"] < 2 * means["fitted"]).all(), "what is held out is met nearly as well"
# "Time against sparsity", with the inputs as stored.
assert (m, k) == (36864, 9216) and len(markers) > 20, "the paper's motivation figure"
assert abs(flash[1.0] / seen.item() - 1) < 0.1, "an empty matrix takes as long as published"
assert flash[1.0] > flash[0.8] / 2, "more than bytes over bandwidth"
assert flash[1.0] > dense_us / 4, "Flash-LLM's line does not end at zero"
at_end = lines[lines["sparsity"] == 0.99].set_index("kernel")["time_us"]
assert at_end["sputnik"] < at_end["flash-llm"], "Sputnik catches up there as long as N is small"
# "Move N".
gains = rows[rows["sparsity"] == 0.8].pivot_table(index="n", columns="kernel", values="gain")
assert np.allclose(gains.loc[16, "flash-llm"] / gains.loc[8, "flash-llm"], 1, atol=0.1), "weights are read either way"
assert gains.loc[64, "flash-llm"] > 1.3 and gains.loc[128, "flash-llm"] < 1, (
    "at many tokens the chip's own work takes longer"
)
assert gains.loc[[8, 32, 128], "sputnik"].is_monotonic_decreasing, "Sputnik's work grows with every token"
known = rows.dropna(subset="seen")
assert len(known) > 30 and (known["gain"] / known["seen"] - 1).abs().mean() < 0.08, "lines meet the published markers"
# "Where they agree, the answer does not hang on either's assumptions."
assert points["simulator error"].abs().mean() < 0.05 and points["error"].abs().mean() < 0.05, "the simulator agrees"
# "Elsewhere": "most took no part in any fit, and only those are shown".
assert foreign["rows"].sum() > 1000 and foreign["median"].median() < 0.10, "others' rows are met"
