"""What notebook 11 says with the inputs as stored."""

assert len(accuracy.published()) > 250, "every loss is from a table with many results"
rounded = strict["way"].map(draw.change_of) == "rounded"
assert rounded.sum() > len(strict) / 2, "within one point rounding is the fastest in most cases"
assert not strict["way"].isin(PRUNING).any(), "and pruning in none"
assert pruned == silent == ["opt-30b"], "pruning within two points, and no rounding in points: the paper's model"
assert (answer["speedup"] >= 1).all(), "the fastest is never slower than dense"
climbs = moved.groupby("case")["speedup"]
assert climbs.apply(lambda column: column.is_monotonic_increasing).all(), "bars never shrink with the budget"
assert climbs.nunique().between(2, len(stops) // 2).any(), "where a colour changes, and where more loss buys nothing"
last = moved[moved["budget"] == stops[-1]]
assert (last["way"] == "smaller dense model").sum() >= len(last) / 3, "the last step is often a smaller sibling"
assert ways.loc[ways["gap"] == "not published in points", "loss"].isna().all(), "at '?': nobody has published the loss"
assert all(one.fits for one in (sparse, small)), "both fit on one A100"
assert sparse.step_s > small.step_s, "the smaller model is the faster one"
assert own is None, "what 80 % zeros cost OPT-66B nobody has published"
assert other.results >= 1, "of OPT-30B it is said"
assert shot["llama-3.1-8b"] < shot["llama-2-7b"], "Llama-3.1-8B bears fewer zeros than Llama-2-7B"
assert len(pairs) >= 50, "many tables give both"
assert 0.6 < rank < 0.9, "perplexity and points rise together, but loosely"
assert near.max() > 3 * near.quantile(0.1) > 0, "the same rise of perplexity costs different amounts"
assert 0 < change.max() < 0.06, "a profile costs a little time"
assert hard.max() < mild.min() <= mild.max() < 1, "and spares perplexity, the more the harder the pruning"
assert ratio[here].item() > 1, "but not that of SmolLM2"
assert (told.loc[hard.index, "layer_wise"] > 2 * told.loc[hard.index, "dense"]).all(), "at 70 % the model is ruined"

# Exercise 1
ladder = by_budget(frontier("opt-30b", "a100-80gb", batch=16), np.arange(0, 5.1, 0.5))["fastest"].drop_duplicates()
pruned_at, smaller_at = ladder.index[1:3]
assert ladder.tolist()[:2] == ["layers dropped 10%", "zeros anywhere 80% retrained"], "layers, then 80 % zeros"
assert all(name.startswith("opt-") for name in ladder.tolist()[2:]), "then a smaller OPT, and no rounding"
assert 1 <= pruned_at < smaller_at <= pruned_at + 2, "the window of pruning is narrow"
# Exercise 2
few, many = (by_budget(frontier("llama-3.1-8b", "a100-80gb", batch=size), [2]).iloc[0] for size in (1, 256))
assert (few["fastest"], many["fastest"]) == ("INT4 weights", "INT8 W8A8"), "INT8 passes INT4 as N grows"
assert many["speedup"] < few["speedup"], "the gain shrinks"
