"""What the page shows for a state: tables and sentences, every number of them from `perfmodel`.

Nothing here knows about the browser: the tables can be used from a notebook or a test as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from lscd.explorer.state import LARGEST, State, parted
from lscd.explorer.still import still
from lscd.explorer.tables import kernel_table, memory_table, speedup_table, throughput_table
from perfmodel.analysis import crossover_sparsity
from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.altered import altered
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.evidence.accuracy import Limit, Loss, reaches
from perfmodel.evidence.ways import costs_of
from perfmodel.kernels import GPU_KERNELS, KERNELS
from perfmodel.kernels.fits import kernel_fits, unmeasured_kernels
from perfmodel.kernels.rivals import rivals
from perfmodel.roofline import attainable_flops_per_s, ridge_point
from perfmodel.serving.contenders import change, own_sparsity
from perfmodel.serving.operators import beside, operator_table
from perfmodel.serving.planning import BATCHES
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import load_system
from perfmodel.serving.tradeoff import BATCHES as TRADED
from perfmodel.serving.tradeoff import tradeoff
from perfmodel.serving.transformer import Matrix, layer_matrices, mean_sparsity
from perfmodel.units import MILLI
from perfmodel.worth import SHORTEST_OUTPUT, AtBatch, Worth, at_batch, with_needs

INTENSITIES = np.geomspace(0.3, 2000.0, 100)
KEPT = 100  # questions, two for each page that may be open
READ = "read"  # beside them, the records that they rest on


@dataclass(frozen=True, eq=False)
class Files:
    """What a reader brought: a model, and what pruning leaves in each of its layers. No link holds it."""

    model: LanguageModel | None = None
    zeros: Sparsities | None = None


NOTHING = Files()


@lru_cache(maxsize=KEPT)
def _kept(_settings: tuple[Any, ...], _files: Files) -> dict[str, Any]:
    """What views of a question share whatever is pruned, by property: it stays while a slider of zeros moves."""
    return {}


@dataclass(frozen=True)
class View:
    """Everything the page shows for a state, computed when first asked for: facts need not wait for charts."""

    state: State
    files: Files = NOTHING

    @cached_property
    def kept(self) -> dict[str, Any]:
        """Where properties that are `still` are kept."""
        settings = tuple(value for name, value in vars(self.state).items() if name != "sparsity")
        kept = _kept(settings, self.files)
        read = load_model(self.state.model), load_gpu(self.state.gpu), kernel_fits()
        if any(now is not before for now, before in zip(read, kept.get(READ, read), strict=True)):
            kept.clear()  # a file of theirs was edited
        kept[READ] = read
        return kept

    @still
    def model(self) -> LanguageModel:
        """The reader's own model, or that of the catalogue."""
        return self.files.model or load_model(self.state.model)

    @still
    def gpu(self) -> Gpu:
        """The catalogue's card, or one like it."""
        card, factors = load_gpu(self.state.gpu), self.state.factors
        return altered(card, **factors | ({"price": 1.0} if card.price is None else {}))

    @cached_property
    def zeros(self) -> float | Sparsities:
        """What pruning reaches, everywhere or in each matrix of each layer."""
        return self.state.sparsity if self.files.zeros is None else self.files.zeros

    @cached_property
    def mean_zeros(self) -> float:
        """What pruning reaches, mean of all weights that it touches."""
        zeros = self.zeros
        return mean_sparsity(self.model.shape, zeros) if isinstance(zeros, Sparsities) else zeros

    @still
    def refusal(self) -> str | None:
        """Why the GPU does not run the chosen system, in a sentence; None where it does."""
        return load_system(self.state.system).refusal(self.gpu)

    @property
    def engine(self) -> str:
        """Engine of the chosen system, which every GPU runs, and with dense weights what it is compared with."""
        return parted(self.state.system)[0]

    @property
    def system(self) -> str:
        """The chosen system; its engine with dense weights in place of one that this GPU refuses."""
        return self.state.system if self.refusal is None else self.engine

    @property
    def sparsity(self) -> float:
        """Sparsity at which the system runs: the chosen one, or that of its kernel's pattern."""
        return float(load_system(self.system).own_sparsity(self.mean_zeros))

    @property
    def change(self) -> str:
        """What becomes of the weights in the system, or "not measured"."""
        return change(load_system(self.system), self.mean_zeros, self.model)

    @still
    def matrix(self) -> Matrix:
        """The weight matrix whose kernel times are shown, as one GPU has it."""
        found = {matrix.name: matrix for matrix in layer_matrices(self.model.shape, self.state.gpus)}
        if self.state.matrix == LARGEST:
            prunable = [matrix for matrix in found.values() if matrix.prunable]
            return max(prunable, key=lambda matrix: float(matrix.m) * float(matrix.k))
        if self.state.matrix not in found:
            raise ValueError(unknown_name("matrix", self.state.matrix, (LARGEST, *found)))
        return found[self.state.matrix]

    @still
    def product(self) -> tuple[int, int, int]:
        """``m, k, n`` of that matrix; of one expert, which sees fewer tokens than the batch, in a mixture of them."""
        _, tokens = self.matrix.products(self.state.batch)
        return int(self.matrix.m), int(self.matrix.k), int(tokens)

    @still
    def _lengths(self) -> dict[str, Any]:
        return {"gpus": self.state.gpus, "input_len": self.state.input_len, "output_len": self.state.output_len}

    @cached_property
    def at(self) -> AtBatch | None:
        """Sparse kernels against those that keep all weights, with a verdict: as `lscd worth` at this batch.

        None where there is no decoding step to judge.
        """
        if self.state.output_len < SHORTEST_OUTPUT:
            return None
        pruning = _rivals(self.gpu, prunes=True)
        return self._at(pruning, self._whole) if pruning else self._whole

    @still
    def _whole(self) -> AtBatch:
        """Those that keep all weights."""
        return self._at(_rivals(self.gpu, prunes=False))

    def _at(self, kernels: Sequence[str], known: AtBatch | None = None) -> AtBatch:
        batch = self.state.batch
        return at_batch(self.model, self.gpu, batch, self.zeros, kernels=kernels, known=known, **self._lengths)

    @cached_property
    def worth(self) -> Worth | None:
        """The same with what sparse would need, which takes longer than all else."""
        if self.at is None:
            return None
        s = self.state
        asked = (self.model.key, self.gpu.key, s.gpus, self.mean_zeros, s.input_len, s.output_len)
        return with_needs(Worth(*asked, (self.at,), {}, {}), self.model, self.gpu, self.zeros)

    def serve(self, system: str, batch: int | np.ndarray) -> Serving:
        """The whole-model prediction of ``system``, at its pattern's sparsity if it has one."""
        zeros = own_sparsity(load_system(system), self.zeros)
        return evaluate(self.model, self.gpu, system, batch=batch, sparsity=zeros, **self._lengths)

    @cached_property
    def run(self) -> Serving:
        """The system at the chosen batch."""
        return self.serve(self.system, self.state.batch)

    @still
    def dense(self) -> Serving:
        """Its engine with dense weights at the chosen batch."""
        return self.serve(self.engine, self.state.batch)

    @still
    def crossover(self) -> float | None:
        """Sparsity from which the system's kernel wins on a layer: NaN if it never does, None without such a kernel."""
        kernel = load_system(self.system).kernel
        if kernel is None or not KERNELS[kernel].format.depends_on_sparsity:
            return None
        return float(crossover_sparsity(kernel, self.gpu, self.model, self.state.batch))

    @still
    def reach(self) -> dict[str, Limit]:
        """Up to which zeros published pruning keeps this model's quality: "one shot", "retrained", as far as known."""
        return reaches(self.model.key)

    @cached_property
    def losses(self) -> dict[str, Loss]:
        """What the system's weights cost this model: "one shot", "retrained", as far as it is published."""
        return costs_of(self.model.key, load_system(self.system).format.name, self.sparsity)

    @cached_property
    def all_kernels(self) -> pd.DataFrame:
        """`kernels` with those that nobody has measured."""
        return kernel_table(self.gpu, self.product, self.mean_zeros)

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per kernel that takes this N, perhaps padded; fastest first, those known by a bound only last.

        Columns ``kernel, title, n, time_us, lo_us, hi_us, speedup_vs_dense, bound, extrapolated, measured, at_least,
        standing, sparsity, competes, rank, intensity, flops_per_s``. Where nobody has measured a kernel, anywhere,
        ``measured`` is False, and it is here only if the state asks for it; where only a lower bound of its time is
        known, ``at_least`` is True and ``hi_us`` missing. ``standing`` says what becomes of the weights, ``sparsity``
        is the pattern's where the kernel has one, and ``competes`` is False for what may not be called the fastest:
        known by a bound, not measured, another's worse variant, a pattern that drops more weights than asked.
        """
        table = self.all_kernels
        table = table[table["measured"] | self.state.unmeasured].reset_index(drop=True)
        return table.assign(rank=table.index + 1)

    @still
    def hidden(self) -> tuple[str, ...]:
        """Kernels that are not shown because nobody has measured them."""
        return () if self.state.unmeasured else tuple(sorted(set(unmeasured_kernels()) & set(GPU_KERNELS)))

    @cached_property
    def refused(self) -> dict[str, str]:
        """Kernels that cannot run this product, and why: the GPU lacks what they need, or they do not take this N."""
        able = set(self.all_kernels["kernel"]) | (set() if self.state.unmeasured else set(unmeasured_kernels()))
        left = [model for name, model in GPU_KERNELS.items() if name not in able]
        full = "records this long leave no room in shared memory"
        words = {m.name: full if m.any_n else f"takes N of {m.supported_n}" for m in left}
        return {model.name: model.refusal(self.gpu) or words[model.name] for model in left}

    @still
    def roof(self) -> pd.DataFrame:
        """The DRAM roofline of the GPU, with its corner: ``intensity`` [FLOP/B], ``flops_per_s``."""
        at = np.sort(np.append(INTENSITIES, self.ridge))
        return pd.DataFrame({"intensity": at, "flops_per_s": attainable_flops_per_s(self.gpu, at)})

    @still
    def ridge(self) -> float:
        """Intensity of the roof's corner [FLOP/B]."""
        return ridge_point(self.gpu)

    @cached_property
    def memory(self) -> pd.DataFrame:
        """What each GPU holds: ``part, gigabytes``."""
        return memory_table(self.run)

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """``system, title, batch, tokens_per_gpu_s, fits``: powers of two and the chosen batch; dense beside it."""
        own = [] if self.system == self.engine else [self._throughput_of(self.system)]
        return pd.concat([*own, self._dense_throughput], ignore_index=True)

    @still
    def _dense_throughput(self) -> pd.DataFrame:
        return self._throughput_of(self.engine)

    def _throughput_of(self, system: str) -> pd.DataFrame:
        batches = np.unique(np.append(BATCHES, self.state.batch))
        return throughput_table(system, batches, self.serve(system, batches))

    @still
    def speedups(self) -> pd.DataFrame:
        """``kernel, title, sparsity, speedup, kind`` of one decoder layer over cuBLAS.

        ``kind`` is "curve" for kernels that take any sparsity, "pattern" for those of a pattern, at its sparsity, and
        "whole" for the fastest measured one that keeps all weights.
        """
        return speedup_table(self.gpu, self.model, self.state.batch, unmeasured=self.state.unmeasured)

    @cached_property
    def operators(self) -> pd.DataFrame:
        """`perfmodel.serving.operators` of the system, each beside its time with dense weights."""
        return beside(self._operators(self.system), self.dense_operators)

    @still
    def dense_operators(self) -> pd.DataFrame:
        """The same of its engine with dense weights, with their own FLOP and bytes."""
        return self._operators(self.engine)

    def _operators(self, system: str) -> pd.DataFrame:
        zeros = own_sparsity(load_system(system), self.zeros)
        return operator_table(self.model, self.gpu, system, batch=self.state.batch, sparsity=zeros, **self._lengths)

    @cached_property
    def tradeoff(self) -> pd.DataFrame:
        """`perfmodel.serving.tradeoff` of every weight format of the engine, within the limits of the state."""
        s = self.state
        limits: dict[str, Any] = {"ttft_s": s.ttft_ms * MILLI, "tpot_s": s.tpot_ms * MILLI}
        return tradeoff(
            self.model, self.gpu, batches=sorted({*TRADED, s.batch}), sparsity=self.zeros, engine=self.engine,
            unmeasured=s.unmeasured, served=s.served, **limits, **self._lengths,
        )  # fmt: skip


def view(state: State, files: Files = NOTHING) -> View:
    """Ask the models what the page shows.

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`: a number out of range, a model that so many GPUs cannot share; a matrix that
        the model does not have.
    """
    found = View(state, files)
    _ = found.run, found.product  # check the state
    return found


def _rivals(gpu: Gpu, *, prunes: bool) -> tuple[str, ...]:
    """Kernels that the verdict weighs: measured, and the GPU runs them."""
    return tuple(one.name for one in rivals() if one.refusal(gpu) is None and one.format.prunes == prunes)
