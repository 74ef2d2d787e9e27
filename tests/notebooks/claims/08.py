"""What notebook 08 says with the inputs as stored."""

assert found.verdict == "no", "the answer is no"
assert limit.sparsity < sparsity, "speed is half of it: so many zeros are more than the model bears"
assert not lost.kept, "and cost its quality"
assert (gain["pruned"] < gain["rounded"]).all(), "rounding is ahead of pruning on every card"
rate = pd.Series({each_card: bytes_per_cycle(load_gpu(each_card)) for each_card in gain.index})
assert gain["pruned"].corr(rate, method="spearman") < -0.9, "exercise 1: little memory rate for each SM, much gain"
assert gain["pruned"].idxmax() == rate.idxmin(), "exercise 1: most on the card at the bottom"

at_sparsity = overtaken.set_index(["rival", "gpu"])["sparsity"]
# The more bytes the memory brings to each SM, the less a kernel has to spare for decoding.
assert at_sparsity["fp8", "rtx-4090"] < at_sparsity["fp8", "h100"]
assert at_sparsity["nvfp4", "rtx-5090"] < 0.9, "NVFP4 is overtaken on one of two cards"
assert np.isnan(at_sparsity["nvfp4", "b200"]), "and not on the one with the faster memory"
assert share["b200"] < share["h100"] < share["rtx-4090"], "on the maps too"
assert (clear < 0.1).all(), "clearly ahead nearly nowhere: who is fastest is mostly open"

assert (expected > 90).all(), "our kernel is expected ahead of everything published"
assert (sure < expected).all(), "but of nothing one can be sure"
assert times["rtx-4090"] > 1.9, "dropping and rounding multiply where bytes decide"
assert times["h100"] < 1, "rounding adds nothing where decoding decides"
# Bits per weight: 2:4 is cheap, a bitmap dearer than rounding.
assert bits["INT4 + 2:4"][0] < bits["INT4, groups of 128"][0] < bits["bitmap (TCA-BME)"][1]

assert (curve.loc[4096] < 1.2).all(), "bound by computing, zeros anywhere gain little"
assert curve.gt(1.2).sum().idxmax() == "l40s", "the card whose Tensor Cores are fast for its memory keeps it longest"
assert each[each <= 64].index.max() > 900, "batching does not end the experts' regime"
assert many.loc[n].idxmax() == "int4", "INT4 is ahead of every pruned expert"
assert abs(kept - 0.45) < 0.03, "the cache shrinks to Mustafar's 45 %"
assert gains.loc["l40s", "min"] > 1.1, "behind slow memory a pruned cache makes the run faster"
assert gains.loc["a100-80gb"].between(0.9, 1.1).all(), "behind fast memory it buys room"

checked = 8 * (np.arange(8) + 1)
zeros, both_kinds = (bests_over(gpu, checked, [sparsity], model, of).set_index("n") for of in (unstructured(gpu), None))
rounded = both_kinds.loc[both_kinds["change"] == "rounded", "speedup"]
assert (rounded > zeros["speedup"]).all(), "exercise 2: rounding stays ahead"
assert np.ptp(rounded) > np.ptp(zeros["speedup"]), "exercise 2: and loses more"
