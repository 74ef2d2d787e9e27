"""Which kernels are modelled: `KERNELS` maps the name users type to its model, those of LSCD_KERNELS included."""

from __future__ import annotations

from perfmodel.catalog.arguments import text
from perfmodel.catalog.cpu import Cpu, Device
from perfmodel.catalog.names import unknown_name
from perfmodel.formats import FORMATS as FORMATS  # all of them, once those of LSCD_KERNELS have joined
from perfmodel.kernels.base import KernelModel, Shape
from perfmodel.kernels.coded_decode import BitmapInt4, BitmapInt8, CondensedInt4, CondensedInt8
from perfmodel.kernels.cpu import CPU_MODELS, CpuKernel, NumpyFp32, TorchBf16
from perfmodel.kernels.csr import Sputnik
from perfmodel.kernels.cusparse import Cusparse
from perfmodel.kernels.decode import Bitmap, Int4, Int8, Macko, QuantLlmW5, QuantLlmW6
from perfmodel.kernels.dense import Dense
from perfmodel.kernels.low_precision import (
    Fp8,
    Fp8Block,
    Int8W8A8,
    MxFp4,
    NvFp4,
    SixEight,
    TwoFour,
    TwoFourFp8,
    TwoFourInt8,
)
from perfmodel.kernels.own import own_kernels
from perfmodel.kernels.register_decode import (
    CondensedDecode,
    CondensedDecodePairs,
    RegisterDecode,
    RegisterDecodePairs,
)
from perfmodel.kernels.sparta import Sparta
from perfmodel.kernels.streamed_decode import (
    StreamedCondensed,
    StreamedCondensedPairs,
    StreamedDecode,
    StreamedDecodePairs,
)
from perfmodel.kernels.tiled_csl import TiledCsl, TiledCslUnordered

_MODELS: tuple[KernelModel, ...] = (
    Dense(),
    TiledCsl(),
    TiledCslUnordered(),
    Sparta(),
    Sputnik(),
    Cusparse(),
    Bitmap(),
    Macko(),
    QuantLlmW6(),
    QuantLlmW5(),
    Int8(),
    Int4(),
    Int8W8A8(),
    Fp8(),
    Fp8Block(),
    NvFp4(),
    MxFp4(),
    TwoFour(),
    SixEight(),
    TwoFourInt8(),
    TwoFourFp8(),
    RegisterDecode(),
    RegisterDecodePairs(),
    CondensedDecode(),
    CondensedDecodePairs(),
    StreamedDecode(),
    StreamedDecodePairs(),
    StreamedCondensed(),
    StreamedCondensedPairs(),
    BitmapInt8(),
    BitmapInt4(),
    CondensedInt8(),
    CondensedInt4(),
)
OWN = own_kernels({model.name for model in (*_MODELS, *CPU_MODELS)})
_ALL = (*_MODELS, *CPU_MODELS, *OWN.models)
GPU_KERNELS: dict[str, KernelModel] = {model.name: model for model in _ALL if not isinstance(model, CpuKernel)}
CPU_KERNELS: dict[str, KernelModel] = {model.name: model for model in _ALL if isinstance(model, CpuKernel)}
KERNELS = GPU_KERNELS | CPU_KERNELS
BASELINE = Dense.name  # of GPUs
BASELINES = (BASELINE, TorchBf16.name, NumpyFp32.name)  # of any device the first that runs there
# Another's work, worse encoded, and whose: no rivals.
VARIANTS = {model.slower_variant: model.name for model in _ALL if model.slower_variant}
BOUNDED = frozenset(model.name for model in _ALL if model.at_least(Shape.of(1, 1, 8, 0.5)))  # for several tokens


def kernels_of(device: Device) -> dict[str, KernelModel]:
    """Kernels of this kind of device, by name, whether it runs them or not."""
    return CPU_KERNELS if isinstance(device, Cpu) else GPU_KERNELS


def baseline_of(device: Device) -> str:
    """Kernel that others are compared with: cuBLAS; on a CPU PyTorch in BF16, or NumPy where that was not measured."""
    if not isinstance(device, Cpu):
        return BASELINE  # also of a GPU that it refuses
    return next(name for name in BASELINES if KERNELS[name].refusal(device) is None)


def kernel_model(name: str) -> KernelModel:
    """Model of the kernel ``name``.

    Raises
    ------
    ValueError
        If there is none; the message suggests the nearest name and lists all.
    """
    text("kernel", name)
    try:
        return KERNELS[name]
    except KeyError:
        raise ValueError(unknown_name("kernel", name, KERNELS)) from None
