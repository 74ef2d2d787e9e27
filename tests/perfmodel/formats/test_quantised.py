"""Bytes of rounded weights: by hand, against arrays that are packed here, and in order of their bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from perfmodel.formats import FORMATS
from perfmodel.formats.quantised import QUANTISED

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def size(name: str, m: int, k: int) -> float:
    return float(FORMATS[name].bytes(m, k))


@pytest.mark.parametrize(
    ("name", "m", "k", "expected"),
    [
        ("int8", 10, 100, 1000 + 2 * 10),
        ("int8-w8a8", 10, 100, 1000 + 4 * 10),
        ("fp8", 10, 100, 1000 + 4),
        ("fp8-row", 10, 100, 1000 + 4 * 10),
        ("fp8-block", 256, 128, 256 * 128 + 4 * 2),
        ("fp8-block", 129, 257, 129 * 257 + 4 * 2 * 3),
        ("fp8-block", 1, 1, 1 + 4),
        ("mxfp8", 10, 64, 640 + 10 * 2),
        ("mxint8", 10, 65, 650 + 10 * 3),
        ("mxfp4", 10, 64, 320 + 10 * 2),
        ("mxfp4", 10, 70, 350 + 10 * 3),
        ("nvfp4", 10, 64, 320 + 10 * 4 + 4),
        ("nvfp4", 10, 70, 350 + 10 * 5 + 4),
        ("int4-g64", 10, 256, 1280 + 2 * 40),
        ("int4-g32", 10, 256, 1280 + 2 * 80),
        ("int4-zp", 10, 256, 1280 + 2.5 * 20),
        ("int4-g64-zp", 10, 256, 1280 + 2.5 * 40),
        ("int4-g32-zp", 10, 256, 1280 + 2.5 * 80),
        ("int4-g32-zp", 10, 258, 1290 + 2.5 * 90),
        ("zq-fp6", 8, 512, 8 * 512 * 6 / 8 + 2 * 16),
        ("zq-fp6", 8, 516, 8 * 516 * 6 / 8 + 2 * 24),
        ("comet-w4a4", 10, 256, 1280 + 2 * 20),
        ("gqsa-w4s50", 4, 64, 0.5 * 4 * 4 * (8 + 2 + 0.5 + 2) + 4 * 5),
        *((f"tilus-int{bits}", 8, 200, bits * 200 + 2 * 8 * 2) for bits in (1, 2, 3, 5, 6, 7)),
    ],
)
def test_bytes_by_hand(name: str, m: int, k: int, expected: float) -> None:
    assert size(name, m, k) == pytest.approx(expected, rel=1e-12)


def in_groups(a: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """(m, groups, columns), the last group filled up with zeros."""
    return np.pad(a, ((0, 0), (0, -a.shape[1] % columns))).reshape(len(a), -1, columns)


def two_a_byte(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    flat = np.pad(codes.reshape(-1), (0, codes.size % 2))
    return flat[::2] | flat[1::2] << np.uint8(4)


def e2m1_codes(scaled: NDArray[np.float64], k: int) -> NDArray[np.uint8]:
    """Nearest 4-bit float of each weight of groups, those beyond the row dropped."""
    nearest = np.abs(np.abs(scaled)[..., None] - E2M1).argmin(axis=-1) | np.signbit(scaled) * 8
    return nearest.astype(np.uint8).reshape(len(scaled), -1)[:, :k]


SHAPES = [(1, 2), (3, 16), (5, 40), (4, 130), (6, 256)]


@pytest.mark.parametrize("shape", SHAPES)
def test_nvfp4_is_what_packed_arrays_take(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(3).normal(size=shape)
    groups = in_groups(a, 16)
    whole = np.float32(np.abs(a).max() / (6 * 448))
    # E4M3 has 8 bits: here its exponent and mantissa are rounded, and a byte stands for the pair.
    mantissa, exponent = np.frexp(np.abs(groups).max(axis=2) / (6 * whole))
    scales = np.ldexp(np.rint(mantissa * 16) / 16, exponent)
    codes = e2m1_codes(groups / (scales * whole)[..., None], shape[1])
    arrays = (two_a_byte(codes), scales.astype(np.uint8), np.atleast_1d(whole))
    assert sum(array.nbytes for array in arrays) == size("nvfp4", *shape)
    decoded = np.copysign(E2M1[codes & 7], np.where(codes & 8, -1, 1))
    steps = np.repeat(scales * whole, 16, axis=1)[:, : shape[1]]
    assert np.abs(decoded * steps - a).max() <= 1.1 * steps.max()  # codes of 4 and 6 are 2 steps apart


@pytest.mark.parametrize("shape", SHAPES)
def test_mxfp4_is_what_packed_arrays_take(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(4).normal(size=shape)
    groups = in_groups(a, 32)
    exponents = np.floor(np.log2(np.abs(groups).max(axis=2))) - 2  # OCP MX v1.0, conversion: E2M1 reaches 2**2
    scales = (exponents + 127).astype(np.uint8)  # E8M0
    codes = e2m1_codes(groups / 2.0 ** exponents[..., None], shape[1])
    assert two_a_byte(codes).nbytes + scales.nbytes == size("mxfp4", *shape)


@pytest.mark.parametrize("shape", [*SHAPES, (6, 300)])
@pytest.mark.parametrize(("name", "columns"), [("int4-zp", 128), ("int4-g64-zp", 64), ("int4-g32-zp", 32)])
def test_int4_with_zero_points_is_what_packed_arrays_take(name: str, columns: int, shape: tuple[int, int]) -> None:
    a = np.random.default_rng(5).normal(0.3, 1, size=shape)
    groups = in_groups(a, columns)
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    scales = ((high - low) / 15).astype(np.float16)
    zeros = np.rint(-low / scales)
    codes = np.clip(np.rint(groups / scales[..., None]) + zeros[..., None], 0, 15).astype(np.uint8)
    arrays = (two_a_byte(codes.reshape(len(a), -1)[:, : shape[1]]), two_a_byte(zeros.astype(np.uint8)), scales)
    # An odd number of zero points leaves half a byte, which the closed form does not round up.
    assert sum(array.nbytes for array in arrays) == size(name, *shape) + zeros.size % 2 / 2
    decoded = (codes - zeros[..., None]) * scales[..., None]
    assert np.abs(decoded - groups).max() <= 1.01 * scales.max()


def test_fewer_bits_and_larger_groups_are_smaller() -> None:
    chains = (
        "tilus-int1 tilus-int2 tilus-int3 int4 int4-zp int4-g64 int4-g64-zp int4-g32 int4-g32-zp tilus-int5 fp6 "
        "zq-fp6 tilus-int7 fp8 fp8-block fp8-row mxfp8 df11 dense",
        "int4 mxfp4 nvfp4 tilus-int5",
        "int8 int8-w8a8 mxint8",
    )
    for chain in chains:
        sizes = [size(name, 4096, 14336) for name in chain.split()]
        assert sizes == sorted(sizes), chain
        assert len(set(sizes)) == len(sizes), chain


@pytest.mark.parametrize("fmt", QUANTISED, ids=lambda fmt: fmt.name)
def test_zeros_change_nothing_but_the_shape(fmt: object) -> None:
    sizes = fmt.bytes([[8], [9]], 256, np.linspace(0, 1, 5))  # type: ignore[attr-defined]
    assert sizes.shape == (2, 5)
    assert (sizes == sizes[:, :1]).all()
