"""What holds in notebook 09 for any GPU, N, checkpoint and model."""

assert inspected.total_bytes() > 0, "every matrix has a format"
assert (table["us"] <= table["dense us"] * (1 + 1e-12)).all(), "dense takes part, so nothing slower than it is chosen"
