"""A whole decoder on the CPU: a language model's layers, its cache and its head, on weights of any format."""
