"""Closed-form kernel models, one file a family; `KERNELS` maps the name users type to its model.

`base` is what they share, `registry` lists them, `fits` reads the parameters in use and says where evidence ends.
"""

from perfmodel.kernels.base import Call, KernelModel, KernelTime, Machine, Shape
from perfmodel.kernels.registry import BASELINE, BOUNDED, KERNELS, VARIANTS, kernel_model

__all__ = [
    "BASELINE", "BOUNDED", "KERNELS", "VARIANTS", "Call", "KernelModel", "KernelTime", "Machine", "Shape",
    "kernel_model",
]  # fmt: skip
