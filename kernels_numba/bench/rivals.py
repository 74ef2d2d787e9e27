"""What else a user could run, where PyTorch has it: 2:4 by cuSPARSELt, FP8 by cuBLASLt, 4-bit weights by tinygemm.

Each is compared with the float64 product of what it really multiplies: its weights and activations after rounding or
pruning. Their accumulation is the vendor's, so they may err by more than ours: `SHARE` of the output's root mean
square.
FP8 activations are quantised beforehand, and the rows say so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.product import Gpu, copies_beyond_l2
from kernels_numba.bench.session import Trial
from kernels_numba.bench.slabs import Matrix
from kernels_numba.bench.timing import AbsentError, Library, Run

BF16_UNIT = 2.0**-8  # one unit in the last place, relative
SHARE = 2.0**-6
FP8_LARGEST = 448.0  # of float8_e4m3fn
INT4_GROUP, INT4_INNER_TILES, INT4_ZERO, INT4_LARGEST = 128, 8, 8, 15


class Rival(ABC):
    """A library's product of other weights than ours.

    weights : tensors on the GPU that a call takes, and that are copied to be read cold.
    exact : (rows, k) float64, the slab as it is really multiplied.
    sparsity : of ``exact``; 0.5 of 2:4.
    """

    activations = "fp16"
    sparsity = 0.0
    weights: tuple[Any, ...]
    exact: NDArray[np.float64]

    def __init__(self, torch: Any, matrix: Matrix):
        self.torch = torch
        self.encode(torch.from_numpy(matrix.slab).cuda(), matrix.times)

    @abstractmethod
    def encode(self, slab: Any, times: int) -> None:
        """Set ``weights``, of the repeated slab, and ``exact``."""

    @abstractmethod
    def inputs(self, x: Any) -> tuple[tuple[Any, ...], Any]:
        """Tensors that a call takes for activations x (n, k), and x as it is really multiplied."""

    @abstractmethod
    def run(self, weights: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The product (n, m)."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights and all that comes with them."""
        return sum(part.element_size() * part.numel() for part in self.weights)


class TwoFour(Rival):
    """The larger two of each four weights, by cuSPARSELt."""

    sparsity = 0.5

    def encode(self, slab: Any, times: int) -> None:
        """Prune and compress."""
        fours = slab.view(slab.shape[0], -1, 4)
        smaller = fours.abs().argsort(dim=-1)[..., :2]
        pruned = fours.scatter(-1, smaller, 0).view_as(slab)
        self.exact = pruned.double().cpu().numpy()
        self.weights = (self.torch._cslt_compress(pruned.repeat(times, 1)),)

    def inputs(self, x: Any) -> tuple[tuple[Any, ...], Any]:
        """Columns as they are."""
        return (x.t(),), x

    def run(self, weights: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The product; cuSPARSELt gives (m, n)."""
        return self.torch._cslt_sparse_mm(*weights, *inputs).t()


class Fp8(Rival):
    """Weights and activations in FP8 (E4M3) with a scale a row, by cuBLASLt or CUTLASS."""

    activations = "quantised"

    def _quantised(self, rows: Any) -> tuple[Any, Any]:
        scales = rows.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_LARGEST
        return (rows.float() / scales).to(self.torch.float8_e4m3fn), scales

    def encode(self, slab: Any, times: int) -> None:
        """Round each row."""
        codes, scales = self._quantised(slab)
        self.exact = (codes.double() * scales.double()).cpu().numpy()
        self.weights = (codes.view(self.torch.uint8).repeat(times, 1), scales.repeat(times, 1))

    def inputs(self, x: Any) -> tuple[tuple[Any, ...], Any]:
        """Round each token."""
        codes, scales = self._quantised(x)
        return (codes, scales), codes.double() * scales.double()

    def run(self, weights: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The product in bfloat16, the only output of scaled rows."""
        (codes, scales), (x, x_scales) = weights, inputs
        return self.torch._scaled_mm(
            x,
            codes.view(self.torch.float8_e4m3fn).t(),
            scale_a=x_scales,
            scale_b=scales.t(),
            out_dtype=self.torch.bfloat16,
            use_fast_accum=True,
        )


class Int4(Rival):
    """4-bit weights with a scale and a zero for each 128, activations in bfloat16, by PyTorch's own kernel."""

    def encode(self, slab: Any, times: int) -> None:
        """Round each group."""
        torch, (m, k) = self.torch, slab.shape
        groups = slab.float().view(m, -1, INT4_GROUP)
        low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
        scales = ((high - low) / INT4_LARGEST).clamp(min=1e-6).to(torch.bfloat16).float()
        codes = ((groups - low) / scales).round().clamp(0, INT4_LARGEST)
        zeros = (low + INT4_ZERO * scales).to(torch.bfloat16).float()
        self.exact = ((codes - INT4_ZERO) * scales + zeros).double().view(m, k).cpu().numpy()
        whole = codes.view(m, k).to(torch.uint8).repeat(times, 1)
        packed = torch._convert_weight_to_int4pack((whole[:, ::2] << 4) | whole[:, 1::2], INT4_INNER_TILES)
        table = torch.cat((scales, zeros), dim=2).to(torch.bfloat16).repeat(times, 1, 1)
        self.weights = packed, table.transpose(0, 1).contiguous()

    def inputs(self, x: Any) -> tuple[tuple[Any, ...], Any]:
        """Round to bfloat16."""
        short = x.to(self.torch.bfloat16)
        return (short,), short

    def run(self, weights: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The product in bfloat16."""
        return self.torch._weight_int4pack_mm(*inputs, weights[0], INT4_GROUP, weights[1])


RIVALS: dict[str, type[Rival]] = {"two-four": TwoFour, "fp8": Fp8, "int4": Int4}


class Output:
    """What the last call returned: these products make their output themselves."""

    def __init__(self) -> None:
        self.tensor: Any = None

    def __setitem__(self, index: object, value: object) -> None:
        self.tensor = None

    def host(self) -> NDArray[Any]:
        """Output (m, n) on the host; raises ArithmeticError if there was no call since it was last set."""
        if self.tensor is None:
            raise ArithmeticError("no output was written")
        result: NDArray[Any] = self.tensor.float().t().cpu().numpy()
        return result


def prepare(family: str, library: Library, gpu: Gpu, matrix: Matrix) -> Callable[[int], list[Trial]]:
    """Put a rival's weights on the GPU; returns what makes its product with n columns.

    Raises
    ------
    AbsentError
        If PyTorch is not there, or refuses the product on this GPU; in its words.
    """
    torch = getattr(library, "torch", None)
    if torch is None:
        raise AbsentError(f"{family} needs PyTorch")
    try:
        rival = RIVALS[family](torch, matrix)
        rival.run(rival.weights, rival.inputs(_tokens(torch, matrix, matrix.x.shape[1]))[0])
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        library.synchronize()  # raises if this was a fault of the GPU
        raise AbsentError(str(error).strip().partition("\n")[0]) from error
    count = copies_beyond_l2(rival.weight_bytes, gpu.l2_bytes)
    copies = [rival.weights, *(tuple(part.clone() for part in rival.weights) for _ in range(count - 1))]
    return lambda n: [_trial(family, rival, copies, matrix, _tokens(torch, matrix, n))]


def _tokens(torch: Any, matrix: Matrix, n: int) -> Any:
    """Activations (n, k), as engines keep them."""
    return torch.from_numpy(np.ascontiguousarray(matrix.activations(n).T)).cuda()


def _trial(family: str, rival: Rival, copies: Sequence[tuple[Any, ...]], matrix: Matrix, x: Any) -> Trial:
    inputs, exact_x = rival.inputs(x)
    out, n = Output(), x.shape[0]
    product = rival.exact @ exact_x.double().t().cpu().numpy()  # (rows, n)

    def runner(weights: tuple[Any, ...]) -> Run:
        def run() -> None:
            out.tensor = rival.run(weights, inputs)

        return run

    moved = rival.weight_bytes + sum(part.element_size() * part.numel() for part in inputs) + 2 * n * matrix.m
    return Trial(
        family,
        (matrix.m, matrix.k, n),
        rival.sparsity,
        [runner(copy) for copy in copies],
        out,
        out.host,
        np.tile(product, (matrix.times, 1)),
        rival.weight_bytes,
        moved,
        unit=BF16_UNIT,
        share=SHARE,
        activations=rival.activations,
    )
