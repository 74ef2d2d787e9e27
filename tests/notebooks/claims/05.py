# The answer.
assert error[["opt-30b", "opt-66b"]].max() < 0.04 and error["opt-175b"] < 0.06, "the mean error of the time per token"
assert ratio.loc["deepspeed"].between(3.3, 4.2).all(), "predicted and published gains are alike"
assert not seen.loc[seen["model"] != "opt-66b", "fitted"].any(), "OPT-66B was fitted, the others were not"
# "Dense OPT-30B on one GPU has no room for a batch of 32, sparse weights leave room for 64."
fits = lines[lines["fits"] & (lines["model"] == "opt-30b") & (lines["gpus"] == 1)].groupby("system")["batch"].max()
assert fits["fastertransformer"] < 32 and fits["flash-llm"] == 64, "room"
assert 1.2 < same_batch < 1.6 < 3 < best_batch, "at equal batch the gain is much smaller"
assert agree == len(checked), "which runs fit is predicted without a miss"
# "Where the GPU-seconds go": OPT-175B, which no fit has seen.
assert not mine["fitted"].any(), "the test"
assert (fully / total - 1).abs().max() < 0.08 and by_part["matmul"] < 0.06, "parts and total are met"
assert (total["fastertransformer"].to_numpy() > total["flash-llm"].to_numpy()).all(), "half the GPUs, fewer GPU-seconds"
assert min(share.values()) > 0.5, "matrix products take most of the time"
# "Your model on your GPU", with the inputs as stored.
assert found.fewest_gpus("flash-llm") < found.fewest_gpus("fastertransformer"), "sparse weights need fewer GPUs"
assert sparse.ties_with(full), "best against best is a tie"
assert 0.7 < found.break_even_sparsity < 0.9, "at a best batch sparsity matters less"
# The slider: "the more sequences share each weight, the smaller the share of the time that its bytes cost".
ours = spent[spent["system"] == "Flash-LLM"].pivot_table(index="batch", columns="part", values="share")
assert (ours["attention"] / ours.sum(axis=1)).is_monotonic_increasing, "attention's share grows with the batch"
assert ours.sum(axis=1).loc[16] < 0.8, "at 16 sequences sparse weights are faster"
