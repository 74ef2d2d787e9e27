"""What holds in notebook 11 for any models, GPUs, N and budget."""

assert set(answer.index.get_level_values("GPU")) == set(gpus), "a row a GPU"
assert not (answer["speedup"] < 1).any(), "dense takes part, so nothing slower than dense is the fastest"
assert not (answer["loss"] > answer.index.get_level_values("budget")).any(), "the budget is kept"
