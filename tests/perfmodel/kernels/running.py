"""Which kernels run on which GPUs: what tests over all kernels and all GPUs go through."""

from __future__ import annotations

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import CPU_KERNELS, GPU_KERNELS, KERNELS
from perfmodel.kernels.fits import kernel_fits

PAIRS = [(gpu, kernel) for gpu in gpu_names() for kernel in GPU_KERNELS]
REFUSED = [(gpu, kernel) for gpu, kernel in PAIRS if KERNELS[kernel].refusal(load_gpu(gpu)) is not None]
# Streamed kernels fit the shared memory of some GPUs at some sparsities and tokens only.
CRAMPED = [
    (gpu, kernel)
    for gpu, kernel in PAIRS
    if (gpu, kernel) not in REFUSED and not KERNELS[kernel].has_room(load_gpu(gpu), [8, 16, 32, 64], 0.0).all()
]
RUNNING = [pair for pair in PAIRS if pair not in (*REFUSED, *CRAMPED)]
CPU = "xeon-emerald-rapids-2c@2"
EVERYTHING = "b200"  # a GPU that refuses no kernel


def tokens(kernel: str, n: int = 8) -> int:
    """``n``, or the one token that some kernels take."""
    return n if float(KERNELS[kernel].padded_n(n)) == n else 1


def at_sparsity(kernel: str, asked: float = 0.8) -> float:
    """``asked``, or the sparsity of the kernel's pattern."""
    return float(KERNELS[kernel].own_sparsity(asked))


def home(kernel: str) -> str:
    """A device the kernel was fitted on; for one that nobody measured, an A100 or else the GPU that runs everything."""
    if kernel in kernel_fits():
        return kernel_fits()[kernel].gpus[0]
    if kernel in CPU_KERNELS:
        return CPU
    return "a100-80gb" if ("a100-80gb", kernel) in RUNNING else EVERYTHING
