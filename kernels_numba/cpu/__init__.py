"""CPU twins of the kernels: what `spmm` runs where there is no GPU."""

from kernels_numba.cpu.kernels import spmm

__all__ = ["spmm"]
