"""The answer in words: the facts on top of the page, and the tables behind the charts as files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.catalog import load_gpu, load_model
from perfmodel.kernels import KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE, Verdict
from perfmodel.serving.planning import intervals_overlap
from perfmodel.serving.systems import HOST, load_system
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    import pandas as pd

    from lscd.explorer.view import View
    from perfmodel.worth import AtBatch, Rival


@dataclass(frozen=True)
class Fact:
    """One tile of the page: a stable name, a title, the value, and what stands below it; ``good`` marks a verdict."""

    name: str
    title: str
    value: str
    note: str
    good: bool | None = None


def facts(view: View) -> list[Fact]:
    """The tiles of the page in reading order."""
    refused = [] if view.refusal is None else [_refused(view.refusal)]
    run = [_fits(view), _throughput(view), _latency(view), _cost(view)]
    return [_worth(view), *refused, *run, _crossover(view), _accuracy(view)]


def question(view: View) -> str:
    """What was asked, in a sentence."""
    state = view.state
    gpus = f"{state.gpus} x {load_gpu(state.gpu).name}"
    lengths = f"{state.batch} sequence{'s' * (state.batch > 1)} of {state.input_len} + {state.output_len} tokens"
    system = load_system(view.system).title
    return f"{load_model(state.model).name} on {gpus}: {system}, {_weights(view)}, {lengths}"


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


def _worth(view: View) -> Fact:
    """The verdict of `lscd worth` at the chosen batch, in its words."""
    at = view.worth
    if at is None:
        return Fact("worth", "Worth it", "–", "one token takes no decoding step, which the verdict is about")
    good = {Verdict.YES: True, Verdict.NO: False, Verdict.TIE: None}[at.verdict]
    return Fact("worth", "Worth it", str(at.verdict), f"at {view.state.sparsity:.0%} zeros, {_compared(at)}", good=good)


def _compared(at: AtBatch) -> str:
    """The best sparse kernel beside the best that keeps all weights."""
    if at.sparse is None and at.whole is None:
        return "nothing fits these GPUs, sparse or not"
    first = "no sparse kernel fits and runs here"
    if at.sparse is not None:
        first = f"{_gain(at.sparse, at)} dense {_ends(at.sparse, at)}"
    if at.whole is None:
        return f"{first}, nothing that keeps all weights fits"
    if at.whole.kernel == at.dense.kernel:
        return f"{first}, nothing that keeps all weights is faster than dense"
    return f"{first}, {_gain(at.whole, at)} {_ends(at.whole, at)} and keeps all weights"


def _gain(rival: Rival, at: AtBatch) -> str:
    return f"{rival.title.split(' (')[0]} is {rival.speedup_over(at.dense)[0]:.1f}x"


def _ends(rival: Rival, at: AtBatch) -> str:
    _, low, high = rival.speedup_over(at.dense)
    return f"({low:.1f}-{high:.1f})"


def _refused(reason: str) -> Fact:
    return Fact(
        "refused", "System", "does not run here", f"{reason}. Shown instead: dense FasterTransformer", good=False
    )


def _fits(view: View) -> Fact:
    memory = view.run.memory
    needed, size, left = (float(value) / GIGA for value in (memory.total, memory.capacity, memory.headroom))
    fits = bool(memory.fits)
    rest = f"{left:.1f} GB left" if fits else f"{-left:.1f} GB too much"
    value = "✓ fits" if fits else "✗ does not fit"
    return Fact("fits", "Memory", value, f"{needed:.1f} of {size:.1f} GB on each GPU, {rest}", good=fits)


def _throughput(view: View) -> Fact:
    rate, dense = float(view.run.tokens_per_gpu_s), float(view.dense.tokens_per_gpu_s)
    low, high = map(float, view.run.tokens_per_gpu_s_interval)
    against = "" if view.system == HOST else f"{rate / dense:.2f}x dense FasterTransformer"
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
    return Fact("latency", "Time per token", value, f"first token after {first:,.0f} ms")


def _cost(view: View) -> Fact:
    dollars, joules = view.run.usd_per_million_tokens, view.run.joules_per_token
    value = "no price known" if dollars is None else f"${float(dollars[0]):,.2f} – {float(dollars[1]):,.2f}"
    energy = "" if joules is None else f"{float(joules[1]):,.2f} J a token"
    return Fact("cost", "Per million tokens", value, energy)


def _crossover(view: View) -> Fact:
    title, kernel = "Sparse pays from", load_system(view.system).title
    if has_pattern(view.system):
        return Fact("crossover", title, "–", f"{kernel} takes its pattern's {view.sparsity:.0%} and no other sparsity")
    if view.crossover is None:
        return Fact("crossover", title, "–", f"{kernel} has no modelled kernel that depends on sparsity")
    note = f"sparsity, for a layer on one GPU at batch {view.state.batch}"
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
    note = "; ".join(limits) or f"no published result of {load_model(view.state.model).name} or its family"
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


def downloads(view: View) -> dict[str, pd.DataFrame]:
    """Tables by file name; each row begins with the question it answers."""
    tables = {"kernels": view.kernels, "throughput": view.throughput, "speedups": view.speedups, "memory": view.memory}
    asked = {f"asked_{name}": value for name, value in vars(view.state).items()}
    return {f"lscd-{name}.csv": table.assign(**asked) for name, table in tables.items()}
