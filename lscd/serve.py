"""`lscd serve`: a server under load, in the steady state."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from lscd.asking import (
    BOUND_WORDS,
    SYSTEM_HELP,
    AsJson,
    Card,
    Cards,
    ExpertParallel,
    InputLen,
    KvBits,
    Model,
    OutputCsv,
    OutputLen,
    Zeros,
    ZerosFile,
    asked_sparsity,
    checkpoint_words,
    dense_words,
    error_words,
    finite,
    limit_s,
    named,
    own_sparsity,
    predict_table,
)
from lscd.errors import InputError, batch_files, refuse_idle, refuse_missing, written_whole
from lscd.printing import headline, print_table, say
from perfmodel.units import MILLI

TODAY, SPARSE = "vllm", "flash-llm"  # the engine, and its kernel where a sparsity is given
USERS = "1,2,4,8,16,32,64,128,256"


def serve(
    context: typer.Context,
    model: Model = "",
    gpu: Card = "",
    gpus: Cards = 1,
    system: Annotated[
        str, typer.Option(help=f"{SYSTEM_HELP.rpartition('vllm by')[0]}{TODAY} by default.", show_default=False)
    ] = "",
    sparsity: Zeros = None,
    sparsity_file: ZerosFile = None,
    users: Annotated[
        str, typer.Option(help="Requests in the server at all times, one number or several joined by commas.")
    ] = "",
    requests_per_s: Annotated[
        str, typer.Option(help="Instead: requests that arrive each second, at random; one number or several.")
    ] = "",
    input_len: InputLen = 1024,
    output_len: OutputLen = 256,
    ttft: Annotated[
        float | None, typer.Option(help="Milliseconds to the first token that count as good, at most.")
    ] = None,
    tpot: Annotated[float | None, typer.Option(help="Milliseconds between tokens that count as good, at most.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Prompt tokens a step takes, at most; the engine's own.")] = None,
    kv_bits: KvBits = None,
    expert_parallel: ExpertParallel = 1,
    as_json: AsJson = False,
    input_csv: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV with columns model, gpu, gpus, system, sparsity, users, input_len, output_len and, where wanted, "
            "expert_parallel (1), cache_bits, launch (the system's own).",
        ),
    ] = None,
    output_csv: OutputCsv = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            writable=True,
            file_okay=False,
            help="Write step times as a folder of tables that LLMServingSim reads, so that it can schedule.",
        ),
    ] = None,
) -> None:
    """Predict TTFT, TPOT, throughput and goodput of a server under load: users, or requests at a rate."""
    files = batch_files(context, input_csv, output_csv)
    if files is not None:
        from perfmodel.serving.rows import serve_rows

        predict_table(*files, serve_rows, "users")
        return
    refuse_missing(context, "--model llama-3.1-8b --gpu h100 --users 1,16,64", "model", "gpu")

    from perfmodel.serving.rows import served_columns
    from perfmodel.serving.steady import serve as steady

    if users and requests_per_s:
        raise InputError("give --users or --requests-per-s, not both")
    pruned = asked_sparsity(sparsity, sparsity_file)
    system = system or (TODAY if pruned is None else f"{TODAY}+{SPARSE}")
    host = named(system)
    how: dict[str, Any] = {
        "gpus": gpus, "sparsity": own_sparsity(host, pruned), "cache_bits": kv_bits,
        "expert_parallel": expert_parallel, "input_len": input_len, "output_len": output_len,
    }  # fmt: skip
    if profile is not None:
        idle = ("users", "requests_per_s", "ttft", "tpot", "chunk", "as_json")
        refuse_idle(context, "with --profile, which writes step times of every load", *idle)
        _write_profile(profile, model, gpu, system, how)
        return
    load = "requests_per_s" if requests_per_s else "users"
    values = _numbers(f"--{load.replace('_', '-')}", requests_per_s or users or USERS)
    found = steady(model, gpu, host, **{load: values}, chunk=chunk, **how)
    if not found.fits.any():
        raise InputError(
            f"out of memory: {model} leaves no room for one sequence of {input_len + output_len} tokens "
            f"on {gpus} x {gpu}"
        )
    limits = (limit_s("--ttft", ttft), limit_s("--tpot", tpot))
    table = served_columns(found) | {"goodput_per_s": found.goodput(*limits)}
    if as_json:
        asked = {"model": model, "gpu": gpu, "system": system, "gpus": gpus, "input_len": input_len}
        asked |= {"bound": host.is_bound}
        rows: list[dict[str, Any]] = [
            {load: value, **{name: finite(column[i]) for name, column in table.items()}}
            for i, value in enumerate(values)
        ]
        print(json.dumps({**asked, "output_len": output_len, "loads": rows}, indent=2))
        return
    question = f"{model}, {gpus} x {gpu}, {system}, {input_len} + {output_len} tokens"
    _print(question, load, values, table, limits, bound=host.is_bound)
    say("Steady state, requests at random: benchmarks that start all users together measure a longer TTFT.")
    bound = [BOUND_WORDS] * host.is_bound
    for line in [*bound, error_words([host.name]), *dense_words(host, how["sparsity"]), *checkpoint_words(model, host)]:
        say(line)


def _numbers(option: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values):
        raise InputError(f"{option} is {text!r}, allowed are numbers above 0, joined by commas")
    return values


def _print(
    question: str, load: str, values: list[float], table: dict[str, Any], limits: tuple[float, float], *, bound: bool
) -> None:
    best = max(range(len(values)), key=lambda i: table["goodput_per_s"][i])
    kept = [
        f"{name} {limit / MILLI:g} ms" for name, limit in zip(("TTFT", "TPOT"), limits, strict=True) if limit < math.inf
    ]
    within = f" within {' and '.join(kept)}" if kept else ""
    words = load.replace("_per_s", " a second")
    if not any(math.isfinite(value) for value in table["ttft_ms"]):
        most = max(table["requests_per_s"])
        headline(f"More arrives than is served at every rate: at most {most:.2f} requests a second")
    else:
        good, tokens, tpot = (table[name][best] for name in ("goodput_per_s", "tokens_per_gpu_s", "tpot_ms"))
        headline(
            f"{'at most ' * bound}{good:.2f} requests a second{within} at {values[best]:g} {words}: "
            f"{tokens:.0f} tokens per GPU-second, a token every {tpot:.1f} ms"
        )
    say(question)
    room = float(table["room"][best])
    say(f"Room beside the weights for {room:.0f} sequences of mean length; more wait for one that ends.")
    header = (
        words,
        "TTFT [ms]",
        "P90",
        "TPOT [ms]",
        "P90",
        "requests/s",
        "good/s",
        "tokens/GPU-s",
        "decoding",
        "steps with prompts",
    )
    rows = []
    for i, value in enumerate(values):
        cell = {name: float(column[i]) for name, column in table.items()}
        rows.append((
            f"{value:g}", _ms(cell["ttft_ms"]), _ms(cell["ttft_p90_ms"]), f"{cell['tpot_ms']:.1f}",
            f"{cell['tpot_p90_ms']:.1f}", f"{cell['requests_per_s']:.2f}", f"{cell['goodput_per_s']:.2f}",
            f"{cell['tokens_per_gpu_s']:.0f}", f"{cell['decoding']:.1f}", f"{cell['prompt_share']:.0%}",
        ))  # fmt: skip
    print_table(header, rows)


def _ms(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "no end"


def _write_profile(folder: Path, model: str, gpu: str, system: str, how: dict[str, Any]) -> None:
    from perfmodel.serving.profile import step_profile

    tables = step_profile(model, gpu, named(system), **how)
    place = folder / f"tp{how['gpus'] // how['expert_parallel']}"
    place.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with written_whole(place / f"{name}.csv") as partial:
            rows.to_csv(partial, index=False, float_format="%.6g")
    say(f"{', '.join(tables)} in {place}: a profile of LLMServingSim (layers of one kind, microseconds).")
