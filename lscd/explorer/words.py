"""The answer in words: the facts on top of the page, and the tables behind the charts as files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfmodel import worth_words
from perfmodel.kernels import KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE, Verdict
from perfmodel.serving.planning import intervals_overlap
from perfmodel.serving.systems import load_system
from perfmodel.units import GIGA, MEGA, MILLI

if TYPE_CHECKING:
    import pandas as pd

    from lscd.explorer.view import View


LABELS = {
    "model": "Model",
    "gpu": "GPU",
    "gpus": "Number of GPUs",
    "engine": "Engine",
    "format": "Weights read by",
    "sparsity": "Sparsity",
    "batch": "Batch [sequences]",
    "input_len": "Prompt [tokens]",
    "output_len": "Output [tokens]",
    "matrix": "Matrix of the kernel times",
    "bandwidth": "DRAM bandwidth, times",
    "sms": "SMs, times",
    "clock": "Clock, times",
    "l2": "L2 size, times",
    "memory": "DRAM size, times",
    "price": "Price, times",
    "ttft_ms": "Latency panel: TTFT, at most [ms]",
    "tpot_ms": "Latency panel: TPOT, at most [ms]",
    "served": "Latency panel: a loaded server",
    "unmeasured": "Show kernels that nobody has measured",
    "model_file": "Your own model: config.json",
    "zeros_file": "Sparsity by layer: a census file",
}


@dataclass(frozen=True)
class Fact:
    """One tile of the page: a stable name, a title, the value, and what stands below it; ``good`` marks a verdict."""

    name: str
    title: str
    value: str
    note: str
    good: bool | None = None


def facts(view: View) -> list[Fact]:
    """The verdict, and the tiles of the page in reading order."""
    return [verdict(view), *numbers(view)]


def numbers(view: View) -> list[Fact]:
    """The tiles below the verdict."""
    refused = [] if view.refusal is None else [_refused(view)]
    run = [_fits(view), _throughput(view), _latency(view), _cost(view)]
    return [*refused, *run, _crossover(view), _accuracy(view)]


def question(view: View) -> str:
    """What was asked, in a sentence."""
    state = view.state
    gpus = f"{state.gpus} x {view.gpu.name}"
    lengths = f"{state.batch} sequence{'s' * (state.batch > 1)} of {state.input_len} + {state.output_len} tokens"
    system = load_system(view.system).title
    return f"{view.model.name} on {gpus}: {system}, {_weights(view)}, {lengths}"


def matrix(view: View) -> str:
    """The matrix whose kernel times are shown, with its size on one GPU."""
    m, k, _ = view.product
    of = " of one expert" if view.matrix.grouped else ""
    return f"{view.matrix.name}{of}, {m:,} x {k:,}"


def _weights(view: View) -> str:
    """How sparse the system's weights are, and whether the slider has a say in it."""
    if view.change in WHOLE and load_system(view.system).format.prunes:
        return f"{view.sparsity:.0%} sparsity, too little for its format: weights dense"
    if view.change in WHOLE:
        return f"weights {'rounded' if view.change == 'rounded' else 'dense'} (the slider does not apply to it)"
    if has_pattern(view.system):
        return f"{view.sparsity:.0%} sparsity of its pattern (the slider does not apply to it)"
    return f"{view.sparsity:.0%} sparsity"


def has_pattern(system: str) -> bool:
    """Whether the system's kernel takes the sparsity of its pattern and no other."""
    kernel = load_system(system).kernel
    return kernel is not None and bool(KERNELS[kernel].patterns)


def verdict(view: View) -> Fact:
    """The verdict of `lscd worth` at the chosen batch, in its words."""
    at = view.at
    if at is None:
        return Fact("worth", "Worth it", "–", "one token takes no decoding step, which the verdict is about")
    good = {Verdict.YES: True, Verdict.NO: False, Verdict.TIE: None}[at.verdict]
    said = [f"With {view.mean_zeros:.0%} zeros.", worth_words.compared(at), worth_words.both([at])]
    return Fact("worth", "Worth it", str(at.verdict), " ".join(filter(None, said)), good=good)


def needs(view: View) -> str:
    """What would change the verdict: more zeros, or less of the memory's rate."""
    found = view.worth and worth_words.needs(view.worth)
    return f"What would change it: {found[0].lower()}{found[1:]}" if found else ""


def _refused(view: View) -> Fact:
    note = f"{view.refusal}. Shown instead: {dense(view)}"
    return Fact("refused", "System", "does not run here", note, good=False)


def dense(view: View) -> str:
    """What the system is compared with."""
    weights = "dense" if view.model.stored is None else "weights as stored,"
    return f"{weights} {load_system(view.engine).title}"


def _fits(view: View) -> Fact:
    memory = view.run.memory
    needed, size, left = (float(value) / GIGA for value in (memory.total, memory.capacity, memory.headroom))
    fits = bool(memory.fits)
    rest = f"{left:.1f} GB left" if fits else f"{-left:.1f} GB too much"
    value = "✓ fits" if fits else "✗ does not fit"
    return Fact("fits", "Memory", value, f"{needed:.1f} of {size:.1f} GB on each GPU, {rest}", good=fits)


def _throughput(view: View) -> Fact:
    rate, whole = float(view.run.tokens_per_gpu_s), float(view.dense.tokens_per_gpu_s)
    low, high = map(float, view.run.tokens_per_gpu_s_interval)
    against = "" if view.system == view.engine else f"{rate / whole:.2f}x {dense(view)}"
    if against and not view.dense.memory.fits:
        against += ", which does not fit"
    elif against and intervals_overlap((low, high), view.dense.tokens_per_gpu_s_interval):
        against += ", a tie: their intervals overlap"
    bound = load_system(view.system).is_bound
    ends = f"90 % interval up to {high:,.1f}" if bound else f"90 % interval {low:,.1f} – {high:,.1f}"
    notes = [ends, against, *_warnings(view)]
    return Fact(
        "throughput",
        "Tokens per GPU-second",
        f"{'at most ' * bound}{rate:,.1f}",
        "; ".join(note for note in notes if note),
    )


def _warnings(view: View) -> list[str]:
    """What limits the trust in a run."""
    found = [] if view.run.memory.fits else ["if it did fit"]
    if load_system(view.system).is_bound:
        found.append("not measured: no kernel of this format has been timed, and a real one is slower")
    elif view.change == NOT_MEASURED:
        found.append(f"{view.change}: from counts alone")
    return [*found, "extrapolated"] if view.run.extrapolated else found


def _latency(view: View) -> Fact:
    first, each = float(view.run.ttft_s) / MILLI, float(view.run.tpot_s) / MILLI
    value = "one token only" if math.isnan(each) else f"{each:,.1f} ms"
    return Fact("latency", "Time per token", value, f"first token after {first:,.0f} ms{_fitting(view)}")


def _cost(view: View) -> Fact:
    dollars, joules = view.run.usd_per_million_tokens, view.run.joules_per_token
    value = "no price known" if dollars is None else f"${float(dollars[0]):,.2f} – {float(dollars[1]):,.2f}"
    energy = "" if joules is None else f"{float(joules[1]):,.2f} J a token"
    return Fact("cost", "Per million tokens", value, energy + _fitting(view))


def _fitting(view: View) -> str:
    """What a number of a run that does not fit must say."""
    return "" if view.run.memory.fits else "; if it did fit"


def _crossover(view: View) -> Fact:
    title, kernel = "Sparse pays from", load_system(view.system).title
    if has_pattern(view.system):
        return Fact("crossover", title, "–", f"{kernel} takes its pattern's {view.sparsity:.0%} and no other sparsity")
    if view.crossover is None:
        return Fact("crossover", title, "–", f"{kernel} has no modelled kernel that depends on sparsity")
    note = f"sparsity, against dense weights, for a layer on one GPU at batch {view.state.batch}"
    if view.change == NOT_MEASURED:
        note += f"; {view.change}"
    if math.isnan(view.crossover):
        return Fact("crossover", title, "never", f"{note}: cuBLAS is faster throughout", good=False)
    return Fact("crossover", title, f"{view.crossover:.1%}", note, good=view.state.sparsity >= view.crossover)


def _accuracy(view: View) -> Fact:
    """What the weights of the system cost this model, or why that is not known."""
    title = "Published quality"
    if view.change == WHOLE[0]:
        return Fact("accuracy", title, "all of it", "the weights stay as they are", good=True)
    limits = [f"zeros anywhere, {way}: {limit.words}" for way, limit in view.reach.items()]
    note = "; ".join(limits) or f"no published result of {view.model.name} or its family"
    if not view.losses:
        return Fact("accuracy", title, "nothing published", f"of {_weights(view)}. {note}", good=False)
    losses = view.losses.values()
    value = ", ".join(f"{loss.change}{' retrained' * (way == 'retrained')}" for way, loss in view.losses.items())
    said = "; ".join(f"{way}: {loss.words}" for way, loss in view.losses.items())
    return Fact("accuracy", title, value, f"{said}. {note}", good=any(loss.kept for loss in losses))


def refusals(view: View) -> list[str]:
    """Kernels left out, one line a reason."""
    reasons: dict[str, list[str]] = {}
    for kernel, reason in view.refused.items():
        # The sentence of one kernel without the kernel's name is that of all.
        common = reason.split(", which kernel")[0].split(", not kernel")[0]
        reasons.setdefault(common, []).append(kernel)
    return [f"{', '.join(kernels)}: {reason}" for reason, kernels in reasons.items()]


def hidden(view: View) -> str:
    """Kernels that are not shown because nobody has measured them."""
    count = len(view.hidden)
    if not count:
        return ""
    return f"{count} kernel{'s' * (count > 1)} that nobody has measured {'are' if count > 1 else 'is'} not shown."


def operator_cells(row: Any) -> list[str]:
    """A row of `View.operators` as the table shows it, behind its name and phase."""
    counts = [_short(value) for value in (row.flop / GIGA, row.bytes / MEGA, row.intensity)]
    own, dense_ms = (f"{seconds / MILLI:,.3f}" for seconds in (row.time_s, row.dense_time_s))
    bound = row.bound if isinstance(row.bound, str) else "–"
    return [*counts, bound, own, f"{row.share:.1%}", dense_ms]


def _short(value: float) -> str:
    """In three digits, or more before the point."""
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def front_cells(row: Any) -> list[str]:
    """A row of `View.tradeoff` as the table shows it, behind its title."""
    zeros = f", {row.sparsity:.0%}" if row.sparsity else ""
    rates = [f"{row.tokens_per_user_s:,.1f}", f"{row.tokens_per_gpu_s:,.0f}", f"{row.low:,.0f} – {row.high:,.0f}"]
    return [f"{row.change}{zeros}", str(row.batch), *rates, *(f"{s / MILLI:,.1f}" for s in (row.ttft_s, row.tpot_s))]


def front(view: View) -> str:
    """What the front is among, and within which limits."""
    state, table = view.state, view.tradeoff
    count = table["system"].nunique()
    limits = f"TTFT up to {state.ttft_ms:,} ms and TPOT up to {state.tpot_ms:,} ms"
    load = "a loaded server by its users" if state.served else "batches that start together"
    ahead = "" if table["front"].any() else " Nothing that somebody measured fits and keeps both limits."
    return f"Of {count} systems of {load_system(view.engine).title}, {load}, {limits}.{ahead}"


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a setting that differs, or a number of both."""

    name: str
    title: str
    pinned: str
    now: str
    change: str = ""


def compared(pinned: View, view: View) -> list[Row]:
    """Settings that differ, then the numbers of both with their ratio."""
    ours, theirs = vars(view.state), vars(pinned.state)
    settings = [
        Row(name, LABELS.get(name, name), *(_set(of[name]) for of in (theirs, ours)))
        for name in ours
        if ours[name] != theirs[name]
    ]
    before, now = (str(one.at.verdict) if one.at else "–" for one in (pinned, view))
    return [*settings, Row("worth", "worth it", before, now), *(_number(*how, pinned, view) for how in NUMBERS)]


def _set(value: object) -> str:
    """A setting as its control shows it."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


Measure = Callable[["View"], float]

NUMBERS: tuple[tuple[str, str, str, Measure], ...] = (
    ("throughput", "tokens per GPU-second", ",.1f", lambda view: float(view.run.tokens_per_gpu_s)),
    ("low", "90 % interval from", ",.1f", lambda view: float(view.run.tokens_per_gpu_s_interval[0])),
    ("high", "to", ",.1f", lambda view: float(view.run.tokens_per_gpu_s_interval[1])),
    ("ttft", "TTFT [ms]", ",.1f", lambda view: float(view.run.ttft_s) / MILLI),
    ("tpot", "TPOT [ms]", ",.2f", lambda view: float(view.run.tpot_s) / MILLI),
    ("needed", "memory needed of each GPU [GB]", ",.1f", lambda view: float(view.run.memory.total) / GIGA),
    ("capacity", "memory there [GB]", ",.1f", lambda view: float(view.run.memory.capacity) / GIGA),
    ("dense", "tokens per GPU-second, dense", ",.1f", lambda view: float(view.dense.tokens_per_gpu_s)),
    ("dollars", "$ per million tokens, lowest price", ",.2f", lambda view: _dollars(view)),
    ("crossover", "sparse pays from", ".1%", lambda view: math.nan if view.crossover is None else view.crossover),
)


def _dollars(view: View) -> float:
    dollars = view.run.usd_per_million_tokens
    return math.nan if dollars is None else float(dollars[0])


def _number(name: str, title: str, form: str, of: Measure, pinned: View, view: View) -> Row:
    first, second = of(pinned), of(view)
    before, now = ("–" if math.isnan(value) else format(value, form) for value in (first, second))
    return Row(name, title, before, now, f"{second / first:.2f}x" if first and not math.isnan(second / first) else "")


def markdown(pinned: View, view: View) -> str:
    """The comparison as a Markdown table."""
    rows = [f"| {row.title} | {row.pinned} | {row.now} | {row.change} |" for row in compared(pinned, view)]
    heads = ["| | A | B | B over A |", "| --- | --- | --- | --- |"]
    asked = [f"A: {question(pinned)}", f"B: {question(view)}"]
    return "\n".join([*asked, "", *heads, *rows])


# Tables by the panel that draws them.
TABLES: dict[str, tuple[str, ...]] = {
    "pays": ("speedups", "kernels"),
    "kernels": ("kernels",),
    "operators": ("operators",),
    "latency": ("tradeoff",),
    "memory": ("memory", "throughput"),
}


def downloads(view: View, panel: str = "") -> dict[str, pd.DataFrame]:
    """Tables of a panel, or all of them, by file name; each row begins with the question it answers."""
    names = TABLES.get(panel, ()) if panel else dict.fromkeys(name for names in TABLES.values() for name in names)
    known = [name for name in names if name != "tradeoff" or view.at is not None]
    asked = {f"asked_{name}": value for name, value in vars(view.state).items()}
    return {f"lscd-{name}.csv": getattr(view, name).assign(**asked) for name in known}
