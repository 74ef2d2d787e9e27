"""What the page shows for a state: tables and sentences, every number of them from `perfmodel`.

Nothing here knows about the browser: the tables can be used from a notebook or a test as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd

from lscd.explorer.state import State
from perfmodel.analysis import crossover_sparsity, layer_times
from perfmodel.catalog import load_gpu, load_model
from perfmodel.evidence.accuracy import Limit, Loss, reaches
from perfmodel.evidence.ways import costs_of
from perfmodel.kernels import GPU_KERNELS, KERNELS, VARIANTS
from perfmodel.kernels.rivals import drops_more, rivals, standing
from perfmodel.prediction import predict_all
from perfmodel.roofline import MemoryLevel, attainable_flops_per_s, intensity, ridge_point
from perfmodel.serving.contenders import change
from perfmodel.serving.planning import BATCHES
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import HOST, load_system
from perfmodel.serving.transformer import layer_matrices
from perfmodel.units import GIGA, MICRO
from perfmodel.worth import SHORTEST_OUTPUT, AtBatch, at_batch

SPARSITIES = np.round(np.linspace(0.0, 1.0, 101), 2)
INTENSITIES = np.geomspace(0.3, 2000.0, 100)


@dataclass(frozen=True)
class View:
    """Everything the page shows for a state, computed when first asked for: facts need not wait for charts."""

    state: State

    @cached_property
    def refusal(self) -> str | None:
        """Why the GPU does not run the chosen system, in a sentence; None where it does."""
        return load_system(self.state.system).refusal(load_gpu(self.state.gpu))

    @property
    def system(self) -> str:
        """The chosen system; dense FasterTransformer, which every GPU runs, in place of one that this GPU refuses."""
        return self.state.system if self.refusal is None else HOST

    @property
    def sparsity(self) -> float:
        """Sparsity at which the system runs: the chosen one, or that of its kernel's pattern."""
        return float(load_system(self.system).own_sparsity(self.state.sparsity))

    @property
    def change(self) -> str:
        """What becomes of the weights in the system, or "not measured"."""
        return change(load_system(self.system), self.state.sparsity)

    @cached_property
    def worth(self) -> AtBatch | None:
        """Sparse kernels against those that keep all weights, with a verdict: as `lscd worth` at this batch.

        None where there is no decoding step to judge.
        """
        s = self.state
        if s.output_len < SHORTEST_OUTPUT:
            return None
        asked = {"gpus": s.gpus, "input_len": s.input_len, "output_len": s.output_len}
        return at_batch(load_model(s.model), load_gpu(s.gpu), s.batch, s.sparsity, kernels=(), **asked)

    @cached_property
    def run(self) -> Serving:
        """The system at the chosen batch."""
        return serve(self.state, self.system, self.state.batch)

    @cached_property
    def dense(self) -> Serving:
        """FasterTransformer with dense weights at the chosen batch."""
        return serve(self.state, HOST, self.state.batch)

    @cached_property
    def crossover(self) -> float | None:
        """Sparsity from which the system's kernel wins on a layer: NaN if it never does, None without such a kernel."""
        kernel = load_system(self.system).kernel
        if kernel is None or not KERNELS[kernel].format.depends_on_sparsity:
            return None
        return float(crossover_sparsity(kernel, self.state.gpu, self.state.model, self.state.batch))

    @cached_property
    def reach(self) -> dict[str, Limit]:
        """Up to which zeros published pruning keeps this model's quality: "one shot", "retrained", as far as known."""
        return _reach(self.state.model)

    @cached_property
    def losses(self) -> dict[str, Loss]:
        """What the system's weights cost this model: "one shot", "retrained", as far as it is published."""
        return costs_of(self.state.model, load_system(self.system).format.name, self.sparsity)

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per kernel that takes this N, perhaps padded; fastest first, those known by a bound only last.

        Columns ``kernel, title, n, time_us, lo_us, hi_us, speedup_vs_dense, bound, extrapolated, measured, at_least,
        standing, sparsity, competes, rank, intensity, flops_per_s``. Where nobody has measured a kernel, anywhere,
        ``measured`` is False; where only a lower bound of its time is known, ``at_least`` is True and ``hi_us``
        missing. ``standing`` says what becomes of the weights, ``sparsity`` is the pattern's where the kernel has one,
        and ``competes`` is False for what may not be called the fastest: known by a bound, not measured, another's
        worse variant, a pattern that drops more weights than asked.
        """
        return kernel_table(self.state)

    @cached_property
    def refused(self) -> dict[str, str]:
        """Kernels that cannot run this product, and why: the GPU lacks what they need, or they do not take this N."""
        gpu, shown = load_gpu(self.state.gpu), set(self.kernels["kernel"])
        left = [model for name, model in GPU_KERNELS.items() if name not in shown]
        full = "records this long leave no room in shared memory"
        words = {m.name: full if m.any_n else f"takes N of {m.supported_n}" for m in left}
        return {model.name: model.refusal(gpu) or words[model.name] for model in left}

    @cached_property
    def roof(self) -> pd.DataFrame:
        """The DRAM roofline of the GPU, with its corner: ``intensity`` [FLOP/B], ``flops_per_s``."""
        gpu = load_gpu(self.state.gpu)
        at = np.sort(np.append(INTENSITIES, self.ridge))
        return pd.DataFrame({"intensity": at, "flops_per_s": attainable_flops_per_s(gpu, at)})

    @cached_property
    def ridge(self) -> float:
        """Intensity of the roof's corner [FLOP/B]."""
        return ridge_point(load_gpu(self.state.gpu))

    @cached_property
    def memory(self) -> pd.DataFrame:
        """What each GPU holds: ``part, gigabytes``."""
        return memory_table(self.run)

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """``system, title, batch, tokens_per_gpu_s, fits``."""
        return throughput_table(self.state, self.system)

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """``kernel, title, sparsity, speedup, kind`` of one decoder layer over cuBLAS.

        ``kind`` is "curve" for kernels that take any sparsity, "pattern" for those of a pattern, at its sparsity, and
        "whole" for the fastest measured one that keeps all weights.
        """
        return speedup_table(self.state)


def view(state: State) -> View:
    """Ask the models what the page shows.

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`: a number out of range, a model that so many GPUs cannot share.
    """
    found = View(state)
    _ = found.run  # checks the state
    return found


def serve(state: State, system: str, batch: int | np.ndarray) -> Serving:
    """The whole-model prediction of a state on ``system``, at its pattern's sparsity if it has one."""
    return evaluate(
        state.model,
        state.gpu,
        system,
        batch=batch,
        input_len=state.input_len,
        output_len=state.output_len,
        sparsity=float(load_system(system).own_sparsity(state.sparsity)),
        gpus=state.gpus,
    )


def product(state: State) -> tuple[int, int, int]:
    """``m, k, n`` of the chosen matrix on one GPU; fewer tokens than the batch in a mixture of experts."""
    matrices = {matrix.name: matrix for matrix in layer_matrices(load_model(state.model).shape, state.gpus)}
    matrix = matrices[state.matrix]
    _, tokens = matrix.products(state.batch)
    return int(matrix.m), int(matrix.k), int(tokens)


def kernel_table(state: State) -> pd.DataFrame:
    """`View.kernels`."""
    gpu = load_gpu(state.gpu)
    m, k, n = product(state)
    rows = []
    for padded, p in predict_all(gpu, m, k, n, state.sparsity):
        model = KERNELS[p.kernel]
        own = float(model.own_sparsity(state.sparsity))
        known = p.measured and not p.at_least and p.kernel not in VARIANTS
        rows.append(
            {
                "kernel": p.kernel,
                "title": short_title(p.kernel),
                "n": padded,
                "time_us": float(p.time_s) / MICRO,
                "lo_us": float(p.lo_s) / MICRO,
                "hi_us": np.nan if p.at_least else float(p.hi_s) / MICRO,
                "speedup_vs_dense": float(p.speedup_vs_dense),
                "bound": str(p.bound.item()),
                "extrapolated": bool(p.extrapolated),
                "measured": p.measured,
                "at_least": bool(p.at_least),
                "standing": standing(model),
                "sparsity": own if model.format.prunes else 0.0,
                "competes": bool(known and not drops_more(model, state.sparsity)),
                "intensity": float(intensity(model.format, MemoryLevel.DRAM, m, k, n, own)),
                "flops_per_s": 2 * m * k * n / float(p.time_s),
            }
        )
    table = pd.DataFrame(rows).sort_values(["at_least", "time_us"], ignore_index=True)
    return table.assign(rank=table.index + 1)


def short_title(kernel: str) -> str:
    """Title of a kernel without what stands in brackets, so that it fits a phone."""
    return KERNELS[kernel].title.split(" (")[0]


def memory_table(run: Serving) -> pd.DataFrame:
    """`View.memory`: bytes of one GPU by purpose, in gigabytes."""
    needed = run.memory
    parts = {
        "weights": needed.weights,
        "KV cache": needed.kv_cache,
        "activations": needed.activations,
        "workspace": needed.workspace,
        "reserve": needed.reserve,
    }
    return pd.DataFrame({"part": list(parts), "gigabytes": [float(bytes_) / GIGA for bytes_ in parts.values()]})


def throughput_table(state: State, system: str) -> pd.DataFrame:
    """`View.throughput`: powers of two and the chosen batch, on the system and on FasterTransformer."""
    batches = np.unique(np.append(BATCHES, state.batch))
    tables = []
    for name in dict.fromkeys((system, HOST)):
        run = serve(state, name, batches)
        columns = {"batch": batches, "tokens_per_gpu_s": run.tokens_per_gpu_s, "fits": run.memory.fits}
        tables.append(pd.DataFrame({"system": name, "title": load_system(name).title, **columns}))
    return pd.concat(tables, ignore_index=True)


def speedup_table(state: State) -> pd.DataFrame:
    """`View.speedups`: kernels that prune and take this batch, and the fastest that keeps all weights."""
    gpu = load_gpu(state.gpu)
    running = [model for model in KERNELS.values() if model.refusal(gpu) is None]
    tables = []
    for model in running:
        if model.format.depends_on_sparsity:
            table = _speedups(state, model.name, SPARSITIES, "curve")
            tables += [] if table["speedup"].isna().any() else [table]
        elif model.patterns:
            table = _speedups(state, model.name, np.array(sorted(model.patterns)), "pattern")
            tables.append(table.dropna())
    measured = {model.name for model in rivals()}
    whole = [model.name for model in running if model.name in measured and not model.format.prunes]
    kept = [_speedups(state, name, np.zeros(1), "whole").dropna() for name in whole]
    fastest = max((table for table in kept if len(table)), key=lambda table: float(table["speedup"].iloc[0]))
    return pd.concat([*tables, fastest], ignore_index=True)


def _speedups(state: State, kernel: str, sparsity: np.ndarray, kind: str) -> pd.DataFrame:
    own, dense = layer_times(kernel, state.gpu, state.model, state.batch, sparsity)
    columns = {"sparsity": sparsity, "speedup": np.broadcast_to(dense / own, sparsity.shape), "kind": kind}
    return pd.DataFrame({"kernel": kernel, "title": short_title(kernel), **columns})


@cache
def _reach(model: str) -> dict[str, Limit]:
    """Reads the evidence once a model."""
    return reaches(model)
