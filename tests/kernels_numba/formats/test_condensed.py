"""Condensed strips: layout, exact round trips on every kind of mask, refusals, and the search for an order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels_numba.formats import Condensed, Element, encode_condensed
from kernels_numba.formats.condensed_njit import columns_entry, header_entries, metadata_entry
from kernels_numba.formats.condensed_order_njit import arrange, fit
from tests.kernels_numba.problems import random_bits, random_matrix, without_minus_zero

WIDTHS = (1, 2)


def order_of(weights: Condensed, strip: int = 0) -> NDArray[np.int64]:
    """Column at each of the 64 places of a strip."""
    begin = 8 * int(weights.offsets[strip])
    pairs = [int(weights.records[begin + columns_entry(lane, weights.width)]) for lane in range(32)]
    return np.array([pair & 63 for pair in pairs] + [pair >> 8 & 63 for pair in pairs])


def masks(kind: str, shape: tuple[int, int] = (256, 256)) -> NDArray[np.bool_]:
    """Which weights are kept, in patterns that random masks never show."""
    rng = np.random.default_rng(1)
    rows, columns = np.indices(shape)
    return {
        "2:4": columns % 4 < 2,
        "1:4, same column": columns % 4 == 1,
        "4:8": columns % 8 < 4,
        "blocks of 8 x 8": (rng.random((shape[0] // 8, shape[1] // 8)) < 0.3).repeat(8, 0).repeat(8, 1),
        "full columns": np.broadcast_to(rng.random(shape[1]) < 0.25, shape),
        "full rows": np.broadcast_to(rng.random((shape[0], 1)) < 0.25, shape),
        "one dense strip": (rows < 32) & (columns < 64),
        "clusters": rng.random(shape) < 0.9 * np.exp(-((columns % 64 - 20) ** 2) / 200),
        "diagonal": np.abs(rows - columns) < 20,
    }[kind]


KINDS = (
    "2:4", "1:4, same column", "4:8", "blocks of 8 x 8", "full columns", "full rows", "one dense strip", "clusters",
    "diagonal",
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_layout_by_hand(width: int) -> None:
    """One weight in row 9: register 1 of its group's lane, the only value; its metadata names its place."""
    a = np.zeros((32, 64), np.float16)
    a[9, 5] = 3
    weights = encode_condensed(a, width)
    place = int(np.flatnonzero(order_of(weights) == 5)[0])
    group, step = place // 4, place // 32
    lane, register = 4 * (9 - 8) + group % 4, 1 + 2 * (group % 8 // 4)
    bits_per_chunk, bits = 8 // width, 32 // width
    record = weights.records
    mask = int(record[2 * lane]) | int(record[2 * lane + 1]) << 16
    slot = 0 if place % 4 < 3 else 1
    bit = step * 2 * bits_per_chunk + (register if width == 2 else 2 * register + slot)
    assert mask & ((1 << bits) - 1) == 1 << bit
    values = record[header_entries(width) :][:8].view(np.float16).tolist()
    assert values == ([3] if width == 1 else [3, 0] if slot == 0 else [0, 3]) + [0] * (7 if width == 1 else 6)
    nibble = int(record[metadata_entry(step, group, 9, width)]) >> group % 4 * 4 & 15
    assert (nibble & 3, nibble >> 2)[slot] == place % 4
    assert weights.offsets[:2].tolist() == [0, header_entries(width) // 8 + 1]


@pytest.mark.parametrize("width", WIDTHS)
@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 140),
    k=st.integers(1, 140),
    density=st.sampled_from([0, 0.01, 0.2, 0.5, 1]),
    seed=st.integers(0, 99),
)
def test_any_bit_pattern_comes_back(width: int, m: int, k: int, density: float, seed: int) -> None:
    bits = random_bits((m, k), density, seed)
    weights = encode_condensed(bits.view(np.float16), width).validate()
    np.testing.assert_array_equal(weights.decode().view(np.uint16), without_minus_zero(bits))
    assert weights.nnz == np.count_nonzero(without_minus_zero(bits))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_come_back(kind: str, width: int) -> None:
    a = random_matrix(256, 256, 1.0)
    a[~masks(kind)] = 0
    np.testing.assert_array_equal(encode_condensed(a, width).validate().decode(), a)


@pytest.mark.parametrize(("sparsity", "most"), [(0.7, 0.05), (0.75, 0.01), (0.8, 0.0), (0.9, 0.0)])
def test_random_strips_fit(sparsity: float, most: float) -> None:
    """From 75 % sparsity on an order leaves nothing over; at 70 % it does for more than 95 of 100 strips."""
    weights = encode_condensed(random_matrix(1024, 1024, 1 - sparsity))
    assert np.mean(weights.tails > 0) <= most


def test_orders_keep_reads_of_x_free_of_bank_conflicts() -> None:
    """The 8 columns of every octet, which a phase of ``ldmatrix`` reads, differ modulo 8."""
    weights = encode_condensed(random_matrix(128, 640, 0.2))
    for strip in range(40):
        residues = order_of(weights, strip).reshape(8, 8) % 8
        assert all(len(set(octet)) == 8 for octet in residues.tolist())


def test_half_the_columns_in_tails_make_a_full_strip_exact() -> None:
    weights = encode_condensed(np.ones((32, 64), np.float16))
    assert weights.tails.ravel().tolist() == [2, 0, 0, 0]
    assert (weights.decode() == 1).all()


@pytest.mark.parametrize("density", [0.1, 0.2, 0.25])
def test_bytes_in_closed_form(density: float) -> None:
    """A strip takes 448 bytes and 2 a weight, or 384 and 4 a register that holds any, padded to 16."""
    a = random_matrix(128, 512, density)
    slots = encode_condensed(a, 1)
    assert slots.tails.sum() == 0
    per_strip = a.reshape(4, 32, 8, 64).astype(bool).sum(axis=(1, 3)).ravel()
    np.testing.assert_array_equal(np.diff(slots.offsets[:-1]) * 16, 448 + -(-2 * per_strip // 16) * 16)
    pairs = encode_condensed(a, 2)
    registers = [
        np.count_nonzero(a[i : i + 32, j : j + 64][:, order_of(pairs, strip)].reshape(32, 16, 4).any(axis=2))
        for strip, (i, j) in enumerate((i, j) for i in range(0, 128, 32) for j in range(0, 512, 64))
    ]
    np.testing.assert_array_equal(np.diff(pairs.offsets[:-1]) * 16, 384 + -(-4 * np.array(registers) // 16) * 16)


def test_emptier_registers_save_bytes() -> None:
    """The second search takes at least a twentieth off at 80 % sparsity, and a tenth at 90 %."""
    for density, saved in ((0.2, 0.05), (0.1, 0.1)):
        a = random_matrix(512, 512, density)
        assert encode_condensed(a).nbytes < (1 - saved) * encode_condensed(a, trials=0).nbytes


def test_the_search_accepts_no_wrong_order() -> None:
    """What `fit` says is left over is what four columns side by side leave over, counted naively."""
    rng = np.random.default_rng(3)
    for density in (0.25, 0.4, 0.6):
        strip = rng.random((32, 64)) < density
        words = (strip.T.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        order = np.arange(64, dtype=np.uint8)
        left = fit(words, order, False, 300, 1)
        assert sorted(order.tolist()) == list(range(64))
        assert left == np.maximum(strip[:, order].reshape(32, 16, 4).sum(axis=2) - 2, 0).sum()


def test_what_is_left_to_tails_makes_the_rest_fit() -> None:
    rng = np.random.default_rng(4)
    strip = rng.random((32, 64)) < 0.45
    words = (strip.T.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    order, tail = np.empty(64, np.uint8), np.empty(32, np.uint8)
    count = arrange(words.copy(), order, tail, 300, 0, 0)
    assert 0 < count <= 32
    strip[:, tail[:count]] = False
    assert strip[:, order].reshape(32, 16, 4).sum(axis=2).max() <= 2


def test_bfloat16_keeps_its_bits() -> None:
    bits = random_bits((64, 128), 0.2, 7)
    weights = encode_condensed(bits, element=Element.BFLOAT16)
    assert weights.element is Element.BFLOAT16
    np.testing.assert_array_equal(weights.decode(), without_minus_zero(bits))


def corrupt(weights: Condensed, **changes: Any) -> dict[str, Any]:
    """Fields of a weight with some replaced."""
    fields = {name: getattr(weights, name) for name in ("shape", "records", "offsets", "width", "element")}
    return fields | changes


def with_entry(weights: Condensed, entry: int, value: int) -> NDArray[np.uint16]:
    """Its records with one entry changed."""
    records = weights.records.copy()
    records[entry] = value
    return records


def without_masks(weights: Condensed) -> NDArray[np.uint16]:
    """Its records with the masks of the first strip cleared."""
    records = weights.records.copy()
    records[0:64:2] = 0
    return records


def test_corrupt_records_are_refused() -> None:
    weights = encode_condensed(random_matrix(40, 70, 0.2))
    first = columns_entry(0, 2)
    cases = {
        "columns that are no order": with_entry(weights, first, int(weights.records[columns_entry(1, 2)])),
        "more than 2 tails": with_entry(weights, first, int(weights.records[first]) | 3 << 14),
        "places do not ascend": with_entry(weights, metadata_entry(0, 0, 0, 2), 0),
        "masks do not explain": without_masks(weights),
    }
    for words, records in cases.items():
        with pytest.raises(ValueError, match=words):
            Condensed.from_buffers(**corrupt(weights, records=records))
    with pytest.raises(ValueError, match="beyond the matrix"):
        Condensed.from_buffers(**corrupt(weights, shape=(33, 65)))
    with pytest.raises(ValueError, match="offsets"):
        Condensed.from_buffers(**corrupt(weights, offsets=weights.offsets[:-1]))
    with pytest.raises(ValueError, match="width: 3; allowed: 1 or 2"):
        encode_condensed(np.ones((2, 2), np.float16), 3)
