"""The product that many tests ask about."""

from __future__ import annotations

CASE = {"m": 36864, "k": 9216, "n": 8}
OURS = "lscd-bitmap"  # a kernel that nobody has measured
