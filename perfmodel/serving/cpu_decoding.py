"""How long does a decoding step of a whole model take on a CPU, with one kernel for all its matrices?

The sum of its products, of attention, and of what the host does between them. Between two visits of a matrix the step
reads all the others, so the working set of every product is all the weights together: a small model stays in the
last-level cache, a large one comes from memory. The host's work is counted in cycles of the clock, so that it carries
to another machine; it is that of our decoder (`kernels_numba.decoder`), which joins weights that share an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.catalog import load_calibration
from perfmodel.catalog.cpu import Cpu
from perfmodel.catalog.decoder import SelfAttention
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.specs import FittedKernel
from perfmodel.formats import check_sparsity
from perfmodel.kernels import Call, Machine, Shape, kernel_model
from perfmodel.kernels.base import free
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.transformer import all_matrices, cache_bytes, head_matrices
from perfmodel.units import FP32_BYTES

CALIBRATION_NAME = "cpu-decoder"


@dataclass(frozen=True)
class CpuHostParameters:
    """Cycles of everything that is no product."""

    layer_cycles: float = free(3e5, 1e4, 3e6, "cycles of calls, norms and rotations in a layer")
    sequence_cycles: float = free(3e4, 0.0, 3e5, "cycles of a layer for each sequence")
    score_cycles: float = free(50.0, 1.0, 1e3, "cycles of a core for a query head and a token of the cache")


@dataclass(frozen=True)
class Weights:
    """Matrices of one size that a step multiplies one after the other.

    m, k : rows and columns of each; fractions of a row where only some experts are visited.
    zeros : share of zeros. tokens : columns of the activations. products, stored : how many a step multiplies, and how
    many there are.
    """

    m: float
    k: float
    zeros: float
    tokens: float
    products: float
    stored: float


@dataclass(frozen=True)
class CpuStep:
    """Seconds of a decoding step, by what takes them."""

    products_s: float
    attention_s: float
    host_s: float
    weight_bytes: float

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return self.products_s + self.attention_s + self.host_s


def host_fit() -> FittedKernel:
    """The stored fit; its ``spread`` says how far predicted steps are from measured ones."""
    return load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME]


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
    share, shape = float(check_sparsity(sparsity)), model.shape
    for name, value in (("batch", batch), ("context", context)):
        if value < 1:
            raise ValueError(f"{name} is {value}, allowed is at least 1")
    weights = []
    for matrix in [*all_matrices(shape), *head_matrices(shape)]:
        active, tokens = (float(part) for part in matrix.products(batch))
        size = float(np.ceil(active * matrix.m)), float(matrix.k), share if matrix.prunable else 0.0
        weights.append(
            Weights(*size, tokens, matrix.layers, matrix.layers * float(np.asarray(matrix.experts)) / active)
        )
    heads = sum(count * part.heads for count, part in shape.parts if isinstance(part, SelfAttention))
    cached = batch * float(cache_bytes(shape, context, value_bytes=FP32_BYTES))
    return step_s(weights, cpu, kernel, batch, context, (shape.layers, heads, cached), host)


def step_s(
    weights: Sequence[Weights],
    cpu: Cpu,
    kernel: str,
    batch: int,
    context: float,
    attention: tuple[int, int, float],
    host: CpuHostParameters | None = None,
) -> CpuStep:
    """Seconds of a step whose matrices are known one by one.

    Parameters
    ----------
    attention
        Layers, query heads of all layers, and bytes of the cache of all sequences.

    Raises
    ------
    ValueError
        As `decode_step_s`.
    """
    model, (layers, heads, cached) = kernel_model(kernel), attention
    if (refusal := model.refusal(cpu)) is not None:
        raise ValueError(refusal)
    machine, between = Machine.of(cpu), CpuHostParameters(**host_fit().parameters) if host is None else host
    m, k, zeros, tokens, products, stored = np.array([list(vars(each).values()) for each in weights]).T
    each = model.format.bytes_of(m, k, zeros)
    weight_bytes = float(np.sum(stored * each))
    call = Call(warm=True, copies=weight_bytes / each)
    times = model.time(machine, Shape.of(m, k, tokens, zeros), calibrated(model.name), call)
    scores_s = between.score_cycles * heads * batch * context / (cpu.clock_hz * cpu.in_use)
    read_s = cached / float(machine.read_rate(weight_bytes + cached))
    cycles = layers * (between.layer_cycles + between.sequence_cycles * batch)
    return CpuStep(float(np.sum(products * times.time_s)), max(scores_s, read_s), cycles / cpu.clock_hz, weight_bytes)
