"""One product on a real GPU, as the bench, the check and the planner launch it: random problems, copies, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.timing import Library
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.gpu.launch import launches, make_plan, with_aligned_rows

# Marks of outputs that no block wrote: NaN, and its bits where no library has the type.
POISON = {Element.FLOAT16: (np.float16, np.nan), Element.BFLOAT16: (np.int16, 0x7FFF)}
L2_FACTOR = 3
MAX_COPIES = 24
# What one element may err by: half a unit in the last place of fp16, and a share of the output's root mean square,
# far above what float32 sums of 50,000 terms lose, and below what one lost weight changes.
UNIT = 2.0**-11
SHARE = 2.0**-10


@dataclass(frozen=True)
class Gpu:
    """The GPU at hand: key in the catalogue, what plans need, and the measured rate of a device-to-device copy."""

    key: str
    arch: str
    sm_count: int
    l2_bytes: int
    copy_bytes_per_s: float = float("nan")


def random_weights(m: int, k: int, sparsity: float, rng: np.random.Generator) -> NDArray[np.float16]:
    """fp16 matrix with random values, 0.5 to 2 of either sign, at random places; sparsity to 1/65536."""
    bits, places = (_random_words(m * k, rng).reshape(m, k) for _ in range(2))
    bits &= np.uint16(0x87FF)  # keep the sign, the last bit of the exponent and the fraction
    bits |= np.uint16(0x3800)
    bits *= places >= round(2**16 * sparsity)
    return bits.view(np.float16)


def _random_words(count: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Random 16-bit words, as fast as the generator makes bits."""
    return rng.bit_generator.random_raw(-(-count // 4)).view(np.uint16)[:count]


def copies_beyond_l2(nbytes: int, l2_bytes: int) -> int:
    """Copies of a buffer that together exceed the L2 cache `L2_FACTOR` times, at least 2."""
    return min(MAX_COPIES, max(2, -(-L2_FACTOR * l2_bytes // max(nbytes, 1)) + 1))


def accuracy(actual: NDArray[Any], expected: NDArray[np.float64], unit: float = UNIT, share: float = SHARE) -> float:
    """Relative error of a product of random matrices, ``‖actual - expected‖ / ‖expected‖``.

    An element may err by ``unit`` of itself and ``share`` of the output's root mean square; by default what fp16 needs.

    Raises
    ------
    ArithmeticError
        If an element is not finite or errs by more than rounding explains; names how many and the worst one.
    """
    difference = actual.astype(np.float64) - expected
    scale = float(np.sqrt(np.mean(expected**2)))
    ratio = np.abs(difference) / (unit * np.abs(expected) + share * scale + 1e-30)
    ratio = np.where(np.isfinite(ratio), ratio, np.inf)
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    if ratio[worst] > 1:
        index = tuple(int(i) for i in worst)
        raise ArithmeticError(
            f"{int((ratio > 1).sum())} of {ratio.size} elements are wrong; worst at {index}: "
            f"got {float(actual[worst])}, expected {expected[worst]}"
        )
    return float(np.linalg.norm(difference) / max(float(np.linalg.norm(expected)), 1e-30))


def upload(library: Library, weights: EncodedWeight, copies: int = 1) -> list[dict[str, Any]]:
    """Buffers of ``weights``, as the kernels want them, on the GPU, in some copies."""
    host = with_aligned_rows(weights).buffers.items()
    first = {name: library.asarray(b if b.size else np.zeros(16, b.dtype)) for name, b in host}
    return [first, *({name: library.copy(b) for name, b in first.items()} for _ in range(copies - 1))]


class Product:
    """One of our products on the GPU: plan, x, and output and workspace to be filled."""

    def __init__(self, library: Library, weights: EncodedWeight, x: NDArray[Any], gpu: Gpu, **options: Any):
        self.library, self.weights, self.n = library, with_aligned_rows(weights), x.shape[1]
        self.as_fp32 = options.pop("as_fp32", False)
        self.plan = make_plan(self.weights, self.n, arch=gpu.arch, sm_count=gpu.sm_count, **options)
        padding = ((0, self.plan.k - x.shape[0]), (0, self.plan.n_padded - self.n))
        self.x = library.asarray(np.pad(x, padding))
        dtype, poison = (np.float32, np.nan) if self.as_fp32 else POISON[self.plan.variant.element]
        self.out = library.full((self.plan.m, self.plan.n_padded), dtype, poison)
        shape = self.plan.workspace_shape
        self.workspace = library.full(shape, np.float32, np.nan) if shape else None
        self.flags = library.full((self.plan.flags,), np.uint32, 0) if self.plan.flags else None

    @property
    def bytes(self) -> int:
        """Bytes that the product must move at least: weights, x and output once."""
        itemsize = 4 if self.as_fp32 else 2
        return self.weights.nbytes + 2 * self.plan.k * self.plan.n_padded + itemsize * self.plan.outputs

    def runner(self, buffers: dict[str, Any]) -> Callable[[], None]:
        """Function that puts the product with one copy of the weights on the stream."""
        todo = launches(self.plan, buffers, self.x, self.out, self.workspace, self.flags, as_fp32=self.as_fp32)

        def run() -> None:
            for launch in todo:
                self.library.run(launch)

        return run

    def result(self) -> NDArray[Any]:
        """Output on the host, without padding; bfloat16 as uint16."""
        out = self.library.to_host(self.out)[:, : self.n]
        return out.view(np.uint16) if out.dtype == np.int16 else out
