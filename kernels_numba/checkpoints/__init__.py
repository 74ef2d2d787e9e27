"""Checkpoints: read and written as a stream, counted, pruned, converted to encoded weights and back."""
