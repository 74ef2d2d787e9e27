"""What notebook 07 says with the inputs as stored, and of the evidence, which no input changes."""

assert fair["mean"].max() < 0.16, "the answer: the mean error by kernel"
assert at_home["mean"].max() < 0.2, "and on a shared CPU"
assert covered > 0.9, "intervals promise 90 %"
assert right["right"].drop(summary.MILD_ROWS).min() > 0.94, "who is faster is right where it matters"
assert (right["right"].drop(summary.MILD_ROWS) >= 0.92).all(), "the aims of the decision are met"
assert right["right"][summary.MILD_ROWS] < 0.9, "but for mild patterns, where the error of either decides"

assert answers.loc[first, "unseen rows here"] > 100, "your question: its kernel was measured on this card"
assert set(kernels.index) == set(fits), "a line for each kernel"
assert not runs.loc[runs["model"] == "opt-175b", "fitted"].any(), "OPT-175B is in no fit"
assert whole["rows"].sum() == (~runs["fitted"]).sum(), "and every run that no fit saw is scored"
free_parameters = pd.Series(free)
assert free_parameters.max() <= 5, "a kernel has at most five free parameters"
assert all(fit.rows > 3 * free[x] for x, fit in fits.items()), "and many rows for each"
assert free[variant] == 1, "Flash-LLM without reordering has one of its own"

shifts = ends["not reordered"].diff(axis=1).iloc[:, 1].abs()
assert (shifts < 0.03).all(), "both can be right: the rerun's break-even is the variant's"
assert (ends["reordered", "predicted"] < 0.52).all(), "and the authors' encoder pays at their lowest sparsity"
assert lowest["sparsity"] == 0.6, "the authors show no break-even"
assert min(gain) > 1.1, "and are ahead at their lowest sparsity"
assert modelled < line, "the model is a little kind to their encoder"
assert line < ends.iloc[0, 0], "which pays before the rerun's does"
assert held.all(), "the interval holds every median of the rerun"
assert (authors["covered"] > 0.9).all(), "and the authors' own unseen times"
assert 3.4 < expected_wavefronts(32) < 3.7, "stores in random order collide three or four times"
by_card = pd.DataFrame(worth)
assert by_card["a100-80gb"].min() > 1.2, "which costs on an A100"
assert by_card.loc[:0.8, "rtx-4090"].max() < 1.05, "and hides behind device memory on an RTX 4090"

assert pairs["right"].mean() > 0.95, "which of two kernels is ahead"
assert len(wrong) == 1, "one pair only is ever wrong"
assert set(wrong.index[0]) == {"sparta", "flash-llm-noreorder"}, "SparTA and Flash-LLM without reordering"
assert cross["missed"].median() < 0.05, "half of the crossings lie within a few points"
few_rows = shown[~shown["fitted"]].groupby("gpu")["n"].agg(["size", "median"]).query("size < 12")
assert (few_rows["median"] > 1000).mean() > 0.5, "a GPU with a handful of rows has mostly long products"
assert len(low) < len(table) / 5, "few intervals are too narrow"
assert inside > 0.8, "intervals of whole runs"
assert 0 < len(failures) < len(groups) / 5, "few groups miss by more than a fifth"

# What is missing, by name.
failing = failures.reset_index().set_index(["kernel", "gpu"])
assert failing.loc[("cublas", "v100"), "bias"].min() < -0.3, "cuBLAS on a V100 takes twice as long"
assert failing.loc[("cusparse", "rtx-3090"), "bias"].min() < -0.5, "cuSPARSE on an RTX 3090 too"
assert failing.loc[("flash-llm-noreorder", "rtx-4090"), "bias"].max() > 0.3, "small products in a loop take less"
opt = by_case.xs("fastertransformer-gpt").loc["opt-1.3b"]
assert (opt < -0.2).all(), "FasterTransformer's OPT-1.3B takes longer than predicted"

# Exercise 1: of the kernels with hundreds of rows on new cards dense carries over best, cuSPARSE worst.
seen_on = {name: set(fit.gpus) for name, fit in fits.items()}
new_cards = unseen[[card_of not in seen_on[of] for card_of, of in zip(unseen["gpu"], unseen["kernel"], strict=True)]]
new_cards = new_cards[~new_cards["kernel"].isin(CPU_KERNELS)]
fifth = new_cards["error"].abs().le(0.2).groupby(new_cards["kernel"]).agg(["mean", "size"])
many_rows = fifth[fifth["size"] > 200]["mean"]
assert (many_rows.idxmax(), many_rows.idxmin()) == ("cublas", "cusparse"), "exercise 1"
assert many_rows["cusparse"] < 0.6 < 0.75 < many_rows.drop("cusparse").min(), "exercise 1: worst by far"
asked_of = [predict(of, "a100-80gb", 28672, 8192, 16, 0.7, cache="warm") for of in (parent, variant)]
assert asked_of[1].time_s < asked_of[0].hi_s < 400e-6, "exercise 2: above all of the interval"
assert asked_of[0].dense_s < 400e-6, "and slower than dense"
