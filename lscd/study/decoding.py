"""How fast does a real language model decode on this CPU, dense and pruned? Rows for the model of whole steps.

    python -m lscd.study.decoding --gpu NAME [--output FILE]

``NAME`` is the machine's file in ``data/hardware``. SmolLM2-135M-Instruct decodes with each format, sparsity, batch and
context of `cases`, one process for each count of threads. Zeros are placed by magnitude: what is left says nothing of
quality here (that is `language_model`), and time asks only how many there are. A row is the median of the steps after
the prompt, with half their interquartile range.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernels_numba.bench.passes import faster, read_rows, write_rows
from kernels_numba.bench.threads import lines_of, print_lines, usable_cores
from kernels_numba.checkpoints.pruning import Method, PruningRule
from kernels_numba.decoder.calibrate import prune_decoder
from kernels_numba.decoder.generate import Request, generate
from kernels_numba.decoder.load import encode_matrices, join_inputs, load_decoder
from kernels_numba.decoder.model import Decoder

MODULE, MODEL, CATALOGUE_MODEL = "lscd.study.decoding", "smollm2", "smollm2-135m"
OUTPUT, SOURCE = "data/measured/smollm2/decoding.csv", "smollm2-decoding"
COLUMNS = (
    "gpu", "model", "kernel", "sparsity", "batch", "context", "step_ms", "step_err_ms", "steps", "step_bytes", "source",
)  # fmt: skip
KERNELS = {"numpy-fp32": None, "cpu-dense16": "dense", "cpu-panel-csr": "panel-csr"}  # of another name than the format
BATCHES, STEPS, UNCOUNTED, PROMPT = (1, 4, 16), 32, 4, 48


@dataclass(frozen=True)
class Case:
    """What decodes: a kernel of the models, with a share of zeros in the layers' matrices."""

    kernel: str
    sparsity: float
    batch: int
    prompt: int = PROMPT


def weights() -> Iterator[tuple[str, float]]:
    """Kernel and sparsity of each set of weights."""
    yield from (("numpy-fp32", 0.0), ("cpu-dense16", 0.0))
    yield from (("cpu-bitmap", sparsity) for sparsity in (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    yield from (("cpu-bitmap-bf16", sparsity) for sparsity in (0.0, 0.5, 0.7, 0.9))
    yield from (("cpu-panel-csr", sparsity) for sparsity in (0.7, 0.9))


def cases(kernel: str, sparsity: float) -> Iterator[Case]:
    """Batches of a set of weights, and long contexts of one."""
    yield from (Case(kernel, sparsity, batch) for batch in BATCHES)
    if (kernel, sparsity) == ("cpu-bitmap", 0.6):
        yield from (Case(kernel, sparsity, batch, 512) for batch in BATCHES)


def decoder_of(base: Decoder, kernel: str, sparsity: float) -> Decoder:
    """``base`` with zeros where its weights are smallest, encoded for a kernel."""
    pruned = prune_decoder(base, PruningRule(Method.MAGNITUDE, sparsity)) if sparsity else base
    found = Decoder(base.config, dict(pruned.weights))
    join_inputs(found.weights, base.config)
    if (name := KERNELS.get(kernel, kernel)) is not None:
        encode_matrices(found.weights, base.config, name)
    return found


def time_case(decoder: Decoder, case: Case) -> dict[str, Any]:
    """One row, without machine and source."""
    prompt = np.random.default_rng(case.prompt).integers(0, decoder.config.vocabulary, case.prompt).tolist()
    request = Request(prompt, UNCOUNTED + STEPS + 1, case.batch)
    times = np.array([step.seconds for step in generate(decoder, request)])[1 + UNCOUNTED :]
    low, middle, high = np.percentile(times, (25, 50, 75)) * 1e3
    fields = {name: value for name, value in asdict(case).items() if name != "prompt"}
    return fields | {
        "context": case.prompt + UNCOUNTED + STEPS // 2,
        "step_ms": round(float(middle), 4),
        "step_err_ms": round(float(high - low) / 2, 4),
        "steps": times.size,
        "step_bytes": decoder.step_bytes,
    }


def rows() -> Iterator[dict[str, Any]]:
    """All rows on the threads of this process."""
    base = load_decoder(MODEL)
    for kernel, sparsity in weights():
        decoder = decoder_of(base, kernel, sparsity)
        yield from (time_case(decoder, case) for case in cases(kernel, sparsity))


def main() -> None:
    """Write the table, or the rows of one count of threads as lines of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", help="name of the machine in data/hardware")
    parser.add_argument("--output", type=Path, default=Path(OUTPUT), help=f"CSV to write (default {OUTPUT})")
    parser.add_argument("--again", action="store_true", help="keep rows of an existing output that are faster")
    parser.add_argument("--threads", type=int, help="rows of this process as lines of JSON")
    options = parser.parse_args()
    if options.threads:
        print_lines(rows())
        return
    before, found = read_rows(options.output) if options.again else [], []
    for threads in sorted({1, usable_cores()}):
        same = {"gpu": f"{options.gpu}@{threads}", "model": CATALOGUE_MODEL, "source": SOURCE}
        found += [same | row for row in lines_of(MODULE, threads)]
    write_rows(options.output, COLUMNS, faster(found, before, time="step_ms", error="step_err_ms", same=COLUMNS[:6]))


if __name__ == "__main__":
    main()
