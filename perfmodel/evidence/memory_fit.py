"""Which share of its datasheet's rate does each kind of memory reach in a long read?

The dense kernel is the one that everybody has timed, and below 64 tokens it does little but read. So the shares are
fitted together with its free parameters, on the rows that `FIT_RULES` gives it: one share for each family of
`memory_family`. They are stored on their own, because every kernel's reads go through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.kernel_fit import FIT_RULES, fitted_rows, residuals, solve
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.kernels.base import free
from perfmodel.kernels.dense import DenseParameters
from perfmodel.kernels.limits import SHARE, ecc_share, memory_family

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenseAndShares(DenseParameters):
    """Free parameters of the dense kernel, and the share of each family of memory."""

    hbm: float = free(0.86, 0.5, 1.0, "streamed share of HBM2 and HBM3")
    hbm2e: float = free(0.82, 0.5, 1.0, "streamed share of the A100-80GB's HBM2e")
    gddr: float = free(0.9, 0.5, 1.0, "streamed share of GDDR6 and GDDR6X")

    @property
    def shares(self) -> dict[str, float]:
        """Share by family."""
        return {"HBM": self.hbm, "HBM2e": self.hbm2e, "GDDR": self.gddr}


def fit_memory(evidence: pd.DataFrame) -> dict[str, FittedKernel]:
    """Shares by family; the result is what ``data/calibration/memory.json`` holds."""
    model, chosen = KERNELS[BASELINE], fitted_rows(evidence) & (evidence["kernel"] == BASELINE).to_numpy()
    rows = evidence[chosen].reset_index(drop=True)
    memories = {gpu: load_gpu(gpu).dram for gpu in rows["gpu"].unique()}
    family = rows["gpu"].map({gpu: memory_family(dram) for gpu, dram in memories.items()})
    ecc = rows["gpu"].map({gpu: ecc_share(dram) for gpu, dram in memories.items()}).to_numpy()

    def dram_share(parameters: DenseAndShares) -> Array:
        return ecc * family.map(parameters.shares).to_numpy(dtype=np.float64)

    best = solve(model, rows, start=DenseAndShares(), dram_share=dram_share)
    size = np.abs(np.expm1(residuals(model, rows, dram_share)(best)))
    return {name: _stored(share, rows, (family == name).to_numpy(), size) for name, share in best.shares.items()}


def _stored(share: float, rows: pd.DataFrame, chosen: NDArray[np.bool_], size: Array) -> FittedKernel:
    used = [rule for rule in FIT_RULES if (rule.select(rows) & chosen).any()]
    return FittedKernel(
        parameters={SHARE: share},
        fitted_on="; ".join(rule.describe() for rule in used),
        gpus=sorted(rows.loc[chosen, "gpu"].unique()),
        rows=int(chosen.sum()),
        mean_absolute_error=float(f"{size[chosen].mean():.4g}"),
        evidence_range={
            axis: (float(rows.loc[chosen, axis].min()), float(rows.loc[chosen, axis].max())) for axis in "mkn"
        },
    )
