"""What a user's own rows are made from."""

from __future__ import annotations

SIZES = ((36864, 9216), (9216, 36864), (12288, 12288), (4096, 4096))


TRUTH = {"bandwidth_efficiency": 0.95, "pipe_share": 0.6, "pipe_efficiency": 0.85, "block_cycles": 4.5e3}
