"""`lscd e2e`: one whole model, from tokens per GPU-second to dollars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    always,
    asked_sparsity,
    checkpoint_words,
    dense_words,
    error_words,
    finite,
    mean_of,
    named,
    own_sparsity,
    predict_table,
)
from lscd.e2e_operators import operator_table_of, print_operators
from lscd.errors import batch_files, refuse_idle, refuse_missing
from lscd.printing import headline, json_rows, print_table, say, side_by_side
from perfmodel.units import GIGA

if TYPE_CHECKING:
    from perfmodel.catalog.sparsities import Sparsities
    from perfmodel.serving.run import Serving
    from perfmodel.serving.systems import System
    from perfmodel.serving.what_if import WhatIf

TODAY, PAPER = "vllm", "flash-llm"


def e2e(
    context: typer.Context,
    model: Model = "",
    gpu: Card = "",
    gpus: Cards = 1,
    system: Annotated[str, typer.Option(help=SYSTEM_HELP, show_default=False)] = "",
    sparsity: Zeros = None,
    sparsity_file: ZerosFile = None,
    batch: Annotated[int, typer.Option(show_default=False, help="Sequences decoded together.")] = 0,
    input_len: InputLen = 64,
    output_len: OutputLen = 512,
    pipeline_parallel: Annotated[int, typer.Option(help="Pipeline stages; the rest is tensor parallelism.")] = 1,
    expert_parallel: ExpertParallel = 1,
    kv_bits: KvBits = None,
    kv_sparsity: Annotated[float, typer.Option(help="Fraction of cached keys and values pruned (Mustafar).")] = 0.0,
    speculate: Annotated[int, typer.Option(help="Tokens that a draft proposes before each pass.")] = 0,
    acceptance: Annotated[float, typer.Option(help="Probability that a proposed token is kept.")] = 0.8,
    activation_sparsity: Annotated[float, typer.Option(help="Fraction of a token's inputs taken for zero.")] = 0.0,
    offload: Annotated[float, typer.Option(help="Share of the weights outside device memory.")] = 0.0,
    offload_gb_per_s: Annotated[
        float | None, typer.Option(help="GB/s at which those arrive; PCIe's by default.")
    ] = None,
    hidden_communication: Annotated[float, typer.Option(help="Share of the all-reduces that other work hides.")] = 0.0,
    always_sparse: Annotated[
        bool,
        typer.Option("--always-sparse", help="Keep matrices sparse below the sparsity where the system would not."),
    ] = False,
    launch: Annotated[
        str | None, typer.Option(help="How products are launched: stream, or graph; as the system does by default.")
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="What each operator costs too, in prefill and in a step of decoding.")
    ] = False,
    as_json: AsJson = False,
    input_csv: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV with columns model, gpu, gpus, system, sparsity, batch, input_len, output_len and, where wanted, "
            "pipeline_parallel (1), expert_parallel (1), cache_bits, launch (the system's own).",
        ),
    ] = None,
    output_csv: OutputCsv = None,
) -> None:
    """Predict tokens per GPU-second, latency, memory and cost of generating with a whole model."""
    files = batch_files(context, input_csv, output_csv)
    if files is not None:
        from perfmodel.serving.rows import evaluate_rows

        predict_table(*files, evaluate_rows, "batch")
        return
    refuse_missing(context, "--model llama-3.1-8b --gpu h100 --batch 64", "model", "gpu", "batch")
    if not speculate:
        refuse_idle(context, "without --speculate", "acceptance")
    if not offload:
        refuse_idle(context, "without --offload", "offload_gb_per_s")

    from perfmodel.catalog import load_model
    from perfmodel.serving.run import evaluate
    from perfmodel.serving.what_if import WhatIf

    pruned = asked_sparsity(sparsity, sparsity_file)
    name = system or (TODAY if pruned is None else PAPER)
    host = always(name) if always_sparse else named(name)
    rate = None if offload_gb_per_s is None else offload_gb_per_s * GIGA
    what_if = WhatIf(
        cache_sparsity=kv_sparsity, draft_tokens=speculate, acceptance=acceptance,
        activation_sparsity=activation_sparsity, offloaded=offload, offload_bytes_per_s=rate,
        hidden_communication=hidden_communication,
    )  # fmt: skip
    question: dict[str, Any] = {"batch": batch, "input_len": input_len, "output_len": output_len, "gpus": gpus}
    how: dict[str, Any] = {
        "pipeline_parallel": pipeline_parallel, "expert_parallel": expert_parallel, "cache_bits": kv_bits,
    }  # fmt: skip
    own = own_sparsity(host, pruned)
    changed: dict[str, Any] = {"sparsity": own, "launch": launch, "what_if": what_if}
    run = evaluate(model, gpu, host, **question, **how, **changed)
    base = _baseline(host, own, what_if, cache_bits=kv_bits)
    unchanged = question | how | {"launch": launch, "cache_bits": None}
    plain = None if base is None else (base, evaluate(model, gpu, base, **unchanged))
    asked = {"model": model, "gpu": gpu, "system": name, "sparsity": mean_of(model, own), **question, **how}
    words = Words(host, model, own, what_if)
    table = None
    if operators and run.memory.fits:
        table = operator_table_of((model, gpu, host), question | how | changed, base, unchanged)
    if as_json:
        started = launch or host.engine.launch.value
        fields = {**asked, "launch": started, **_run_fields(run), **_compared(run, plain)}
        fields |= {"bound": host.is_bound, "change": words.fate, "remarks": words.remarks()}
        if operators:
            fields["operators"] = json_rows(table) if table is not None else None
        print(json.dumps(fields, indent=2))
        return
    weights = "dense weights" if load_model(model).stored is None else "the checkpoint's weights"
    asked_of = f"{model}, {gpus} x {gpu}, {name}, batch {batch}, {input_len} + {output_len} tokens"
    _print_run(asked_of, run, plain, weights, bound=host.is_bound)
    if run.memory.fits:
        say(error_words([name]))
    for remark in words.remarks():
        say(remark)
    if table is not None:
        print_operators(table, base, drafted=speculate > 0)
    elif operators:
        say("A run that does not fit has no times, so no operators are shown.")


def _baseline(host: System, sparsity: float | Sparsities, what_if: WhatIf, cache_bits: float | None) -> str | None:
    """The same engine with dense weights and nothing else changed; None where that is what was asked."""
    from perfmodel.serving.systems import HOST, SYSTEMS

    base = host.name.partition("+")[0] if host.name not in SYSTEMS or host.keeps_dense else HOST
    pruned = not isinstance(sparsity, float | int) or sparsity > 0
    changed = what_if.asked or cache_bits is not None
    return base if changed or (host.name != base and (pruned or "+" in host.name)) else None


@dataclass(frozen=True)
class Words:
    """What a reader must know of a run beside its numbers."""

    host: System
    model: str
    sparsity: float | Sparsities
    what_if: WhatIf

    @property
    def fate(self) -> str:
        """What becomes of the weights."""
        from perfmodel.catalog import load_model
        from perfmodel.serving.contenders import change

        return change(self.host, mean_of(self.model, self.sparsity), load_model(self.model))

    def remarks(self) -> list[str]:
        """Sentences: doubts of the kernel, weights kept dense, the checkpoint's format, what is left out."""
        kept = [*dense_words(self.host, self.sparsity), *checkpoint_words(self.model, self.host)]
        return [*_doubts(self.host, self.fate), *kept, *self._published()]

    def _published(self) -> list[str]:
        """One published number beside each what-if."""
        from perfmodel.catalog import load_sources, load_table

        kinds = [name for name, asked in _KINDS.items() if asked(self.what_if)]
        table = load_table("published/what_ifs.csv")
        found = []
        for kind in kinds:
            row = table[table["what"] == kind].iloc[0]
            source = load_sources()[row["source"]].title.partition(":")[0]
            found.append(f"Published for {kind} ({row['setting']}): {row['quantity']} {row['value']:g} ({source}).")
        return found


_KINDS: dict[str, Callable[[WhatIf], bool]] = {
    "cache-sparsity": lambda w: w.cache_sparsity > 0,
    "speculate": lambda w: w.draft_tokens > 0,
    "activation-sparsity": lambda w: w.activation_sparsity > 0,
    "offload": lambda w: w.offloaded > 0,
    "hidden-communication": lambda w: w.hidden_communication > 0,
}


def _doubts(host: System, fate: str) -> list[str]:
    """What a reader must know of a system whose kernel nobody has timed, or that has none; nothing of the others."""
    from perfmodel.kernels.rivals import NOT_MEASURED

    if host.is_bound:
        return [BOUND_WORDS]
    if fate == NOT_MEASURED:
        return [f"Kernel {host.kernel}: {fate}. Its times come from counts alone: recommend nothing by them."]
    return []


def _run_fields(run: Serving) -> dict[str, Any]:
    """One run as JSON shows it: the columns of the batch form and more; null instead of a time that cannot be."""
    from perfmodel.serving.rows import interval_columns, result_columns

    fits = bool(run.memory.fits)
    fields = {name: finite(value) for name, value in (result_columns(run) | interval_columns(run)).items()}
    price, energy = run.usd_per_million_tokens, run.joules_per_token
    parts = ("weights", "kv_cache", "activations", "workspace", "reserve", "total", "headroom")
    return {
        **fields,
        "fits": fits,
        "tokens_per_s": finite(run.tokens_per_s) if fits else None,
        "usd_per_million_tokens": [float(usd) for usd in price] if fits and price is not None else None,
        "joules_per_token": [float(joules) for joules in energy] if fits and energy is not None else None,
        "memory_bytes": {name: float(getattr(run.memory, name)) for name in parts} | {"capacity": run.memory.capacity},
        "extrapolated": bool(run.extrapolated),
    }


def _compared(run: Serving, plain: tuple[str, Serving] | None) -> dict[str, Any]:
    """Tokens per GPU-second over those of the same engine dense, prediction, low and high end; null if it is that."""
    if plain is None or not run.memory.fits:
        return {"compared_with": None, "speedup": None}
    name, dense = plain
    low, high = run.tokens_per_gpu_s_interval
    rate = float(dense.tokens_per_gpu_s)
    values = [float(run.tokens_per_gpu_s) / rate, float(low) / rate, float(high) / rate]
    return {"compared_with": name, "speedup": values if dense.memory.fits else None}


def _print_run(question: str, run: Serving, plain: tuple[str, Serving] | None, own: str, bound: bool) -> None:
    fields = _run_fields(run) | _compared(run, plain) | {"bound": bound}
    memory = {name.replace("_", " "): f"{size / 1e9:.1f}" for name, size in fields["memory_bytes"].items()}
    shares: dict[str, str] = {}
    if fields["fits"]:
        mark = " (extrapolated)" if fields["extrapolated"] else ""
        rate = f"{fields['tokens_per_gpu_s']:.1f} tokens per GPU-second{_ends(fields, 'tokens_per_gpu_s', 1)}"
        headline(f"{'at most ' * bound}{rate}{mark}")
        say(question)
        _say_speedup(fields, own)
        _say_latency_and_cost(fields)
        shares = {str(part): f"{float(seconds / run.total_s):.1%}" for part, seconds in run.parts.items()}
    else:
        headline(f"out of memory by {-float(run.memory.headroom) / 1e9:.1f} GB per GPU")
        say(question)
    header = ("memory per GPU", "GB", "time of the run", "share")[: 4 if shares else 2]
    rows = side_by_side(memory, shares) if shares else list(memory.items())
    print_table(header, rows, text=("memory per GPU", "time of the run"))


def _say_speedup(fields: dict[str, Any], own: str) -> None:
    """Against the same engine dense; the interval is that of this run, as both share what is off."""
    if fields["compared_with"] is None:
        return
    if fields["speedup"] is None:
        say(f"{fields['compared_with']} with {own} does not fit")
        return
    value, low, high = fields["speedup"]
    ends = f"up to {high:.2f}" if fields["bound"] else f"{low:.2f} - {high:.2f}"
    say(f"{'at most ' * fields['bound']}{value:.2f}x {fields['compared_with']} with {own} (90 %: {ends})")


def _say_latency_and_cost(fields: dict[str, Any]) -> None:
    least, most, tpot = "at least " * fields["bound"], "at most " * fields["bound"], ""
    if fields["tpot_ms"] is not None:
        tpot = f", then a token every {least}{fields['tpot_ms']:.2f} ms{_ends(fields, 'tpot_ms', 2)}"
    first = f"first token after {least}{fields['ttft_ms']:.0f} ms{_ends(fields, 'ttft_ms', 0)}"
    say(f"{first}{tpot}; {most}{fields['tokens_per_s']:.0f} tokens/s")
    if fields["usd_per_million_tokens"]:
        low, high = fields["usd_per_million_tokens"]
        say(f"{least}${low:.2f} to ${high:.2f} per million output tokens at cloud prices of the GPU")
    if fields["joules_per_token"]:
        low, mean, high = fields["joules_per_token"]
        say(f"{mean:.2f} J per token of the GPUs (90 %: {low:.2f} - {high:.2f})")


def _ends(fields: dict[str, Any], name: str, digits: int) -> str:
    """The 90 % interval of a field in words; of a bound the end that there is."""
    low, high = fields[f"lo_{name}"], fields[f"hi_{name}"]
    if high is None:
        return f" (90 %: from {low:.{digits}f})"
    return f" (90 %: up to {high:.{digits}f})" if fields["bound"] else f" (90 %: {low:.{digits}f} - {high:.{digits}f})"
