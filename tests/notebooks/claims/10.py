"""What notebook 10 says of any machine, and of the catalogue's, whose rows are stored."""

quality = table.set_index("row")
half = quality.loc["sparsegpt-0.5"]
assert rows["kernel"].nunique() >= 4, "several kernels are predicted and timed"
assert useful["predicted_tokens_per_s"].notna().sum() >= 5, "lines and dots of the left picture"
assert half["tokens_per_s"] > 1.1 * dense["tokens_per_s"], "zeros buy speed"
assert half["perplexity"] > 1.2 * dense["perplexity"], "and are paid for in quality"
assert quality.loc["int8", "best_bytes"] < half["best_bytes"], "at equal bytes rounding wins: INT8 needs fewer"
assert quality.loc["int8", "perplexity"] < 1.01 * dense["perplexity"], "and keeps the perplexity"
assert 0.58 < decoders[pruned].step_bytes / decoders["dense"].step_bytes < 0.6, "exercise 1: 41 % fewer bytes"
# Exercise 2
keep = {limit: table[table["perplexity"] <= limit * dense["perplexity"]] for limit in (1.1, 1.2, 1.5)}
best = {limit: rows.loc[rows["tokens_per_s"].idxmax()] for limit, rows in keep.items()}
assert best[1.1]["sparsity_wanted"] == best[1.2]["sparsity_wanted"] == 0.3, "up to a fifth more perplexity: 30 % zeros"
assert best[1.2]["tokens_per_s"] < 1.1 * dense["tokens_per_s"], "hardly faster than dense"
assert best[1.5]["row"] == "sparsegpt-0.5", "half again as much lets half of the weights go"
assert abs(best[1.5]["tokens_per_s"] / dense["tokens_per_s"] - 7 / 6) < 0.03, "for a sixth more tokens"
assert abs(table["tokens_per_s"].max() / dense["tokens_per_s"] - 1.4) < 0.03, "nobody doubles the speed: two fifths"
