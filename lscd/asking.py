"""What commands on whole models ask alike: options, a sparsity or a file of them, a system by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, written_whole
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Launch
from perfmodel.units import MILLI

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.serving.systems import System

Model = Annotated[
    str, typer.Option(help="Model: a name from `lscd models`, a TOML file, a checkpoint's folder or its config.json.")
]
Card = Annotated[str, typer.Option(help="GPU: a name from `lscd gpus`, or a TOML file of your own.")]
Cards = Annotated[int, typer.Option(help="Number of GPUs.")]
Sharing = Annotated[int, typer.Option(help="GPUs that share each matrix (tensor parallelism).")]
SYSTEM_HELP = (
    "vllm, sglang, tensorrt-llm, lmdeploy, deepspeed-mii, gpt-fast, fastertransformer, deepspeed, flash-llm; vllm-v0 "
    "and vllm-v1 (tensorrt-llm alike) by version; or ENGINE+NAME with a kernel or a format (`lscd kernels list`, `lscd "
    "formats`). vllm by default, and flash-llm where a sparsity is given."
)
Zeros = Annotated[
    float | None,
    typer.Option(help="Fraction of zeros in the pruned matrices, 0 to 1; dense by default (a pattern has its own)."),
]
ZerosFile = Annotated[
    Path | None,
    typer.Option(help="Sparsity of each matrix in each layer: what `lscd weights inspect` writes, or a CSV of yours."),
]
InputLen = Annotated[int, typer.Option(help="Tokens of each prompt.")]
OutputLen = Annotated[int, typer.Option(help="Tokens generated for each prompt.")]
Ttft = Annotated[float | None, typer.Option(help="Milliseconds to the first token, at most.")]
Tpot = Annotated[float | None, typer.Option(help="Milliseconds between tokens, at most.")]
KvBits = Annotated[float | None, typer.Option(help="Bits of a cached key or value; as the checkpoint says.")]
ExpertParallel = Annotated[int, typer.Option(help="GPUs that spread the experts, each with its own sequences.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutputCsv = Annotated[
    Path | None, typer.Option("--output", writable=True, dir_okay=False, help="CSV to write the predictions to.")
]


def asked_sparsity(sparsity: float | None, file: Path | None) -> float | Sparsities | None:
    """One sparsity for all, that of each matrix from a file, or None where nothing is asked for."""
    if file is None:
        return sparsity
    if sparsity is not None:
        raise InputError("give --sparsity or --sparsity-file, not both")
    from perfmodel.catalog import load_sparsities

    return load_sparsities(file)


def own_sparsity(host: System, asked: float | Sparsities | None) -> float | Sparsities:
    """What a system is asked for: dense where nothing is, and a pattern's own."""
    if asked is None or (host.patterns and not isinstance(asked, float)):
        return float(host.own_sparsity(0.0))
    return asked


def named(name: str) -> System:
    """System of that name."""
    from perfmodel.serving.systems import load_system

    return load_system(name)


def always(name: str) -> System:
    """The system, storing matrices of any sparsity in its own format."""
    return replace(named(name), dense_below=0.0)


def mean_of(model: str, sparsity: float | Sparsities) -> float:
    """Share of zeros among all prunable weights."""
    if isinstance(sparsity, float | int):
        return float(sparsity)
    from perfmodel.catalog import load_model
    from perfmodel.serving.transformer import mean_sparsity

    return mean_sparsity(load_model(model).shape, sparsity)


def limit_s(option: str, milliseconds: float | None) -> float:
    """Milliseconds of an option in seconds; without end where none are asked for."""
    if milliseconds is None:
        return math.inf
    if not milliseconds > 0:
        raise InputError(f"{option} must be above 0 milliseconds, got {milliseconds:g}")
    return milliseconds * MILLI


def finite(value: Any) -> float | None:
    """A number as JSON has it: null for a time that cannot be, or a queue without end."""
    return float(value) if math.isfinite(value) else None


BOUND_WORDS = (
    "No kernel of this format has been timed: its bytes at cuBLAS's rate, decoding hidden, are a bound. "
    "A real one is slower."
)


def dense_words(host: System, sparsity: float | Sparsities) -> list[str]:
    """Which pruned matrices stay dense in this system, if some do."""
    each = sparsity.every if isinstance(sparsity, Sparsities) else (float(sparsity),)
    if host.keeps_dense and any(each):
        return [f"{host.title} multiplies dense weights: the sparsity changes nothing."]
    below = host.dense_below
    if not host.format.depends_on_sparsity or not any(0 < share < below for share in each):
        return []
    which = "All matrices" if all(share < below for share in each) else "Matrices"
    stored = f"{which} below {below:.0%} sparsity stay dense, as {host.title} stores them"
    return [f"{stored}; lscd e2e --always-sparse stores them sparse."]


def checkpoint_words(model: str, host: System | None = None) -> list[str]:
    """How a quantised checkpoint is read by ``host``, or compared with other formats; what its count leaves out."""
    from perfmodel.catalog import load_model

    record, found = load_model(model), []
    if record.stored is not None:
        formats = " and ".join(sorted(set(record.stored.formats.values())))
        read = "all formats are compared with its weights in 16 bits"
        if host is not None:
            read = "read as it is" if host.keeps_dense else f"{host.format.title} takes its place here"
        found.append(f"The checkpoint stores {formats} ({record.stored.method}): {read}.")
    if record.shape.left_out:
        found.append(f"Left out of the count: {', '.join(record.shape.left_out)}.")
    return found


def predict_table(
    input_csv: Path,
    output_csv: Path,
    predict: Callable[[pd.DataFrame], pd.DataFrame],
    load: str,
) -> None:
    """Write a CSV of runs with their prediction beside them; ``load`` is the column of what a server has to do."""
    from lscd.tables import CACHE_BITS, FRACTION, SIZE, SIZE_OR_EMPTY, beside, read_rows
    from perfmodel.catalog import load_gpu, load_model
    from perfmodel.serving.systems import load_system

    rows = read_rows(
        (input_csv, output_csv),
        numbers={**dict.fromkeys(("gpus", load, "input_len", "output_len"), SIZE), "sparsity": FRACTION},
        names={"model": load_model, "gpu": load_gpu, "system": load_system},
        optional={"pipeline_parallel": SIZE_OR_EMPTY, "expert_parallel": SIZE_OR_EMPTY, "cache_bits": CACHE_BITS},
        choices={"launch": ("", *Launch)},
    )
    try:
        results = predict(rows)
    except ValueError:
        _explain_row(input_csv, rows, predict)
        raise
    table = beside(rows, results)
    for name in table.select_dtypes(bool):
        table[name] = table[name].map({True: "true", False: "false"})  # as in data/published/e2e.csv
    with written_whole(output_csv) as partial:
        table.to_csv(partial, index=False)


def _explain_row(path: Path, rows: pd.DataFrame, predict: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Raise the error of the first run that cannot be, with its line."""
    for i in range(len(rows)):
        try:
            predict(rows.iloc[[i]])
        except ValueError as error:
            raise InputError(f"{path}: line {i + 2}: {error}") from None


def error_words(systems: list[str]) -> str:
    """How far predictions of these systems are from published runs; or else those of their engines with any weights."""
    from perfmodel.evidence.runs import errors_of, errors_of_engines

    found, whose = errors_of(systems), "Mean error against published runs"
    if found.empty:
        found = errors_of_engines(systems)
        if found.empty:
            return f"No published run of {', '.join(systems)} shows how far this is off."
        whose = f"No published run of {', '.join(systems)}; of {', '.join(found['system'].unique())}"
    means = [
        f"{error.abs().mean():.1%} over {len(error)} {'fitted' if fitted else 'held-out'} runs"
        for fitted, error in found.groupby("fitted")["error"]
    ]
    return f"{whose}, all on {' and '.join(found['gpu'].unique())}: {', '.join(means)}."
