"""`lscd e2e` and `lscd plan`: whole models, from tokens per GPU-second to dollars."""

from __future__ import annotations

import json
import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, batch_files, refuse_missing, written_whole
from lscd.printing import headline, print_table, say, side_by_side
from perfmodel.catalog.specs import Launch

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.serving.planning import Option, Plan
    from perfmodel.serving.run import Serving
    from perfmodel.serving.systems import System

MODEL_HELP = "Model: a name from `lscd models`, a TOML file, or a config.json."
GPU_HELP = "GPU: a name from `lscd gpus`, or a TOML file of your own."
SYSTEM_HELP = (
    "flash-llm, fastertransformer, deepspeed, lmdeploy, tensorrt-llm, vllm, or fastertransformer+NAME, vllm+NAME with "
    "a kernel or a format (`lscd kernels list`, `lscd formats`)."
)
USUAL_SPARSITY = 0.8
JSON_HELP = "Print JSON instead of a table."


def e2e(
    context: typer.Context,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "",
    gpu: Annotated[str, typer.Option(help=GPU_HELP)] = "",
    gpus: Annotated[int, typer.Option(help="Number of GPUs.")] = 1,
    system: Annotated[str, typer.Option(help=SYSTEM_HELP)] = "flash-llm",
    sparsity: Annotated[
        float | None,
        typer.Option(help="Fraction of zeros in the pruned matrices, 0 to 1; 0.8, or a pattern's own, by default."),
    ] = None,
    batch: Annotated[int, typer.Option(show_default=False, help="Sequences decoded together.")] = 0,
    input_len: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 64,
    output_len: Annotated[int, typer.Option(help="Tokens generated for each prompt.")] = 512,
    pipeline_parallel: Annotated[int, typer.Option(help="Pipeline stages; the rest is tensor parallelism.")] = 1,
    launch: Annotated[
        str | None, typer.Option(help="How products are launched: stream, or graph; as the system does by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    input_csv: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV with columns model, gpu, gpus, system, sparsity, batch, input_len, output_len and, where wanted, "
            "pipeline_parallel (1), launch (the system's own).",
        ),
    ] = None,
    output_csv: Annotated[Path | None, typer.Option("--output", help="CSV to write the predictions to.")] = None,
) -> None:
    """Predict tokens per GPU-second, latency, memory and cost of generating with a whole model."""
    files = batch_files(context, input_csv, output_csv)
    if files is not None:
        _evaluate_table(*files)
        return
    refuse_missing(context, "--model opt-66b --gpu a100-80gb --batch 64", "model", "gpu", "batch")

    from perfmodel.serving.planning import change
    from perfmodel.serving.run import evaluate
    from perfmodel.serving.systems import load_system

    host = load_system(system)
    question: dict[str, Any] = {
        "batch": batch,
        "input_len": input_len,
        "output_len": output_len,
        "sparsity": float(host.own_sparsity(USUAL_SPARSITY)) if sparsity is None else sparsity,
        "gpus": gpus,
    }
    how: dict[str, Any] = {
        "pipeline_parallel": pipeline_parallel,
        "launch": host.launch.value if launch is None else launch,
    }
    run = evaluate(model, gpu, system, **question, **how)
    fate = change(host, question["sparsity"])
    if as_json:
        asked = {"model": model, "gpu": gpu, "system": system, **question, **how}
        print(json.dumps({**asked, **_run_fields(run), "bound": host.kernel is None, "change": fate}, indent=2))
    else:
        _print_run(f"{model}, {gpus} x {gpu}, {system}, batch {batch}, {input_len} + {output_len} tokens", run)
        if run.memory.fits:
            say(_error_words([system]))
        for doubt in _doubts(host, fate):
            say(doubt)


def plan(
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    gpu: Annotated[str, typer.Option(help=GPU_HELP)],
    sparsity: Annotated[float, typer.Option(help="Fraction of zeros in the pruned matrices, 0 to 1.")] = 0.8,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 64,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens generated for each prompt.")] = 512,
    every: Annotated[bool, typer.Option("--all", help="A row for every number of GPUs, not only the best.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Say whether pruning is worth it in serving: fewest GPUs, best batch, cheapest system, every kernel in each."""
    from perfmodel.serving.planning import plan as make_plan

    found = make_plan(model, gpu, sparsity=sparsity, input_len=input_len, output_len=output_len)
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        question = f"{model} on {gpu}, pruned to {sparsity:.0%}, {input_len} + {output_len} tokens"
        _print_plan(question, found, every)


def _doubts(host: System, fate: str) -> list[str]:
    """What a reader must know of a system whose kernel nobody has timed, or that has none; nothing of the others."""
    from perfmodel.kernels.rivals import UNPROVEN

    if host.kernel is None:
        ideal = "its bytes at cuBLAS's rate, decoding hidden"
        return [f"No kernel of this format has been timed: {ideal}. A real one is slower."]
    if fate in UNPROVEN:
        return [f"Kernel {host.kernel}: {fate}. Its times come from counts alone: recommend nothing by them."]
    return []


def _run_fields(run: Serving) -> dict[str, Any]:
    """One run as JSON shows it: the columns of the batch form and more; null instead of a time that cannot be."""
    from perfmodel.serving.planning import interval_columns, result_columns

    fits = bool(run.memory.fits)
    fields = {name: _number(value) for name, value in (result_columns(run) | interval_columns(run)).items()}
    price, energy = run.usd_per_million_tokens, run.joules_per_token
    parts = ("weights", "kv_cache", "activations", "workspace", "reserve", "total", "headroom")
    return {
        **fields,
        "fits": fits,
        "tokens_per_s": _number(run.tokens_per_s) if fits else None,
        "usd_per_million_tokens": [float(usd) for usd in price] if fits and price is not None else None,
        "joules_per_token_at_most": float(energy) if fits and energy is not None else None,
        "memory_bytes": {name: float(getattr(run.memory, name)) for name in parts} | {"capacity": run.memory.capacity},
        "extrapolated": bool(run.extrapolated),
    }


def _number(value: Any) -> float | None:
    """A number as JSON has it: null for a time that cannot be."""
    return float(value) if math.isfinite(value) else None


def _print_run(question: str, run: Serving) -> None:
    fields = _run_fields(run)
    memory = {name.replace("_", " "): f"{size / 1e9:.1f}" for name, size in fields["memory_bytes"].items()}
    shares: dict[str, str] = {}
    if fields["fits"]:
        mark = " (extrapolated)" if fields["extrapolated"] else ""
        headline(f"{fields['tokens_per_gpu_s']:.1f} tokens per GPU-second{_ends(fields, 'tokens_per_gpu_s', 1)}{mark}")
        say(question)
        _say_latency_and_cost(fields)
        shares = {str(part): f"{float(seconds / run.total_s):.1%}" for part, seconds in run.parts.items()}
    else:
        headline(f"out of memory by {-float(run.memory.headroom) / 1e9:.1f} GB per GPU")
        say(question)
    header = ("memory per GPU", "GB", "time of the run", "share")[: 4 if shares else 2]
    rows = side_by_side(memory, shares) if shares else list(memory.items())
    print_table(header, rows, text=("memory per GPU", "time of the run"))


def _say_latency_and_cost(fields: dict[str, Any]) -> None:
    tpot = ""
    if fields["tpot_ms"] is not None:
        tpot = f", then a token every {fields['tpot_ms']:.2f} ms{_ends(fields, 'tpot_ms', 2)}"
    first = f"first token after {fields['ttft_ms']:.0f} ms{_ends(fields, 'ttft_ms', 0)}"
    say(f"{first}{tpot}; {fields['tokens_per_s']:.0f} tokens/s")
    if fields["usd_per_million_tokens"]:
        low, high = fields["usd_per_million_tokens"]
        say(f"${low:.2f} to ${high:.2f} per million output tokens at cloud prices of the GPU")
    if fields["joules_per_token_at_most"]:
        say(f"at most {fields['joules_per_token_at_most']:.2f} J per token (boards at their power limit)")


def _ends(fields: dict[str, Any], name: str, digits: int) -> str:
    """The 90 % interval of a field in words."""
    low, high = fields[f"lo_{name}"], fields[f"hi_{name}"]
    return f" (90 %: {low:.{digits}f} - {high:.{digits}f})"


def _print_plan(question: str, found: Plan, every: bool) -> None:
    headline(verdict_words(found))
    if not found.options:
        say(question)
        return
    if found.measured:
        say(_cheapest_words(found))
    rows = (
        "every number of GPUs tried" if every else "each system on the GPUs where it does best (--all: on every number)"
    )
    say(f"{question}; {rows}.")
    systems = list(dict.fromkeys(option.system for option in found.options))
    shown = found.options if every else [best for system in systems if (best := found.best(system)) is not None]
    shown = sorted(shown, key=lambda option: -option.tokens_per_gpu_s)
    numbers = (
        "GPUs",
        "fewest",
        "best batch",
        "largest",
        "tokens/GPU-s",
        "90 %",
        "TTFT [ms]",
        "TPOT [ms]",
        "$/M tokens",
    )
    print_table(
        ("system", "weights", *numbers, ""),
        [_option_cells(option, found.fewest_gpus(option.system)) for option in shown],
        text=("system", "weights", ""),
    )
    for line in [*_break_even_words(found), _error_words(systems)]:
        say(line)


def verdict_words(found: Plan) -> str:
    """The verdict in a sentence: which system, how many tokens per GPU-second, against which rival."""
    sparse, whole, both = found.sparse, found.whole, found.both
    if not found.options:
        return f"Worth it: {found.verdict}. Out of memory on every number of GPUs tried."
    words = f"Worth it: {found.verdict}. {_against(sparse, whole)}"
    if both is not None and all(other is None or _ahead(both, other) for other in (sparse, whole)):
        words += f" Pruned and rounded, {_yield(both)}: ahead of all else."
    return words


def _against(sparse: Option | None, whole: Option | None) -> str:
    """The best that prunes beside the best that keeps all weights."""
    if sparse is None:
        kept = f"; {_yield(whole)} and keeps all weights" if whole else ""
        return f"No kernel that prunes and keeps 16-bit values runs here, pays in bytes and fits{kept}."
    if whole is None:
        return f"{_yield(sparse)}, and nothing that keeps all weights fits."
    tie = ": their intervals overlap" if sparse.ties_with(whole) else ""
    return f"{_yield(sparse)}; {_yield(whole)} and keeps all weights{tie}."


def _yield(option: Option) -> str:
    """``flash-llm on 2 GPUs yields 870 tokens per GPU-second (90 %: 679 - 1113)``."""
    low, high = option.tokens_per_gpu_s_interval
    rate = f"{option.tokens_per_gpu_s:.0f} tokens per GPU-second (90 %: {low:.0f} - {high:.0f})"
    return f"{option.system} on {_cards(option.gpus)} yields {rate}"


def _ahead(option: Option, other: Option) -> bool:
    return option.tokens_per_gpu_s > other.tokens_per_gpu_s and not option.ties_with(other)


def _cheapest_words(found: Plan) -> str:
    """The cheapest option, the systems that tie with it, and the option on the fewest GPUs of these.

    A tie: the 90 % intervals of throughput overlap. Of kernels that somebody has measured.
    """
    top = max(found.measured, key=lambda option: option.tokens_per_gpu_s)
    words = f"{top.system} on {_cards(top.gpus)} is the cheapest, batch {top.batch}"
    level = [option for option in found.measured if option.ties_with(top)]
    rivals = list(dict.fromkeys(option.system for option in level if option.system != top.system))
    if rivals:
        words += f"; a tie with {_listed(rivals)}: intervals overlap"
    fewest = min(level, key=lambda option: (option.gpus, -option.tokens_per_gpu_s))
    if fewest.gpus < top.gpus:
        loss = 1 - fewest.tokens_per_gpu_s / top.tokens_per_gpu_s
        words += f"; {fewest.system} on {_cards(fewest.gpus)}, batch {fewest.batch}, is {loss:.1%} below and ties too"
    return f"{words}."


def _listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _error_words(systems: list[str]) -> str:
    """How far predictions of these systems are from published runs, which say how sure they are."""
    from perfmodel.evidence.runs import joined_runs

    runs = joined_runs()
    runs = runs[runs["system"].isin(systems)]
    if runs.empty:
        return f"No published run of {', '.join(systems)} shows how far this is off."
    means = [
        f"{error.abs().mean():.1%} over {len(error)} {'fitted' if fitted else 'held-out'} runs"
        for fitted, error in runs.groupby("fitted")["error"]
    ]
    return f"Mean error against published runs, all on {' and '.join(runs['gpu'].unique())}: {', '.join(means)}."


def _option_cells(option: Option, fewest: int | None) -> tuple[str, ...]:
    price = option.usd_per_million_tokens
    return (
        option.system,
        option.change + (f", {option.sparsity:.0%}" if option.sparsity else ""),
        str(option.gpus),
        str(fewest),
        str(option.batch),
        str(option.largest_batch),
        f"{option.tokens_per_gpu_s:.1f}",
        " - ".join(f"{end:.0f}" for end in option.tokens_per_gpu_s_interval),
        f"{option.ttft_s * 1e3:.0f}",
        "-" if math.isnan(option.tpot_s) else f"{option.tpot_s * 1e3:.1f}",
        "unknown" if price is None else f"{price[0]:.2f} to {price[1]:.2f}",
        "extrapolated" if option.extrapolated else "",
    )


def _break_even_words(found: Plan) -> list[str]:
    """Flash-LLM, the system of the paper, against dense weights."""
    dense = found.best("fastertransformer")
    if dense is None:
        return ["Dense weights fit on no number of GPUs tried."]
    if not found.sparse_faster_at_batch:
        return []
    where, sparsity = f"on FasterTransformer's {_cards(dense.gpus)}", found.break_even_sparsity
    return [
        "Flash-LLM against dense FasterTransformer, best against best: it pays at no sparsity tried."
        if sparsity is None
        else f"Flash-LLM against dense FasterTransformer, best against best: it pays from {sparsity:.0%} sparsity.",
        _faster_words("batch", found.sparse_faster_at_batch, where),
        _faster_words("prompt length", found.sparse_faster_at_prompt, f"{where}, batch {dense.batch}"),
    ]


def _cards(gpus: int) -> str:
    return f"{gpus} GPU{'s' * (gpus > 1)}"


def _faster_words(axis: str, faster: dict[int, bool], where: str) -> str:
    """Where Flash-LLM is faster, as ranges of the neighbouring values tried."""
    if not faster:
        return f"No {axis} could be tried {where}."
    if len(set(faster.values())) == 1:
        return f"Flash-LLM is {'faster' if all(faster.values()) else 'slower'} at every {axis} tried {where}."
    runs = [list(run) for wins, run in groupby(faster, faster.__getitem__) if wins]
    spans = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"Flash-LLM is faster at {axis} {' and '.join(spans)} (of {min(faster)} to {max(faster)}) {where}."


def _evaluate_table(input_csv: Path, output_csv: Path) -> None:
    from lscd.tables import FRACTION, SIZE, SIZE_OR_EMPTY, beside, read_rows
    from perfmodel.catalog import load_gpu, load_model
    from perfmodel.serving.planning import evaluate_rows
    from perfmodel.serving.systems import load_system

    sizes = dict.fromkeys(("gpus", "batch", "input_len", "output_len"), SIZE)
    rows = read_rows(
        input_csv,
        numbers={**sizes, "sparsity": FRACTION},
        names={"model": load_model, "gpu": load_gpu, "system": load_system},
        optional={"pipeline_parallel": SIZE_OR_EMPTY},
        choices={"launch": ("", *Launch)},
    )
    if "pipeline_parallel" in rows:
        rows["pipeline_parallel"] = rows["pipeline_parallel"].fillna(1).astype(int)
    try:
        results = evaluate_rows(rows)
    except ValueError:
        _explain_row(input_csv, rows)
        raise
    table = beside(rows, results, input_csv, output_csv)
    table["fits"] = table["fits"].map({True: "true", False: "false"})  # as in data/published/e2e.csv
    with written_whole(output_csv) as partial:
        table.to_csv(partial, index=False)


def _explain_row(path: Path, rows: pd.DataFrame) -> None:
    """Raise the error of the first run that cannot be, with its line."""
    from perfmodel.serving.planning import evaluate_rows

    for i in range(len(rows)):
        try:
            evaluate_rows(rows.iloc[[i]])
        except ValueError as error:
            raise InputError(f"{path}: line {i + 2}: {error}") from None
