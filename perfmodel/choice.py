"""Which weight format and kernel is best for each matrix of a model, and how sure is that?

Every kernel model that takes the number of tokens (padded where it must be) is asked for every weight matrix as one
GPU holds it under tensor parallelism; the fastest and the smallest candidates are kept beside all others. Only
matrices that pruning touches have a choice; LM head, router and embedding projections stay dense.

Intervals are those of `perfmodel.prediction`: 90 %, per product. Errors of one kernel on several matrices go together,
so bounds of a sum are sums of the bounds. Errors of two kernels are taken as independent, so the interval of a speed-up
adds both in quadrature. A speed-up of several matrices together is known better (`SEVERAL_MATRICES`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_device, load_model
from perfmodel.catalog.arguments import texts, whole_number
from perfmodel.catalog.arrays import number
from perfmodel.catalog.cpu import Cpu, Device, memory_bytes
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Launch
from perfmodel.formats import check_sparsity
from perfmodel.kernels import BOUNDED, KERNELS, VARIANTS, Call, Machine, baseline_of, kernel_model
from perfmodel.kernels import tiled_csl as flash
from perfmodel.kernels.base import KernelModel, ceil_div
from perfmodel.kernels.rivals import NOT_MEASURED, drops_more, rivals
from perfmodel.prediction import predict
from perfmodel.serving.transformer import Matrix, all_matrices, check_split, head_matrices, mean_sparsity

Array = NDArray[np.float64]

# How far speed-ups over dense of layers of four matrices are off in the serving engines' tables, by how far those of
# single products are: 0.56 to 0.85 for six quantised kernels on three GPUs.
SEVERAL_MATRICES = 0.75


@dataclass(frozen=True)
class Span:
    """A time in seconds with its 90 % interval."""

    time_s: float
    lo_s: float
    hi_s: float

    def __add__(self, other: Span) -> Span:
        return Span(self.time_s + other.time_s, self.lo_s + other.lo_s, self.hi_s + other.hi_s)

    def scaled(self, factor: float) -> Span:
        """Time of ``factor`` repetitions."""
        return Span(self.time_s * factor, self.lo_s * factor, self.hi_s * factor)

    def overlaps(self, other: Span) -> bool:
        """Whether either could be the faster one."""
        return self.lo_s <= other.hi_s and other.lo_s <= self.hi_s

    def speedup_over(self, other: Span) -> tuple[float, float, float]:
        """How many times faster this is than ``other``: prediction, low and high end; of several matrices together."""
        ratio = other.time_s / self.time_s
        slow = np.hypot(np.log(self.hi_s / self.time_s), np.log(other.time_s / other.lo_s))
        fast = np.hypot(np.log(self.time_s / self.lo_s), np.log(other.hi_s / other.time_s))
        ends = np.exp([-SEVERAL_MATRICES * slow, SEVERAL_MATRICES * fast])
        return ratio, float(ratio * ends[0]), float(ratio * ends[1])


@dataclass(frozen=True)
class Candidate:
    """One kernel for one matrix.

    Attributes
    ----------
    kernel, format : str
        Names in the registries.
    n : int
        Tokens the kernel computes, at least those asked for.
    span : Span
        Of all products with this matrix in one decoding step: layers, and active experts.
    weight_bytes : float
        Of all copies of the matrix on one GPU.
    bound : str
        The resource that sets the time.
    tile, split_k : tuple of int, int or None
        Rows and columns of a block's output, and blocks that share K, where the model knows them.
    change : str
        What becomes of the weights: "lossless", "rounded", "pruned", or "pruned and rounded".
    sparsity : float
        Fraction of zeros it is asked for: of a pattern, the pattern's own.
    extrapolated, measured : bool
        Outside the evidence; evidence of this kernel exists at all.
    """

    kernel: str
    format: str
    n: int
    span: Span
    weight_bytes: float
    bound: str
    tile: tuple[int, int] | None
    split_k: int | None
    change: str
    sparsity: float
    extrapolated: bool
    measured: bool

    @property
    def lossless(self) -> bool:
        """Whether every kept weight keeps its 16-bit value."""
        return "rounded" not in self.change

    @property
    def standing(self) -> str:
        """What a reader must know first: "not measured", or else what becomes of the weights."""
        return self.change if self.measured else NOT_MEASURED


@dataclass(frozen=True)
class MatrixChoice:
    """A weight matrix, local to one GPU, with all its candidates; the first is dense.

    ``products`` is the number of launches a step makes for matrices of this name, ``copies`` how many the GPU holds,
    ``tokens`` what each product sees.
    """

    name: str
    m: int
    k: int
    tokens: int
    products: float
    copies: int
    prunable: bool
    dense: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def fastest(self) -> Candidate:
        """Candidate with the shortest predicted time."""
        return min(self.candidates, key=lambda candidate: candidate.span.time_s)

    @property
    def smallest(self) -> Candidate:
        """Candidate with the fewest bytes; of several alike, the fastest."""
        return min(self.candidates, key=lambda candidate: (candidate.weight_bytes, candidate.span.time_s))

    def of(self, kernel: str) -> Candidate | None:
        """Candidate of ``kernel``, None if it does not take this matrix."""
        return next((candidate for candidate in self.candidates if candidate.kernel == kernel), None)


Pick = Callable[[MatrixChoice], Candidate]


@dataclass(frozen=True)
class Choice:
    """Answer for a whole model; ``capacity_bytes`` is the device memory of one GPU."""

    model: str
    gpu: str
    gpus: int
    batch: int
    sparsity: float
    capacity_bytes: float
    matrices: tuple[MatrixChoice, ...]

    @property
    def baseline(self) -> str:
        """The dense kernel that all are compared with."""
        return self.matrices[0].dense.kernel

    @property
    def free(self) -> tuple[MatrixChoice, ...]:
        """Matrices that have a choice."""
        return tuple(matrix for matrix in self.matrices if matrix.prunable)

    @property
    def lossless(self) -> Choice | None:
        """The same choice among kernels that keep FP16 values; None if a matrix has no such candidate."""
        kept = [
            replace(matrix, candidates=tuple(candidate for candidate in matrix.candidates if candidate.lossless))
            for matrix in self.matrices
        ]
        return replace(self, matrices=tuple(kept)) if all(matrix.candidates for matrix in kept) else None

    def total(self, pick: Pick) -> tuple[Span, float]:
        """Time of all products of a decoding step and bytes of all matrices, on one GPU; dense where no choice is."""
        chosen = [pick(matrix) if matrix.prunable else matrix.dense for matrix in self.matrices]
        span = sum((candidate.span for candidate in chosen), Span(0.0, 0.0, 0.0))
        return span, sum(candidate.weight_bytes for candidate in chosen)

    @property
    def dense(self) -> tuple[Span, float]:
        """Total with every matrix dense."""
        return self.total(lambda matrix: matrix.dense)

    @property
    def fastest(self) -> tuple[Span, float]:
        """Total with the fastest candidate of every matrix."""
        return self.total(lambda matrix: matrix.fastest)

    @property
    def smallest(self) -> tuple[Span, float]:
        """Total with the smallest candidate of every matrix."""
        return self.total(lambda matrix: matrix.smallest)

    @property
    def uniform(self) -> dict[str, tuple[Span, float]]:
        """Totals with one kernel for all matrices that have a choice, by kernel; those that take every matrix."""
        kernels = [c.kernel for c in self.free[0].candidates if all(matrix.of(c.kernel) for matrix in self.free)]

        def picking(kernel: str) -> Pick:
            return lambda matrix: matrix.of(kernel) or matrix.dense

        return {kernel: self.total(picking(kernel)) for kernel in kernels}

    @property
    def ties(self) -> tuple[str, ...]:
        """Kernels whose interval, on all matrices alike, overlaps that of the fastest choice, dense among them."""
        span, chosen = self.fastest[0], {matrix.fastest.kernel for matrix in self.free}
        totals = {self.baseline: self.dense, **self.uniform}
        return tuple(name for name, (other, _) in totals.items() if other.overlaps(span) and {name} != chosen)


@dataclass(frozen=True)
class Pruning:
    """Sparsities of all matrices: one for all, or those of a file; ``mean`` is that of all prunable weights."""

    every: float | Sparsities
    mean: float

    @classmethod
    def of(cls, model: LanguageModel, sparsity: float | Sparsities) -> Pruning:
        """Checked against the model."""
        if not isinstance(sparsity, Sparsities):
            share = float(check_sparsity(number("sparsity", sparsity)))
            return cls(share, share)
        sparsity.check(model)
        return cls(sparsity, mean_sparsity(model.shape, sparsity))

    def shares(self, name: str) -> tuple[tuple[float, float], ...]:
        """Sparsities of a matrix and the share of the layers that have each."""
        return self.every.shares(name) if isinstance(self.every, Sparsities) else ((self.every, 1.0),)


def choose(
    model: str | LanguageModel,
    gpu: str | Device,
    *,
    batch: int,
    sparsity: float | Sparsities = 0.0,
    gpus: int = 1,
    formats: Sequence[str] = (),
    lossless_only: bool = False,
    unmeasured: bool = False,
    kernels: Sequence[str] = (),
    launch: Launch = Launch.STREAM,
) -> Choice:
    """Compare all kernels on all weight matrices of a model in one decoding step.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records; of a quantised checkpoint too, dense is its weights in 16 bits.
    batch : int
        Sequences, each with one token in flight.
    sparsity : float or Sparsities
        Fraction of zeros in the prunable matrices, 0 to 1, or that of each matrix in each layer; a pattern that drops
        more (on average) takes part by its format only.
    gpus : int
        Degree of tensor parallelism.
    formats : sequence of str
        Only kernels of these formats, measured or not; all measured ones by default.
    lossless_only : bool
        Leave out quantised formats.
    unmeasured : bool
        Let kernels take part that nobody has measured, whose parameters are assumed.
    kernels : sequence of str
        Only these and dense, of those that would take part; all by default.
    launch : Launch
        How products are launched.

    Raises
    ------
    ValueError
        If a name is unknown, a value is out of range, or no kernel of the formats takes so many tokens.
    """
    record = model if isinstance(model, LanguageModel) else load_model(model)
    card = load_device(gpu)
    batch, gpus = whole_number("batch", batch), whole_number("gpus", gpus)
    formats, kernels = texts("formats", formats), texts("kernels", kernels)
    Call.of(launch=launch)  # refuses what is no launch
    pruned = Pruning.of(record, sparsity)
    share = pruned.mean
    check_split(record, gpus)
    if isinstance(card, Cpu) and gpus > 1:
        raise ValueError(f"gpus is {gpus}, allowed for a CPU is 1: threads are counted in its name, as in {card.key}")
    competing = rivals(formats, lossless_only, unmeasured, KERNELS)
    if kernels:
        _check_competing(kernels, competing, card)
        competing = [model for model in competing if model.name in {*kernels, baseline_of(card)}]
    running = [model for model in competing if model.refusal(card) is None]
    if not running:
        raise ValueError(_nothing_runs(card, competing, kernels))
    running = [model for model in running if formats or not drops_more(model, share)]
    matrices = [(matrix, matrix.layers) for matrix in all_matrices(record.shape, gpus)]
    matrices += [(matrix, 1) for matrix in head_matrices(record.shape, gpus)]
    found = _all_candidates(running, card, matrices, batch, pruned, launch)
    return Choice(record.key, card.key, gpus, batch, share, memory_bytes(card), found)


def _nothing_runs(device: Device, competing: Sequence[KernelModel], kernels: Sequence[str]) -> str:
    """Why no kernel is left, in a sentence."""
    if not competing:
        return f"nothing is known of {', '.join(kernels)}"
    if isinstance(device, Cpu) and any(model.refusal(device) is None for model in KERNELS.values()):
        return f"{competing[0].refusal(device)}; kernels of CPUs that nobody has measured take part by --unmeasured"
    return str(competing[0].refusal(device))


def _check_competing(kernels: Sequence[str], competing: Sequence[KernelModel], gpu: Device) -> None:
    """Refuse kernels that were asked for and cannot take part: unknown, bound, variant, unmeasured, without cores."""
    able = {model.name for model in competing}
    for name in kernels:
        model = kernel_model(name)
        if (refusal := model.refusal(gpu)) is not None:
            raise ValueError(refusal)
        if name not in able:
            why = "only a bound of it is known" if name in BOUNDED else "nobody has measured it"
            if name in VARIANTS:
                why = f"it is a slower variant of {VARIANTS[name]}, which does"
            raise ValueError(f"kernel {name!r} takes no part: {why}")


def _all_candidates(
    kernels: Sequence[KernelModel],
    gpu: Device,
    matrices: Sequence[tuple[Matrix, int]],
    batch: int,
    pruned: Pruning,
    launch: Launch,
) -> tuple[MatrixChoice, ...]:
    """Each matrix with its candidates: one prediction per kernel, of all matrices at once.

    Active experts are one tall product, as engines multiply them; what sorts tokens is the same for every kernel.
    """
    m, k = (np.array([float(getattr(matrix, axis)) for matrix, _ in matrices]) for axis in "mk")
    active, tokens = (np.array([float(matrix.products(batch)[part]) for matrix, _ in matrices]) for part in range(2))
    repeats = np.array([layers for _, layers in matrices])
    copies = repeats * np.array([float(np.asarray(matrix.experts)) for matrix, _ in matrices])
    each = _Asked(gpu, launch, np.ceil(active * m), k, tokens, repeats, copies, copies * m / np.ceil(active * m))
    baseline_model = KERNELS[baseline_of(gpu)]
    dense = _candidates(baseline_model, each, [((0.0, 1.0),)] * len(matrices))
    shares = [pruned.shares(matrix.name) for matrix, _ in matrices]
    columns = [dense if model is baseline_model else _candidates(model, each, shares) for model in kernels]
    found = []
    for i, (matrix, _) in enumerate(matrices):
        baseline = dense[i]
        assert baseline is not None  # the dense kernel takes any N
        candidates = tuple(c for column in columns if (c := column[i]) is not None) if matrix.prunable else (baseline,)
        if not candidates:
            takes = "; ".join(
                f"of {model.name} only a bound is known" if model.name in BOUNDED
                else f"{model.name} takes N of {model.supported_n}"
                for model in kernels
            )  # fmt: skip
            raise ValueError(f"no kernel of these formats takes {tokens[i]:g} tokens: {takes}")
        sizes = (int(m[i]), int(k[i]), int(tokens[i]), float(repeats[i]), int(copies[i]))
        found.append(MatrixChoice(matrix.name, *sizes, matrix.prunable, baseline, candidates))
    return tuple(found)


@dataclass(frozen=True)
class _Asked:
    """Products of a step, an element a matrix.

    ``m`` counts rows of all active copies, ``copies`` those on the GPU, ``stored`` how many times ``m`` rows they have.
    """

    gpu: Device
    launch: Launch
    m: Array
    k: Array
    tokens: Array
    layers: Array
    copies: Array
    stored: Array


def _candidates(
    model: KernelModel, asked: _Asked, shares: Sequence[Sequence[tuple[float, float]]]
) -> list[Candidate | None]:
    """Candidate of one kernel for each matrix; None where it takes no such N or zeros.

    Layers of different sparsity each take their own time, on the same kernel.
    """
    counts = [len(of) for of in shares]
    place, first = np.repeat(np.arange(len(shares)), counts), np.cumsum([0, *counts[:-1]])
    sparsity, share = (np.array([pair[i] for of in shares for pair in of]) for i in range(2))
    m, k, tokens = asked.m[place], asked.k[place], asked.tokens[place]
    padded = np.asarray(model.padded_n(tokens), dtype=np.float64)
    n = np.where(np.isnan(padded), 1.0, padded)  # computed and thrown away below
    own = np.asarray(model.own_sparsity(sparsity), dtype=np.float64)
    runs = ~np.isnan(padded) & model.has_room(asked.gpu, n, own)
    p = predict(model.name, asked.gpu, m, k, n, np.where(runs, own, model.own_sparsity(1.0)), launch=asked.launch)
    size = np.broadcast_to(model.format.bytes_of(m, k, own), m.shape) * asked.stored[place]
    tiles, splits = _tiling(model, asked.gpu, m, k, n)

    def summed(column: Array) -> list[float]:
        return list(np.add.reduceat(share * column, first).tolist())

    def anywhere(column: NDArray[np.bool_]) -> list[bool]:
        return list(np.logical_or.reduceat(column, first).tolist())

    spans = zip(*(summed(column * asked.layers[place]) for column in (p.time_s, p.lo_s, p.hi_s)), strict=True)
    columns = zip(spans, summed(size), summed(own), anywhere(p.extrapolated), anywhere(~runs | p.at_least), strict=True)
    found: list[Candidate | None] = []
    for i, (span, stored, zeros, extrapolated, unknown) in enumerate(columns):
        main = int(first[i]) + max(range(counts[i]), key=lambda j: shares[i][j][1])
        candidate = Candidate(
            model.name, model.format_name, int(n[main]), Span(*span), stored, str(p.bound[main]), tiles[main],
            splits[main], model.format.change, zeros, extrapolated, p.measured,
        )  # fmt: skip
        found.append(None if unknown else candidate)  # what is known to be a lower bound only is no candidate
    return found


def _tiling(
    model: KernelModel, device: Device, m: Array, k: Array, n: Array
) -> tuple[list[tuple[int, int] | None], list[int | None]]:
    """Output tile and split-K of each product by the rule of the Flash-LLM model; None for other kernels."""
    if model.name != flash.TiledCsl.name:
        return [None] * len(m), [None] * len(m)
    machine = Machine.of(device)
    rows, stored = flash.block_rows(n), flash.stored_tokens(n)
    blocks = ceil_div(m, rows) * ceil_div(n, stored)
    split = flash.split_k(blocks, machine.sm_count * flash.blocks_per_sm(machine, n), ceil_div(k, flash.TILE_K))
    tiles = [(int(row), int(column)) for row, column in zip(rows, stored, strict=True)]
    return list(tiles), [int(value) for value in split]
