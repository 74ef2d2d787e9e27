assert exact["decoded right"].all(), "decoding must return the matrix"
assert (weights[list(shown)] > 0).all().all(), "every bar has a length"
