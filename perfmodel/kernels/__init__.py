"""Closed-form kernel models, one file a family; `KERNELS` maps the name users type to its model.

`base` is what they share, `registry` lists them, `fits` reads the parameters in use and says where evidence ends.
"""

from perfmodel.kernels.base import Call, KernelModel, KernelTime, Machine, Shape
from perfmodel.kernels.registry import (
    BASELINE,
    BASELINES,
    BOUNDED,
    CPU_KERNELS,
    GPU_KERNELS,
    KERNELS,
    VARIANTS,
    baseline_of,
    kernel_model,
    kernels_of,
)

__all__ = [
    "BASELINE", "BASELINES", "BOUNDED", "CPU_KERNELS", "GPU_KERNELS", "KERNELS", "VARIANTS", "Call", "KernelModel",
    "KernelTime", "Machine", "Shape", "baseline_of", "kernel_model", "kernels_of",
]  # fmt: skip
