"""Independent evidence for the PTX emulator: code by other compilers, whose layouts and instructions we did not choose.

``data/triton_dot_*.ptx`` is Triton's own choice of cp.async pipeline, swizzle, ldmatrix and mma for ``tl.dot``,
code that runs on GPUs every day. ``emulator_evidence.ptx`` is nvcc's translation of C++ that is easy to state in NumPy.
"""

from pathlib import Path

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch

DATA = Path(__file__).parent / "data"
NVCC = (DATA / "emulator_evidence.ptx").read_text()
WORD = 0xFFFFFFFF


def relative_error(found, reference):
    return np.linalg.norm(found - reference) / np.linalg.norm(reference)


def test_triton_fp16_product_with_a_three_stage_pipeline():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((64, 160)).astype(np.float16), rng.standard_normal((160, 64)).astype(np.float16)
    c, scratch = np.full((64, 64), np.nan, np.float32), np.zeros(16, np.uint8)
    ptx = (DATA / "triton_dot_fp16.ptx").read_text()
    result = launch(ptx, grid=1, block=128, args=[a, b, c, 160, scratch, scratch], dynamic_shared_bytes=16384)
    assert relative_error(c, a.astype(float) @ b.astype(float)) < 1e-7
    loads = result.counters.by_array("load")
    assert loads[0].bytes == a.nbytes
    assert loads[1].bytes == b.nbytes
    assert result.counters.mma_flops == 2 * 64 * 64 * 160
    assert result.counters.shared("ldmatrix").bank_conflicts == 0  # Triton swizzles to avoid them
    with pytest.raises(PtxError):  # without one of its barriers the pipeline must not pass
        launch(
            ptx.replace("bar.sync \t0;", "", 1),
            grid=1,
            block=128,
            args=[a, b, c, 160, scratch, scratch],
            dynamic_shared_bytes=16384,
        )


def to_bfloat(values):
    """Small integers, exact in bfloat16, as its bits."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_triton_bfloat16_product_with_b_stored_by_columns():
    rng = np.random.default_rng(4)
    a, b = rng.integers(-9, 10, (32, 96)), rng.integers(-9, 10, (32, 96))
    c, scratch = np.full((32, 32), np.nan, np.float32), np.zeros(16, np.uint8)
    ptx = (DATA / "triton_dot_bf16.ptx").read_text()
    launch(ptx, grid=1, block=64, args=[to_bfloat(a), to_bfloat(b), c, 96, scratch, scratch], dynamic_shared_bytes=4096)
    assert (c == a @ b.T).all()


def truncated(a, b):
    return abs(a) // b * (1 if a >= 0 else -1)


def signed(x):
    return x - 2**32 if x >> 31 else x


def integers_reference(x, y):
    """The twelve results of ``integers`` for an unsigned x and a signed y, by exact arithmetic."""
    u = y & WORD
    octets = x.to_bytes(4, "little") + u.to_bytes(4, "little")
    cases = [x + 1, x * 3, x ^ u, (x + u) >> 1, x >> (y & 31), max(x, u), abs(y), 42]
    return [
        x // 7,
        truncated(y, 10),
        y - 1000 * truncated(y, 1000),
        ((x << 32 | u) * 0x9E3779B97F4A7C15) >> 64,
        x.bit_count() + 100 * (32 - u.bit_length()) + 10000 * (x & -x).bit_length(),
        int(f"{x:032b}"[::-1], 2),
        int.from_bytes(bytes(octets[s] for s in (3, 4, 1, 6)), "little"),
        ((u << 32 | x) << 13 >> 32) & WORD,
        (y * y) >> 7,
        ((x << 20) + 12345) // 97,
        (x >> 5 & 0x3FF) | (signed(y << 3 & WORD) >> 25 & 0xFFFF) << 16,
        cases[x % 8] & WORD,
    ]


def test_nvcc_integer_code():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 2**32, 90, dtype=np.uint32) >> rng.integers(0, 32, 90, dtype=np.uint32)
    y = rng.integers(-(2**31), 2**31, 90).astype(np.int32) >> rng.integers(0, 31, 90).astype(np.int32)
    x[:3], y[:3] = [0, WORD, 1], [-(2**31), 2**31 - 1, 0]
    out = np.zeros((96, 12), np.uint64)
    launch(NVCC, kernel="integers", grid=3, block=32, args=[x, y, out, 90])
    for row, (a, b) in enumerate(zip(x, y, strict=True)):
        assert out[row].tolist() == [v % 2**64 for v in integers_reference(int(a), int(b))], (a, b)
    assert (out[90:] == 0).all()


def test_nvcc_float_code():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal(100).astype(np.float32), rng.standard_normal(100).astype(np.float32)
    out = np.zeros((100, 10), np.float32)
    launch(NVCC, kernel="floats", grid=1, block=128, args=[a, b, out, 100])
    ha, hb, third = a.astype(np.float16).astype(float), b.astype(np.float16).astype(float), float(np.float16(0.333))
    assert (out[:, 0] == ha).all()
    assert (out[:, 1] == (hb * third + hb).astype(np.float16)).all()
    assert np.allclose(out[:, 2], a, rtol=2**-8, atol=0)
    assert (out[:, 2].view(np.uint32) & 0xFFFF == 0).all()
    assert (out[:, 3] == (a.astype(float) * b + 1).astype(np.float32)).all()
    whole = np.trunc(a * np.float32(1e6)) + np.rint(np.abs(b)).astype(np.float32)
    assert (out[:, 4] == whole).all()
    assert (out[:, 5] == np.where(a < b, np.minimum(a, np.float32(0.5)), np.maximum(b, np.float32(-0.5)))).all()
    assert (out[:, 6] == a / b).all()
    assert (out[:, 7] == np.sqrt(np.abs(a))).all()
    assert (out[:, 8] == (a.astype(float) * b).astype(np.float32)).all()
    assert (out[:, 9] == (ha * hb).astype(np.float16)).all()


def test_nvcc_reductions_with_shuffles_ballots_and_atomics():
    a = np.random.default_rng(7).integers(-100, 100, 300).astype(np.int32)
    total, rank = np.zeros(1, np.int32), np.full(300, -1, np.int32)
    result = launch(NVCC, kernel="reductions", grid=3, block=128, args=[a, total, rank, 300])
    assert total[0] == a.sum()
    expected = [int((a[i // 32 * 32 : i] > 0).sum()) for i in range(300)]
    assert rank.tolist() == expected
    assert result.counters.by_array("atomic")[1].requests == 3
    assert result.counters.barriers == 3


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_nvcc_pipeline_of_asynchronous_copies(tiles):
    source = np.random.default_rng(8).standard_normal((tiles, 64, 4)).astype(np.float32)
    out = np.zeros_like(source)
    args = [source, out, tiles]
    result = launch(NVCC, kernel="pipeline", grid=1, block=64, args=args, dynamic_shared_bytes=3 * 64 * 16)
    assert (out == source[:, ::-1]).all()
    assert result.counters.cp_async_groups == 2 * tiles
    with pytest.raises(PtxError, match="out of bounds"):
        launch(NVCC, kernel="pipeline", grid=1, block=64, args=args, dynamic_shared_bytes=min(tiles, 3) * 64 * 16 - 16)


def local_array_reference(state, thread):
    counts = [0] * 16
    for i in range(thread % 7 + 3):
        state = (state * 1664525 + 1013904223) & WORD
        counts[state >> 28] += i + 1
    return sum(count * (i + 1) for i, count in enumerate(counts))


def test_nvcc_local_arrays_and_divergent_loops():
    a = np.random.default_rng(9).integers(0, 2**31, 64).astype(np.int32)
    out = np.zeros(64, np.int32)
    launch(NVCC, kernel="local_array", grid=1, block=64, args=[a, out])
    assert out.tolist() == [local_array_reference(int(v), t) for t, v in enumerate(a)]
