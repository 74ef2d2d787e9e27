"""What notebook 08 keeps for any GPU, model and N."""

assert found.gpus == shared, "asked on the GPUs that the answer names"
for asked_of in (table, kinds, *anywhere.values()):
    assert asked_of["speedup"].between(asked_of["low"], asked_of["high"]).all(), "predictions lie in their intervals"
assert own["speedup"].between(own["low"], own["high"]).all(), "and so does our kernel in its band"
assert own["extrapolated"].all(), "which nobody has run on a GPU"
assert gpu in set(won["gpu"]), "the GPU asked for has a map"
assert 0.4 < kept <= 1, "a pruned cache is no larger"
