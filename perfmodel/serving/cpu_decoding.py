"""How long does a decoding step of a whole model take on a CPU, with one kernel for all its matrices?

The sum of its products, of reading the KV cache, and of what the host does between them. Between two visits of a matrix
the step reads all the others, so the working set of every product is all the weights together: a small model stays in
the last-level cache, a large one comes from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.catalog.cpu import Cpu
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.formats import check_sparsity
from perfmodel.kernels import Call, KernelModel, Machine, Shape, kernel_model
from perfmodel.kernels.base import free
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.transformer import Matrix, all_matrices, cache_bytes, head_matrices
from perfmodel.units import FP32_BYTES


@dataclass(frozen=True)
class CpuHostParameters:
    """Seconds of everything that is no product and reads no cache: assumed, until whole models are measured."""

    layer_s: float = free(150e-6, 20e-6, 1e-3, "seconds of norms, rotations, softmax and calls in a layer")
    step_s: float = free(200e-6, 20e-6, 5e-3, "seconds of embedding, final norm and choice of a token in a step")


@dataclass(frozen=True)
class CpuStep:
    """Seconds of a decoding step, by what takes them."""

    products_s: float
    cache_s: float
    host_s: float
    weight_bytes: float

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return self.products_s + self.cache_s + self.host_s


def decode_step_s(
    model: LanguageModel,
    cpu: Cpu,
    kernel: str,
    batch: int,
    context: int,
    sparsity: float = 0.0,
    host: CpuHostParameters | None = None,
) -> CpuStep:
    """Seconds of one token for each of ``batch`` sequences.

    Parameters
    ----------
    kernel
        Of a CPU, for all matrices; those that pruning leaves alone (the LM head) are read without zeros.
    batch, context
        Sequences, and tokens in the cache of each; at least 1.
    sparsity
        Fraction of zeros in the prunable matrices.

    Raises
    ------
    ValueError
        If the kernel does not run on the CPU, or a value is out of range; the message names it.
    """
    chosen, share = kernel_model(kernel), float(check_sparsity(sparsity))
    if (refusal := chosen.refusal(cpu)) is not None:
        raise ValueError(refusal)
    for name, value in (("batch", batch), ("context", context)):
        if value < 1:
            raise ValueError(f"{name} is {value}, allowed is at least 1")
    machine, shape = Machine.of(cpu), model.shape
    products_s, weight_bytes = _products(chosen, machine, [*all_matrices(shape), *head_matrices(shape)], batch, share)
    cached = batch * float(cache_bytes(shape, context, value_bytes=FP32_BYTES))
    cache_s = cached / float(machine.read_rate(weight_bytes + cached))
    between = host or CpuHostParameters()
    return CpuStep(products_s, cache_s, shape.layers * between.layer_s + between.step_s, weight_bytes)


def _products(
    model: KernelModel, machine: Machine, matrices: list[Matrix], batch: int, sparsity: float
) -> tuple[float, float]:
    """Seconds of all products of a step, and the bytes of all weights.

    Active experts are one tall product.
    """
    active, tokens = (np.array([float(matrix.products(batch)[part]) for matrix in matrices]) for part in range(2))
    layers, copies = (
        np.array([float(np.asarray(getattr(x, name))) for x in matrices]) for name in ("layers", "experts")
    )
    m, k = (np.array([float(getattr(matrix, axis)) for matrix in matrices]) for axis in "mk")
    zeros = np.where([matrix.prunable for matrix in matrices], sparsity, 0.0)
    stored = layers * copies * model.format.bytes_of(m, k, zeros)
    shape = Shape.of(np.ceil(active * m), k, tokens, zeros)
    each = model.format.bytes_of(shape.m, k, zeros)
    call = Call(warm=True, copies=stored.sum() / each)
    return float(np.sum(layers * model.time(machine, shape, calibrated(model.name), call).time_s)), float(stored.sum())
