"""Questions on top of `perfmodel.serving`: tables of runs, fewest GPUs, best batch, cheapest system, break-even.

A plan compares systems at what each does best: for every number of GPUs that can hold the model, the batch with the
most tokens per GPU-second among powers of two and the largest that fits. Every kernel that somebody has measured and
the GPU runs takes part, in FasterTransformer; the verdict is that of the best that prunes and keeps 16-bit values,
against the best that keeps all weights.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu
from perfmodel.catalog.specs import Gpu, LanguageModel
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS
from perfmodel.kernels.rivals import (
    NOT_MEASURED,
    UNPROVEN,
    WHOLE,
    Verdict,
    drops_more,
    rivals,
    standing,
    verdict_of,
)
from perfmodel.serving.memory import largest_batch
from perfmodel.serving.run import Serving, evaluate, resolve
from perfmodel.serving.systems import HOST, SYSTEMS, System, load_system
from perfmodel.serving.transformer import Part, splits
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = ("batch", "input_len", "output_len", "sparsity", "gpus")
RESULT_COLUMNS = (
    "fits", "memory_gb", "tokens_per_gpu_s", "ttft_ms", "tpot_ms", "matmul_gpu_s", "attention_gpu_s", "other_gpu_s",
    "comm_gpu_s", "lo_tokens_per_gpu_s", "hi_tokens_per_gpu_s", "lo_ttft_ms", "hi_ttft_ms", "lo_tpot_ms", "hi_tpot_ms",
    "extrapolated", "change",
)  # fmt: skip
GPUS_PER_MACHINE = 8
BATCHES = 2 ** np.arange(11)
SPARSITIES = np.round(np.arange(0.50, 0.991, 0.01), 2)
PROMPTS = 2 ** np.arange(4, 14)
SPARSE = "flash-llm"  # whose break-even with `HOST` a plan looks for


def evaluate_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Predict a table of runs.

    Parameters
    ----------
    rows : DataFrame
        ``model, gpu, system`` and `RUN_COLUMNS`, one run each; ``pipeline_parallel`` and ``launch`` if there are such
        columns.

    Returns
    -------
    DataFrame
        `RESULT_COLUMNS`, in the order and with the index of ``rows``: ``memory_gb`` per GPU, GPU-seconds of the whole
        run summed over all GPUs, ``lo_`` and ``hi_`` the ends of the 90 % interval, ``change`` what becomes of the
        weights or "not measured", "not written" (`change`). Where the run does not fit there is no time (NaN).

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`.
    """
    import pandas as pd

    parts = []
    given = [name for name in (*RUN_COLUMNS, "pipeline_parallel") if name in rows]
    names = ["model", "gpu", "system", *(["launch"] if "launch" in rows else [])]
    for (model, gpu, system, *launch), index in rows.groupby(names, sort=False).indices.items():
        group = rows.iloc[index]
        columns: dict[str, Any] = {name: group[name].to_numpy() for name in given}
        own = str(launch[0]) if launch and launch[0] else None
        run = evaluate(str(model), str(gpu), str(system), **columns, launch=own)
        host = load_system(str(system))
        marks = {"extrapolated": run.extrapolated, "change": [change(host, share) for share in columns["sparsity"]]}
        parts.append(pd.DataFrame(result_columns(run) | interval_columns(run) | marks, index=index))
    return pd.concat(parts).sort_index().set_axis(rows.index)


def result_columns(run: Serving) -> dict[str, Any]:
    """`RESULT_COLUMNS` but intervals and marks, as arrays; NaN where a run that does not fit has a time."""
    fits = np.broadcast_to(run.memory.fits, run.total_s.shape)
    seconds = run.gpu_seconds
    times = {
        "tokens_per_gpu_s": run.tokens_per_gpu_s,
        "ttft_ms": run.ttft_s / MILLI,
        "tpot_ms": run.tpot_s / MILLI,
        "matmul_gpu_s": seconds[Part.MATMUL],
        "attention_gpu_s": seconds[Part.ATTENTION],
        "other_gpu_s": seconds[Part.OTHER],
        "comm_gpu_s": seconds[Part.COMMUNICATION],
    }
    memory_gb = np.broadcast_to(run.memory.total / GIGA, fits.shape)
    return {"fits": fits, "memory_gb": memory_gb, **{name: np.where(fits, v, np.nan) for name, v in times.items()}}


def interval_columns(run: Serving) -> dict[str, Any]:
    """Ends of the 90 % intervals of predicted runs, as arrays; NaN where the run does not fit.

    Apart from `result_columns`, because they ask every kernel for its interval, and grids of millions of runs do not.
    """
    fits = np.broadcast_to(run.memory.fits, run.total_s.shape)
    ends = {
        "tokens_per_gpu_s": run.tokens_per_gpu_s_interval,
        "ttft_ms": tuple(seconds / MILLI for seconds in run.ttft_s_interval),
        "tpot_ms": tuple(seconds / MILLI for seconds in run.tpot_s_interval),
    }
    pairs = {f"{end}_{name}": both[i] for name, both in ends.items() for i, end in enumerate(("lo", "hi"))}
    return {name: np.where(fits, value, np.nan) for name, value in pairs.items()}


def intervals_overlap(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    """Whether two intervals, each a low and a high end, have a value in common: a tie."""
    return bool(first[0] <= second[1] and second[0] <= first[1])


def hosted_systems() -> dict[str, str]:
    """FasterTransformer with each measured kernel that no published system has and that reads prompts, by name."""
    published = {system.kernel for system in SYSTEMS.values()}
    known = [model.name for model in rivals() if model.name not in published | BOUNDED and not model.one_token]
    return {f"{HOST}+{kernel}": kernel for kernel in known}


def rival_systems(gpu: str | Gpu, sparsity: float) -> tuple[str, ...]:
    """Systems that a plan compares: the published ones, then `hosted_systems`, without what takes no part.

    That are systems whose kernel the GPU refuses or whose pattern drops more weights than ``sparsity``, and hosted ones
    that would keep weights of this sparsity dense.
    """
    card = gpu if isinstance(gpu, Gpu) else load_gpu(gpu)
    found = []
    for name in (*SYSTEMS, *hosted_systems()):
        system = load_system(name)
        model = KERNELS[system.kernel or BASELINE]
        runs = model.refusal(card) is None and not drops_more(model, sparsity)
        if runs and (name in SYSTEMS or change(system, sparsity) not in WHOLE or not model.format.prunes):
            found.append(name)
    return tuple(found)


def change(system: System, sparsity: float) -> str:
    """What becomes of the weights at ``sparsity``, or "not written", "not measured" (`perfmodel.kernels.rivals`).

    Nothing does where the system would keep matrices of this sparsity dense. A format without a kernel counts as not
    measured.
    """
    if not system.stores_sparse(system.own_sparsity(sparsity)):
        return WHOLE[0]
    return NOT_MEASURED if system.kernel is None else standing(KERNELS[system.kernel])


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
        Low and high end of the 90 % interval of the first.
    usd_per_million_tokens : tuple of float or None
        At the low and high price of the GPU.
    extrapolated : bool
        True outside the evidence of the fit.
    change : str
        What becomes of the weights: "lossless", "rounded", "pruned", "pruned and rounded"; or "not measured", "not
        written".
    sparsity : float
        Fraction of zeros that it makes use of: that asked for, the pattern's, or 0 where all weights are kept.
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
        return tuple(option for option in self.options if option.change not in UNPROVEN)

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
    sparsity: float = 0.8,
    input_len: int = 64,
    output_len: int = 512,
    systems: Sequence[str] = (),
) -> Plan:
    """Compare systems for one model on one kind of GPU.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records.
    sparsity : float
        Fraction of zeros in the pruned matrices, 0 to 1; a kernel of a pattern runs at the pattern's.
    input_len, output_len : int
        Tokens of each prompt, tokens generated for it; together at most what the model knows.
    systems : sequence of str
        Names of `perfmodel.serving.systems.load_system`; `rival_systems` by default.

    Returns
    -------
    Plan
        Every system on 1, 2, 4 and 8 GPUs, where it fits and the heads can be shared.

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`; a system that the GPU does not run too, if it is named.
    """
    record, card, _ = resolve(model, gpu, HOST)
    lengths: dict[str, Any] = {"input_len": input_len, "output_len": output_len}
    evaluate(record, card, HOST, batch=1, sparsity=sparsity, **lengths)  # refuses what no number of GPUs mends
    counts = splits(record, GPUS_PER_MACHINE)
    options = [
        option
        for system in systems or rival_systems(card, sparsity)
        for gpus in counts
        if (option := _best_batch(record, card, system, gpus, sparsity, lengths)) is not None
    ]
    sparse = _break_even_sparsity(record, card, counts, lengths, options)
    batches, prompts = _faster_loads(record, card, sparsity, lengths, options)
    return Plan(judge(options), tuple(options), sparse, batches, prompts)


def judge(options: Sequence[Option]) -> Verdict:
    """Verdict of the best option that prunes and keeps 16-bit values, against the best that keeps all weights."""
    sides = (_best_of(options, "pruned"), _best_of(options, *WHOLE))
    ours, theirs = (None if option is None else option.tokens_per_gpu_s_interval for option in sides)
    return verdict_of(ours, theirs)


def _runs(
    model: LanguageModel, gpu: Gpu, system: str, gpus: int, sparsity: float, lengths: dict[str, Any]
) -> tuple[NDArray[np.int64], Serving] | None:
    """Batches up to the largest that fits, and their runs; None if none fits."""
    _, _, record = resolve(model, gpu, system)
    own = float(record.own_sparsity(sparsity))
    largest = largest_batch(model, gpu, record, **lengths, sparsity=own, tensor_parallel=gpus)
    if largest == 0:
        return None
    batches = np.unique([*BATCHES[largest >= BATCHES], largest])
    return batches, evaluate(model, gpu, record, batch=batches, sparsity=own, gpus=gpus, **lengths)


def _best_batch(
    model: LanguageModel, gpu: Gpu, system: str, gpus: int, sparsity: float, lengths: dict[str, Any]
) -> Option | None:
    found = _runs(model, gpu, system, gpus, sparsity, lengths)
    if found is None:
        return None
    batches, run = found
    i = int(np.argmax(run.tokens_per_gpu_s))
    price, ends = run.usd_per_million_tokens, run.tokens_per_gpu_s_interval
    record = load_system(system)
    fate = change(record, sparsity)
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
        sparsity=0.0 if fate in WHOLE else float(record.own_sparsity(sparsity)),
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
