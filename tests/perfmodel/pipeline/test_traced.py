"""Programs made of traces, through the simulator."""

from __future__ import annotations

from perfmodel.pipeline import simulate


def test_pays_where_decoding_is_the_bound() -> None:
    """Simulated on an H200: fewer instructions win at 90 % sparsity, fewer bytes at 60 %."""
    pairs, bits = (
        [simulate(kernel, "h200", 36864, 9216, 16, s).time_s for s in (0.6, 0.9)]
        for kernel in ("numba-bitmap-pairs", "numba-bitmap")
    )
    assert pairs[0] > 1.1 * bits[0]
    assert pairs[1] < 0.9 * bits[1]
