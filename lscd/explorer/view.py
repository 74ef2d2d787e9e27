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
from perfmodel.evidence.feasibility import feasible_sparsity
from perfmodel.kernels import KERNELS
from perfmodel.prediction import predict_all
from perfmodel.roofline import MemoryLevel, attainable_flops_per_s, intensity, ridge_point
from perfmodel.serving.planning import BATCHES
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import HOST, load_system
from perfmodel.serving.transformer import layer_matrices
from perfmodel.units import GIGA, MICRO

SPARSITIES = np.round(np.linspace(0.0, 1.0, 101), 2)
INTENSITIES = np.geomspace(0.3, 2000.0, 100)


@dataclass(frozen=True)
class View:
    """Everything the page shows for a state, computed when first asked for: facts need not wait for charts."""

    state: State

    @cached_property
    def run(self) -> Serving:
        """The chosen system at the chosen batch."""
        return serve(self.state, self.state.system, self.state.batch)

    @cached_property
    def dense(self) -> Serving:
        """FasterTransformer with dense weights at the chosen batch."""
        return serve(self.state, HOST, self.state.batch)

    @cached_property
    def crossover(self) -> float | None:
        """Sparsity from which the system's kernel wins on a layer: NaN if it never does, None without such a kernel."""
        kernel = load_system(self.state.system).kernel
        if kernel is None or not KERNELS[kernel].format.depends_on_sparsity:
            return None
        return float(crossover_sparsity(kernel, self.state.gpu, self.state.model, self.state.batch))

    @cached_property
    def feasible(self) -> tuple[float, float]:
        """Highest sparsity that published pruning supports: in one shot, with retraining."""
        return _feasible()

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per kernel that takes this N, perhaps padded; fastest first, those known by a bound only last.

        Columns ``kernel, title, n, time_us, lo_us, hi_us, speedup_vs_dense, bound, extrapolated, measured, at_least,
        intensity, flops_per_s``. Where nobody has measured a kernel, anywhere, ``measured`` is False; where only a
        lower bound of its time is known, ``at_least`` is True and ``hi_us`` missing.
        """
        return kernel_table(self.state)

    @cached_property
    def refused(self) -> tuple[str, ...]:
        """Kernels that cannot take this N."""
        return tuple(name for name in KERNELS if name not in set(self.kernels["kernel"]))

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
        return throughput_table(self.state)

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """``kernel, title, sparsity, speedup`` of one decoder layer over cuBLAS."""
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
    """The whole-model prediction of a state on ``system``."""
    return evaluate(
        state.model,
        state.gpu,
        system,
        batch=batch,
        input_len=state.input_len,
        output_len=state.output_len,
        sparsity=state.sparsity,
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
        stored = KERNELS[p.kernel].format
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
                "intensity": float(intensity(stored, MemoryLevel.DRAM, m, k, n, state.sparsity)),
                "flops_per_s": 2 * m * k * n / float(p.time_s),
            }
        )
    return pd.DataFrame(rows).sort_values(["at_least", "time_us"], ignore_index=True)


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


def throughput_table(state: State) -> pd.DataFrame:
    """`View.throughput`: powers of two and the chosen batch, on the chosen system and on FasterTransformer."""
    batches = np.unique(np.append(BATCHES, state.batch))
    tables = []
    for name in dict.fromkeys((state.system, HOST)):
        run = serve(state, name, batches)
        columns = {"batch": batches, "tokens_per_gpu_s": run.tokens_per_gpu_s, "fits": run.memory.fits}
        tables.append(pd.DataFrame({"system": name, "title": load_system(name).title, **columns}))
    return pd.concat(tables, ignore_index=True)


def speedup_table(state: State) -> pd.DataFrame:
    """`View.speedups`: kernels whose time depends on sparsity and that take this batch."""
    tables = []
    for name, model in KERNELS.items():
        if not model.format.depends_on_sparsity:
            continue
        own, dense = layer_times(name, state.gpu, state.model, state.batch, SPARSITIES)
        if not np.isnan(own).any():
            speedup = dense / own
            columns = {"kernel": name, "title": short_title(name), "sparsity": SPARSITIES, "speedup": speedup}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


@cache
def _feasible() -> tuple[float, float]:
    """Reads the evidence once."""
    return feasible_sparsity(retrained=False), feasible_sparsity(retrained=True)
