"""Floating-point arithmetic: one rounding, NaN, subnormal numbers."""

import numpy as np

from tests.kernels_numba.ptx_emulator.programs import apply


def test_packed_half_arithmetic_rounds_once():
    rng = np.random.default_rng(18)
    a, b, c = (rng.standard_normal((64, 2)).astype(np.float16) for _ in range(3))
    words = [np.ascontiguousarray(x).view(np.uint32).ravel() for x in (a, b, c)]
    found = apply("fma.rn.f16x2 D, A, B, C;", np.uint32, *words).view(np.float16).reshape(64, 2)
    exact = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    assert (found == exact.astype(np.float16)).all()
    found = apply("add.f16x2 D, A, B;", np.uint32, *words[:2]).view(np.float16).reshape(64, 2)
    assert (found == a + b).all()
    found = apply("max.f16x2 D, A, B;", np.uint32, *words[:2]).view(np.float16).reshape(64, 2)
    assert (found == np.maximum(a, b)).all()


def test_float_minimum_ignores_nan_and_ftz_flushes():
    a, b = np.array([np.nan, 1, -0.0, 1e-40], np.float32), np.array([2, np.nan, 3, 0], np.float32)
    assert apply("min.f32 D, A, B;", np.float32, a, b).tolist() == [2, 1, 0, 0]
    assert np.isnan(apply("min.NaN.f32 D, A, B;", np.float32, a, b)[:2]).all()
    assert apply("add.f32 D, A, B;", np.float32, a, b)[3] == np.float32(1e-40)
    assert apply("add.ftz.f32 D, A, B;", np.float32, a, b)[3] == 0
