"""Is pruning worth it? Sparse kernels against the rivals that keep all weights, over the batch, with a verdict.

A decoding step of a model is the same for all but its products: attention, small kernels and all-reduces are those of
an engine that replays graphs and reads the cache in parallel blocks. So a kernel is judged by the whole step with its
products in place of the dense ones, on whichever matrices pruning touches. Verdicts go by 90 % intervals: "yes" and
"no" where one side is clearly faster, "tie" where the intervals leave it open. Kernels that nobody measured take no
part. Kernels that prune and round are shown beside, and judged on their own: they ask for both sacrifices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.arguments import whole_number, wholes
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu, Launch
from perfmodel.choice import Choice, Pruning, Span, choose
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.kernels.rivals import Verdict, drops_more
from perfmodel.prediction import predict
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import load_system
from perfmodel.serving.transformer import all_matrices

Array = NDArray[np.float64]

MILD_BITS = 8  # a weight rounded to so many loses next to nothing
ENGINE = "tensorrt-llm"  # whose attention and launches the rest of a step has
HIGHEST_SPARSITY = 0.95
SHORTEST_OUTPUT = 2  # tokens of a run that has a decoding step
STEPS = 8  # halvings of the range of memory rates: to 1 %
PLACES, CLOSEST = 33, 1e-4  # sparsities that are looked at together, and how near the one found is
SLOWEST_MEMORY = 1 / 16  # of the GPU's own, down to which the memory is looked for with which sparse would pay


@dataclass(frozen=True)
class Rival:
    """One kernel for all matrices that pruning touches, at one batch.

    Attributes
    ----------
    kernel, title : str
        Name in the registry, and what figures show.
    change : str
        What becomes of the weights: "lossless", "rounded", "pruned", or "pruned and rounded".
    sparsity : float
        Fraction of zeros: that asked for, or its pattern's.
    products : Span
        Seconds of all products of a step, on one GPU.
    rest_s : float
        Seconds of everything else in the step.
    memory_bytes : float
        Needed on each GPU: weights, cache, activations.
    fits : bool
        Whether the GPU has as much.
    extrapolated : bool
        Whether any of its products lies outside the evidence its model was fitted on.
    """

    kernel: str
    title: str
    change: str
    sparsity: float
    products: Span
    rest_s: float
    memory_bytes: float
    fits: bool
    extrapolated: bool

    @property
    def prunes(self) -> bool:
        """Whether it drops weights."""
        return "pruned" in self.change

    @property
    def step_s(self) -> float:
        """Seconds of a decoding step."""
        return self.products.time_s + self.rest_s

    def speedup_over(self, other: Rival) -> tuple[float, float, float]:
        """How many times faster the whole step is than ``other``'s: prediction, low and high end."""
        if self.kernel == other.kernel:
            return 1.0, 1.0, 1.0
        theirs = other.products.time_s
        value, low, high = (
            (theirs + self.rest_s) / (theirs / ratio + self.rest_s)
            for ratio in self.products.speedup_over(other.products)
        )
        return value, low, high


@dataclass(frozen=True)
class AtBatch:
    """All rivals at one batch, dense first."""

    batch: int
    rivals: tuple[Rival, ...]

    @property
    def dense(self) -> Rival:
        """Dense FP16."""
        return self.rivals[0]

    def best(self, *changes: str) -> Rival | None:
        """Fastest rival that fits and does to the weights what one of ``changes`` says; None if there is none."""
        found = (rival for rival in self.rivals if rival.fits and rival.change in changes)
        return min(found, key=lambda rival: rival.step_s, default=None)

    @property
    def sparse(self) -> Rival | None:
        """Fastest that prunes and keeps the 16-bit values that are left."""
        return self.best("pruned")

    @property
    def fastest(self) -> dict[str, Rival]:
        """Fastest of each kind that changes the weights, of those that fit; of all where none of the kind does."""
        kinds = dict.fromkeys(rival.change for rival in self.rivals if rival.change != self.dense.change)
        return {
            kind: min((one for one in self.rivals if one.change == kind), key=lambda one: (not one.fits, one.step_s))
            for kind in kinds
        }

    @property
    def unstructured(self) -> list[Rival]:
        """All that prune to any sparsity and keep 16-bit values, whether they fit or not."""
        return [one for one in self.rivals if one.change == "pruned" and not KERNELS[one.kernel].patterns]

    @property
    def both(self) -> Rival | None:
        """Fastest that prunes and rounds."""
        return self.best("pruned and rounded")

    @property
    def whole(self) -> Rival | None:
        """Fastest that keeps all weights, rounded or not."""
        return self.best("lossless", "rounded")

    @property
    def mild(self) -> Rival | None:
        """Fastest that keeps all weights in 8 bits or more."""
        kept = [rival for rival in self.rivals if not rival.prunes and _bits(rival.kernel) >= MILD_BITS]
        return replace(self, rivals=tuple(kept)).whole

    @property
    def verdict(self) -> Verdict:
        """Of the fastest sparse kernel."""
        return self.verdict_of(self.sparse)

    def verdict_of(self, rival: Rival | None) -> Verdict:
        """``rival`` against the fastest that keeps all weights, by the interval of its speed-up over it."""
        if rival is None or self.whole is None:
            return Verdict.NO if rival is None else Verdict.YES
        _, low, high = rival.speedup_over(self.whole)
        return Verdict.YES if low > 1 else Verdict.NO if high < 1 else Verdict.TIE

    @property
    def margin(self) -> float:
        """Sparse over whole, predicted: how well it does here; minus infinity where nothing sparse fits."""
        if self.sparse is None:
            return -np.inf
        return np.inf if self.whole is None else self.sparse.speedup_over(self.whole)[0]


@dataclass(frozen=True)
class Worth:
    """The answer of `worth`.

    Attributes
    ----------
    model, gpu, gpus, sparsity, input_len, output_len
        What was asked.
    batches : tuple of AtBatch
        One for each batch.
    needed_sparsity : dict
        By the kernel to beat: sparsity from which the best unstructured kernel is faster, at the batch of the verdict;
        None if none up to `HIGHEST_SPARSITY` is. Empty where no unstructured kernel takes part.
    needed_bandwidth : dict
        By the kernel to beat: bytes/s of memory, all else equal, below which the best unstructured kernel would be
        faster at the sparsity asked for; only those that it does not beat as it is, and would.
    """

    model: str
    gpu: str
    gpus: int
    sparsity: float
    input_len: int
    output_len: int
    batches: tuple[AtBatch, ...]
    needed_sparsity: dict[str, float | None]
    needed_bandwidth: dict[str, float]

    @cached_property
    def headline(self) -> AtBatch:
        """The batch at which sparse does best: by its verdict, then by how far it is ahead or behind."""
        order = [Verdict.NO, Verdict.TIE, Verdict.YES]
        return max(self.batches, key=lambda at: (order.index(at.verdict), at.margin))

    @property
    def verdict(self) -> Verdict:
        """At the best batch for sparse: "no" there is "no" everywhere."""
        return self.headline.verdict


def worth(
    model: str | LanguageModel,
    gpu: str | Gpu,
    *,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    sparsity: float | Sparsities,
    gpus: int = 1,
    input_len: int = 64,
    output_len: int = 512,
    kernels: Sequence[str] = (),
) -> Worth:
    """Compare sparse kernels with those that keep all weights, for a model on a kind of GPU.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records; of a quantised checkpoint too, dense is its weights in 16 bits.
    batches : sequence of int
        Sequences decoded together.
    sparsity : float or Sparsities
        Fraction of zeros that pruning reaches, 0 to 1, or that of each matrix in each layer; patterns that drop more
        (on average) take no part.
    gpus : int
        Degree of tensor parallelism.
    input_len, output_len : int
        Tokens of each prompt, tokens generated for it: the cache is read at half of the output.
    kernels : sequence of str
        Only these besides dense; all measured ones that the GPU runs by default.

    Raises
    ------
    ValueError
        As `choose` and `evaluate`, or if there is no batch.
    """
    record = model if isinstance(model, LanguageModel) else load_model(model)
    card = load_gpu(gpu)
    batches = wholes("batches", batches)
    gpus, input_len, output_len = (
        whole_number(name, value)
        for name, value in (("gpus", gpus), ("input_len", input_len), ("output_len", output_len))
    )
    if output_len < SHORTEST_OUTPUT:
        raise ValueError(f"output_len is {output_len}, allowed is at least {SHORTEST_OUTPUT}: one token takes no step")
    lengths = {"input_len": input_len, "output_len": output_len}
    asked: dict[str, Any] = {"gpus": gpus, "kernels": kernels, **lengths}
    found = tuple(at_batch(record, card, batch, sparsity, **asked) for batch in batches)
    mean = Pruning.of(record, sparsity).mean
    return with_needs(
        Worth(record.key, card.key, gpus, mean, input_len, output_len, found, {}, {}), record, card, sparsity
    )


def with_needs(answer: Worth, model: LanguageModel, gpu: Gpu, sparsity: float | Sparsities) -> Worth:
    """``answer`` with what sparse would need, which takes longer than all else."""
    at = answer.headline
    if not at.unstructured:
        return answer
    targets = dict.fromkeys(rival.kernel for rival in (at.whole, at.mild) if rival is not None)
    unstructured = {rival.kernel for rival in at.unstructured}
    # The rest of a step is the same, so that what is ahead in products is ahead.
    products_s = partial(_products_s, model, gpu, at.batch, answer.gpus)

    @cache
    def best_s(low: float, high: float) -> Array:
        """Products of the best unstructured kernel at `PLACES` sparsities between two."""
        shares = np.linspace(low, high, PLACES)
        return np.asarray(np.min([products_s(name, shares) for name in unstructured], axis=0))

    @cache
    def gains(slowed: float) -> dict[str, float]:
        """Products of each target over those of the best unstructured kernel, with so much of the memory's rate."""
        only = [*targets, *sorted(unstructured)]  # the others have no say
        here = choose(
            model, _slowed(gpu, slowed), batch=at.batch, sparsity=sparsity, gpus=answer.gpus, kernels=only,
            launch=Launch.GRAPH,
        )  # fmt: skip
        times = {name: span.time_s for name, (span, _) in {BASELINE: here.dense, **here.uniform}.items()}
        return {name: times[name] / min(times[one] for one in unstructured) for name in targets}

    needed = {name: _first_share(best_s, products_s(name, np.zeros(1))) for name in targets}
    behind = [name for name, gain in gains(1.0).items() if gain < 1]
    steps = {name: _first(lambda step, name=name: gains(SLOWEST_MEMORY**step)[name], 0.0, 1.0) for name in behind}
    full = gpu.dram.bandwidth_bytes_per_s
    bandwidth = {name: SLOWEST_MEMORY**step * full for name, step in steps.items() if step is not None}
    return replace(answer, needed_sparsity=needed, needed_bandwidth=bandwidth)


def _products_s(model: LanguageModel, gpu: Gpu, batch: int, gpus: int, kernel: str, shares: Array) -> Array:
    """Seconds of a step's products with prunable matrices at each of ``shares``, infinite where there are none.

    As `choose` has them: active experts are one tall product.
    """
    chosen = KERNELS[kernel]
    matrices = [matrix for matrix in all_matrices(model.shape, gpus) if matrix.prunable]
    m, k, layers = (np.array([float(getattr(matrix, name)) for matrix in matrices]) for name in ("m", "k", "layers"))
    active, tokens = (np.array([float(matrix.products(batch)[part]) for matrix in matrices]) for part in range(2))
    n, own = np.asarray(chosen.padded_n(tokens)), np.asarray(chosen.own_sparsity(shares))[:, None]
    runs = chosen.has_room(gpu, n, own)
    found = predict(kernel, gpu, np.ceil(active * m), k, n, np.where(runs, own, 1.0), launch=Launch.GRAPH)
    return np.asarray(np.sum(np.where(runs, found.time_s, np.inf) * layers, axis=-1))


def _slowed(gpu: Gpu, scale: float) -> Gpu:
    """``gpu`` with ``scale`` of its memory's rate."""
    memory = msgspec.structs.replace(gpu.dram, bandwidth_bytes_per_s=scale * gpu.dram.bandwidth_bytes_per_s)
    return msgspec.structs.replace(gpu, dram=memory)


def _first_share(best_s: Callable[[float, float], Array], target_s: Array) -> float | None:
    """Sparsity from which ``best_s`` is at most ``target_s``, to 0.0001; None if it is not up to `HIGHEST_SPARSITY`."""
    low, high = 0.0, HIGHEST_SPARSITY
    while high - low > CLOSEST:
        ahead = best_s(low, high) <= target_s
        if not ahead.any():
            return None
        shares = np.linspace(low, high, PLACES)
        first = int(np.argmax(ahead))
        low, high = float(shares[max(first - 1, 0)]), float(shares[first])
    return high


def _first(gain: Any, low: float, high: float) -> float | None:
    """Where ``gain``, taken to rise, first reaches 1 between ``low`` and ``high``; None if it does not."""
    if gain(high) < 1:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if gain(middle) >= 1 else (middle, high)
    return high


def at_batch(
    model: LanguageModel, gpu: Gpu, batch: int, sparsity: float | Sparsities, *, gpus: int, kernels: Sequence[str],
    input_len: int, output_len: int, known: AtBatch | None = None,
) -> AtBatch:  # fmt: skip
    """All rivals at one batch: `worth` without what sparse would need, for who asks often.

    ``known`` are rivals of the same step, of other kernels, which the answer holds too.
    """
    choice = choose(model, gpu, batch=batch, sparsity=sparsity, gpus=gpus, kernels=kernels, launch=Launch.GRAPH)
    dense, dense_bytes = choice.dense
    if known is None:
        lengths: dict[str, Any] = {"input_len": input_len, "output_len": output_len}
        run = evaluate(model.unquantised, gpu, load_system(ENGINE), batch=batch, gpus=gpus, **lengths)
        rest_s, all_bytes = max(float(run.tpot_s) - dense.time_s, 0.0), float(run.memory.total)
    else:
        rest_s, all_bytes = known.dense.rest_s, known.dense.memory_bytes
    totals = {BASELINE: choice.dense, **choice.uniform}
    found = [
        _rival(choice, name, span, rest_s, all_bytes - dense_bytes + weight_bytes)
        for name, (span, weight_bytes) in totals.items()
        if name == BASELINE or not drops_more(KERNELS[name], choice.sparsity)
    ]
    if known is not None:
        order = list(KERNELS)
        found[1:] = sorted([*found[1:], *known.rivals[1:]], key=lambda rival: order.index(rival.kernel))
    return AtBatch(batch, tuple(found))


def _rival(choice: Choice, kernel: str, span: Span, rest_s: float, memory_bytes: float) -> Rival:
    candidates = [candidate for matrix in choice.free if (candidate := matrix.of(kernel)) is not None]
    model = KERNELS[kernel]
    zeros = float(model.own_sparsity(choice.sparsity)) if model.format.prunes else 0.0
    return Rival(
        kernel, model.title, model.format.change, zeros, span, rest_s,
        memory_bytes, memory_bytes <= choice.capacity_bytes, any(c.extrapolated for c in candidates),
    )  # fmt: skip


def _bits(kernel: str) -> float:
    """Bits a weight of a large matrix takes in the kernel's format, dense, without its scales' share rounded away."""
    return float(np.round(KERNELS[kernel].format.bits_per_weight(16384, 16384, 0.0)))
