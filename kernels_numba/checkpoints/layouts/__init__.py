"""How published checkpoints store a weight matrix in pieces: which tensors belong together, and what they stand for."""
