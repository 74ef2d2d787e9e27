"""The tables behind the charts, each of the models' own records: nothing here knows a page or its state."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfmodel.analysis import layer_times
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.specs import Gpu
from perfmodel.kernels import KERNELS, VARIANTS
from perfmodel.kernels.rivals import drops_more, rivals, standing
from perfmodel.prediction import predict_all
from perfmodel.roofline import MemoryLevel, intensity
from perfmodel.serving.run import Serving
from perfmodel.serving.systems import load_system
from perfmodel.units import GIGA, MICRO

SPARSITIES = np.round(np.linspace(0.0, 1.0, 101), 2)


def kernel_table(gpu: Gpu, product: tuple[int, int, int], zeros: float) -> pd.DataFrame:
    """`View.all_kernels` of a product's ``m, k, n``."""
    m, k, n = product
    rows = []
    for padded, p in predict_all(gpu, m, k, n, zeros):
        model = KERNELS[p.kernel]
        own = float(model.own_sparsity(zeros))
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
                "competes": bool(known and not drops_more(model, zeros)),
                "intensity": float(intensity(model.format, MemoryLevel.DRAM, m, k, n, own)),
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


def throughput_table(system: str, batches: np.ndarray, run: Serving) -> pd.DataFrame:
    """Rows of `View.throughput` of one system."""
    columns = {"batch": batches, "tokens_per_gpu_s": run.tokens_per_gpu_s, "fits": run.memory.fits}
    return pd.DataFrame({"system": system, "title": load_system(system).title, **columns})


def speedup_table(gpu: Gpu, model: LanguageModel, batch: int, *, unmeasured: bool) -> pd.DataFrame:
    """`View.speedups`: kernels that prune and take this batch, and the fastest that keeps all weights."""

    def speedups(kernel: str, sparsity: np.ndarray, kind: str) -> pd.DataFrame:
        own, dense = layer_times(kernel, gpu, model, batch, sparsity)
        columns = {"sparsity": sparsity, "speedup": np.broadcast_to(dense / own, sparsity.shape), "kind": kind}
        return pd.DataFrame({"kernel": kernel, "title": short_title(kernel), **columns})

    running = [one for one in KERNELS.values() if one.refusal(gpu) is None]
    measured = {one.name for one in rivals()}
    tables = []
    for one in running:
        if one.name not in measured and not unmeasured:
            continue
        if one.format.depends_on_sparsity:
            table = speedups(one.name, SPARSITIES, "curve")
            tables += [] if table["speedup"].isna().any() else [table]
        elif one.patterns:
            tables.append(speedups(one.name, np.array(sorted(one.patterns)), "pattern").dropna())
    whole = [one.name for one in running if one.name in measured and not one.format.prunes]
    kept = [speedups(name, np.zeros(1), "whole").dropna() for name in whole]
    fastest = max((table for table in kept if len(table)), key=lambda table: float(table["speedup"].iloc[0]))
    return pd.concat([*tables, fastest], ignore_index=True)
