"""Draws given tables: every function takes data frames and returns a matplotlib figure; none computes a prediction."""
