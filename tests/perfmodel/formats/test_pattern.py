"""The (2N-2):2N family: by hand, one formula for all, and an encoder of its windows."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.formats import FORMATS, PATTERNS, pattern_sparsity, two_four_family_bytes


def size(name: str, m: int, k: int) -> float:
    return float(FORMATS[name].bytes(m, k, 0.5))


@pytest.mark.parametrize(
    ("name", "m", "k", "expected"),
    [
        ("2:4", 16, 16, 256 + 32),
        ("2:4", 1, 17, 2 * 10 + 10 / 4),  # a fifth window, filled up
        ("2:4-fp8", 10, 256, 1280 * 10 / 8 + 4),
        ("2:4-int8", 10, 256, 1280 * 10 / 8 + 4 * 10),
        ("int4-2:4", 10, 256, 1280 * 6 / 8 + 2 * 20),
        ("4:6", 3, 12, 3 * 8 * 18 / 8),
        ("4:6", 3, 13, 3 * 12 * 18 / 8),
        ("6:8", 3, 16, 3 * 12 * 18 / 8),
        ("6:8-fp8", 4, 16, 4 * 12 * 10 / 8 + 4),
        ("6:8-int8", 4, 17, 4 * 18 * 10 / 8 + 4 * 4),
        ("8:10", 5, 20, 5 * 16 * 18 / 8),
    ],
)
def test_bytes_by_hand(name: str, m: int, k: int, expected: float) -> None:
    assert size(name, m, k) == pytest.approx(expected, rel=1e-12)


def test_one_formula_for_the_family() -> None:
    m, k = 4096, 240 * 64  # a multiple of every 2N
    sizes = two_four_family_bytes(m, k, list(PATTERNS.values()))
    assert sizes == pytest.approx([size(name, m, k) for name in PATTERNS], rel=1e-12)
    assert sizes[2] == pytest.approx(1.5 * sizes[0], rel=1e-12)
    assert float(two_four_family_bytes(m, k, 0.0)) == pytest.approx(2 * sizes[0], rel=1e-12)  # nothing dropped
    table = two_four_family_bytes([[64], [128]], 64, [1 / 2, 1 / 4], np.array([16, 8])[:, None, None])
    assert table.shape == (2, 2, 2)
    assert table[1, 0, 0] == 64 * 32 * 10 / 8


def windows(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of a row in overlapping windows of four columns, two apart within a block, as SlideSparse."""
    columns = np.flatnonzero(row)
    values, indices = [], []
    for start in range(0, row.size - 2, 2):
        mine = columns[(columns >= start) & (columns < start + 4)][:2]
        columns = columns[~np.isin(columns, mine)]
        values.append(np.pad(row[mine], (0, 2 - mine.size)))
        indices.append(np.pad(mine - start, (0, 2 - mine.size)))
    assert columns.size == 0, "a weight that no window takes"
    return np.concatenate(values), np.concatenate(indices)


@pytest.mark.parametrize("name", PATTERNS)
def test_bytes_are_those_of_an_encoder(name: str) -> None:
    rng = np.random.default_rng(6)
    kept, block = map(int, name.split(":"))
    m, blocks = 8, 12
    a = rng.normal(size=(m * blocks, block)).astype(np.float16)
    for row in a:
        row[rng.permutation(block)[kept:]] = 0
    parts = [windows(row) for row in a]
    values = np.concatenate([part[0] for part in parts])
    indices = np.concatenate([part[1] for part in parts])
    assert indices.max() < 4
    assert values.nbytes + indices.size * 2 / 8 == pytest.approx(size(name, m, block * blocks), rel=1e-12)


def test_pattern_of_a_name() -> None:
    assert {name: pattern_sparsity(name) for name in ("int4-2:4", "4:6", "6:8-int8", "8:10")} == {
        "int4-2:4": 1 / 2,
        "4:6": 1 / 3,
        "6:8-int8": 1 / 4,
        "8:10": 1 / 5,
    }
    with pytest.raises(ValueError, match=r"'int4' holds no pattern, which are 2:4, 4:6, 6:8, 8:10"):
        pattern_sparsity("int4")


@pytest.mark.parametrize("wrong", [0.6, -0.1, float("nan")])
def test_sparser_than_two_four_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 0.5\], got"):
        two_four_family_bytes(8, 8, [0.5, wrong])
