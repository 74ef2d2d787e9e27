"""What notebook 07 keeps for any question."""

assert (answers["low"] <= answers["predicted [us]"]).all(), "predictions lie in their intervals"
assert (answers["predicted [us]"] <= answers["high"]).all(), "on both sides"
assert ((answers["mean error"] != "") == (answers["unseen rows here"] > 0)).all(), "an error is of rows"
assert (answers.loc[answers["unseen rows here"] > 0, "nearest"] != "").all(), "and where there are rows, one is nearest"
assert within["share"].between(0, 100).all(), "shares of the slider"
