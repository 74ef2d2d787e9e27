"""Questions on top of `perfmodel.serving`: fewest GPUs, best batch, cheapest system, break-even.

A plan compares systems at what each does best: for every number of GPUs that can hold the model, the batch with the
most tokens per GPU-second among powers of two and the largest that fits. Every kernel that somebody has measured and
the GPU runs takes part, in FasterTransformer; the verdict is that of the best that prunes and keeps 16-bit values,
against the best that keeps all weights.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.arguments import text, texts
from perfmodel.catalog.arrays import number
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.formats import check_sparsity
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE, Verdict, verdict_of
from perfmodel.serving.contenders import change, of_formats, own_sparsity, rival_systems
from perfmodel.serving.group import make_group, resolve
from perfmodel.serving.memory import largest_batch
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import HOST, SYSTEMS, load_system
from perfmodel.serving.transformer import mean_sparsity, splits

GPUS_PER_MACHINE = 8
BATCHES = 2 ** np.arange(11)
SPARSITIES = np.round(np.arange(0.50, 0.991, 0.01), 2)
PROMPTS = 2 ** np.arange(4, 14)
SPARSE = "flash-llm"  # whose break-even with `HOST` a plan looks for


def intervals_overlap(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    """Whether two intervals, each a low and a high end, have a value in common: a tie."""
    return bool(first[0] <= second[1] and second[0] <= first[1])


@dataclass(frozen=True)
class Option:
    """One system on one number of GPUs, at its best batch.

    Attributes
    ----------
    system : str
        Name.
    gpus, batch, largest_batch : int
        GPUs, sequences of the best run, sequences that fit.
    tokens_per_gpu_s, ttft_s, tpot_s : float
        Of the best run.
    tokens_per_gpu_s_interval : tuple of float
        Low and high end of the 90 % interval of the first; from 0 where it is a bound.
    usd_per_million_tokens : tuple of float or None
        At the low and high price of the GPU.
    extrapolated : bool
        True outside the evidence of the fit.
    change : str
        What becomes of the weights: "lossless", "rounded", "pruned", "pruned and rounded"; or "not measured".
    sparsity : float
        Fraction of zeros that it makes use of: that asked for, the pattern's, or 0 where all weights are kept.
    bound : bool
        True where no kernel of its format is known: a real one is slower.
    """

    system: str
    gpus: int
    batch: int
    largest_batch: int
    tokens_per_gpu_s: float
    ttft_s: float
    tpot_s: float
    usd_per_million_tokens: tuple[float, float] | None
    extrapolated: bool
    tokens_per_gpu_s_interval: tuple[float, float]
    change: str
    sparsity: float
    bound: bool = False

    def ties_with(self, other: Option) -> bool:
        """Whether either throughput could be the higher."""
        return intervals_overlap(self.tokens_per_gpu_s_interval, other.tokens_per_gpu_s_interval)


@dataclass(frozen=True)
class Plan:
    """Answer of `plan`: the verdict, every option, the best of each system, and where sparse pays against dense.

    Attributes
    ----------
    verdict : Verdict
        Of `sparse` against `whole`, by the intervals of tokens per GPU-second.
    options : tuple of Option
        By system, then GPUs; the first of a system has its fewest GPUs.
    break_even_sparsity : float or None
        Lowest sparsity from which the best Flash-LLM option beats the best FasterTransformer option.
    sparse_faster_at_batch, sparse_faster_at_prompt : dict
        On the GPUs of FasterTransformer's best option: whether Flash-LLM is the faster of the two at each batch tried,
        and at each prompt length tried with that option's batch; empty if dense weights fit nowhere or no Flash-LLM
        runs. Not one threshold: padding of N makes the answer change back in some cases.
    """

    verdict: Verdict
    options: tuple[Option, ...]
    break_even_sparsity: float | None
    sparse_faster_at_batch: dict[int, bool]
    sparse_faster_at_prompt: dict[int, bool]

    def best(self, system: str) -> Option | None:
        """Option of ``system`` with the most tokens per GPU-second; None if none fits."""
        return _best(self.options, system)

    def fewest_gpus(self, system: str) -> int | None:
        """Fewest GPUs ``system`` needs; None if even the largest number tried is too few."""
        return min((option.gpus for option in self.options if option.system == system), default=None)

    @property
    def measured(self) -> tuple[Option, ...]:
        """Options whose kernel somebody has measured: what may be recommended."""
        return tuple(option for option in self.options if option.change != NOT_MEASURED)

    @property
    def sparse(self) -> Option | None:
        """Best that prunes and keeps the 16-bit values that are left."""
        return _best_of(self.options, "pruned")

    @property
    def whole(self) -> Option | None:
        """Best that keeps all weights, rounded or not."""
        return _best_of(self.options, *WHOLE)

    @property
    def both(self) -> Option | None:
        """Best that prunes and rounds."""
        return _best_of(self.options, "pruned and rounded")


def plan(
    model: str | LanguageModel,
    gpu: str | Gpu,
    *,
    sparsity: float | Sparsities = 0.0,
    input_len: int = 64,
    output_len: int = 512,
    systems: Sequence[str] = (),
    formats: Sequence[str] = (),
    engine: str = HOST,
    limits: Limits | None = None,
) -> Plan:
    """Compare systems for one model on one kind of GPU.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records.
    sparsity : float or Sparsities
        Fraction of zeros in the pruned matrices, 0 to 1, or that of each matrix in each layer; a kernel of a pattern
        runs at the pattern's.
    input_len, output_len : int
        Tokens of each prompt, tokens generated for it; together at most what the model knows.
    systems : sequence of str
        Names of `perfmodel.serving.systems.load_system`; `rival_systems` by default.
    formats : sequence of str
        Only systems of these weight formats, and dense; all by default.
    engine : str
        What the kernels are compared in.
    limits : Limits
        GPUs at most, TTFT and TPOT at most; none by default.

    Returns
    -------
    Plan
        Every system on 1, 2, 4 and 8 GPUs, where it fits, the heads can be shared and the limits hold.

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`; a system that the GPU does not run too, if it is named.
    """
    record, card, _ = resolve(model, gpu, HOST)
    systems, formats = texts("systems", systems), texts("formats", formats)
    text("engine", engine)
    if not isinstance(sparsity, Sparsities):
        sparsity = number("sparsity", check_sparsity(sparsity))
    lengths: dict[str, Any] = {"input_len": input_len, "output_len": output_len}
    evaluate(record, card, HOST, batch=1, sparsity=sparsity, **lengths)  # refuses what no number of GPUs mends
    held = limits or Limits()
    counts = [count for count in splits(record, GPUS_PER_MACHINE) if count <= held.gpus]
    mean = mean_sparsity(record.shape, sparsity) if isinstance(sparsity, Sparsities) else sparsity
    compared = of_formats(systems or rival_systems(card, mean, engine), formats)
    options = [
        option
        for system in compared
        for gpus in counts
        if (option := _best_batch(record, card, system, gpus, sparsity, lengths, held)) is not None
    ]
    if SPARSE not in compared:
        return Plan(judge(options), tuple(options), None, {}, {})
    sparse = _break_even_sparsity(record, card, counts, lengths, options)
    batches, prompts = _faster_loads(record, card, mean, lengths, options)
    return Plan(judge(options), tuple(options), sparse, batches, prompts)


@dataclass(frozen=True)
class Limits:
    """What a plan must keep: GPUs, seconds to the first token and between tokens, each at most."""

    gpus: int = GPUS_PER_MACHINE
    ttft_s: float = math.inf
    tpot_s: float = math.inf

    def __post_init__(self) -> None:
        """Refuse limits that nothing keeps."""
        if not 1 <= number("max_gpus", self.gpus) <= GPUS_PER_MACHINE:
            raise ValueError(f"max_gpus must be from 1 to {GPUS_PER_MACHINE}, got {self.gpus}")
        for name, value in (("ttft", self.ttft_s), ("tpot", self.tpot_s)):
            if not (found := number(name, value)) > 0:
                raise ValueError(f"{name} must be above 0, got {found:g}")

    def kept(self, run: Serving) -> NDArray[np.bool_]:
        """Where a run keeps both times; a single token has none in between."""
        between = np.isnan(run.tpot_s) | (run.tpot_s <= self.tpot_s)
        return np.asarray((run.ttft_s <= self.ttft_s) & between)


def judge(options: Sequence[Option]) -> Verdict:
    """Verdict of the best option that prunes and keeps 16-bit values, against the best that keeps all weights."""
    sides = (_best_of(options, "pruned"), _best_of(options, *WHOLE))
    ours, theirs = (None if option is None else option.tokens_per_gpu_s_interval for option in sides)
    return verdict_of(ours, theirs)


def _runs(
    model: LanguageModel, gpu: Gpu, system: str, gpus: int, sparsity: float | Sparsities, lengths: dict[str, Any]
) -> tuple[NDArray[np.int64], Serving] | None:
    """Batches up to the largest that fits, and their runs; None if none fits."""
    record = load_system(system)
    own = own_sparsity(record, sparsity)
    group, _ = make_group(model, gpu, record, sparsity=own, gpus=gpus, **lengths)
    largest = largest_batch(group, **lengths)
    if largest == 0:
        return None
    batches = np.unique([*BATCHES[largest >= BATCHES], largest])
    return batches, evaluate(model, gpu, record, batch=batches, sparsity=own, gpus=gpus, **lengths)


def _best_batch(
    model: LanguageModel, gpu: Gpu, system: str, gpus: int, sparsity: float | Sparsities, lengths: dict[str, Any],
    limits: Limits,
) -> Option | None:  # fmt: skip
    found = _runs(model, gpu, system, gpus, sparsity, lengths)
    if found is None:
        return None
    batches, run = found
    kept = limits.kept(run)
    if not kept.any():
        return None
    i = int(np.argmax(np.where(kept, run.tokens_per_gpu_s, -np.inf)))
    price, ends = run.usd_per_million_tokens, run.tokens_per_gpu_s_interval
    record = load_system(system)
    mean = mean_sparsity(model.shape, sparsity) if isinstance(sparsity, Sparsities) else sparsity
    fate = change(record, mean, model)
    return Option(
        system=system,
        gpus=gpus,
        batch=int(batches[i]),
        largest_batch=int(batches[-1]),
        tokens_per_gpu_s=float(run.tokens_per_gpu_s[i]),
        ttft_s=float(run.ttft_s[i]),
        tpot_s=float(run.tpot_s[i]),
        usd_per_million_tokens=None if price is None else (float(price[0][i]), float(price[1][i])),
        extrapolated=bool(run.extrapolated[i]),
        tokens_per_gpu_s_interval=(float(ends[0][i]), float(ends[1][i])),
        change=fate,
        sparsity=0.0 if fate in WHOLE else float(record.own_sparsity(mean)),
        bound=record.is_bound,
    )


def _best(options: Sequence[Option], system: str) -> Option | None:
    return _fastest([option for option in options if option.system == system])


def _best_of(options: Sequence[Option], *changes: str) -> Option | None:
    return _fastest([option for option in options if option.change in changes])


def _fastest(options: Sequence[Option]) -> Option | None:
    return max(options, key=lambda option: option.tokens_per_gpu_s, default=None)


def _break_even_sparsity(
    model: LanguageModel, gpu: Gpu, counts: Sequence[int], lengths: dict[str, Any], options: Sequence[Option]
) -> float | None:
    dense = _best(options, HOST)
    if dense is None or _refused(gpu):
        return None

    def pays(sparsity: float) -> bool:
        found = (_runs(model, gpu, SPARSE, gpus, sparsity, lengths) for gpus in counts)
        return any(runs is not None and runs[1].tokens_per_gpu_s.max() > dense.tokens_per_gpu_s for runs in found)

    first = bisect_left(SPARSITIES, True, key=pays)  # once it pays, it does from there on
    return float(SPARSITIES[first]) if first < len(SPARSITIES) else None


def _faster_loads(
    model: LanguageModel, gpu: Gpu, sparsity: float, lengths: dict[str, Any], options: Sequence[Option]
) -> tuple[dict[int, bool], dict[int, bool]]:
    dense = _best(options, HOST)
    if dense is None or _refused(gpu):
        return {}, {}

    def faster(axis: str, values: NDArray[np.int64]) -> dict[int, bool]:
        if not values.size:
            return {}
        asked: dict[str, Any] = {"batch": dense.batch, **lengths, axis: values}
        sparse_s, dense_s = (
            evaluate(model, gpu, name, sparsity=sparsity, gpus=dense.gpus, **asked).total_s for name in (SPARSE, HOST)
        )
        return dict(zip(values.tolist(), (sparse_s < dense_s).tolist(), strict=True))

    known = PROMPTS + lengths["output_len"] <= model.shape.max_positions
    return faster("batch", BATCHES), faster("input_len", PROMPTS[known])


def _refused(gpu: Gpu) -> bool:
    """Whether the GPU does not run Flash-LLM."""
    return KERNELS[SYSTEMS[SPARSE].kernel or BASELINE].refusal(gpu) is not None
