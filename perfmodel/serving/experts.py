"""How long does a layer of experts take, multiplied by one grouped kernel a matrix?

Engines launch one kernel for all experts that got a token, not one product an expert. Its time is that of **one tall
product**: ``active`` experts of ``m x k`` read the bytes and fill the SMs of a matrix ``(active m) x k``, times as many
columns as an expert has tokens. So whatever kernel model times plain products times experts too, a sparse or quantised
one as well. What grouping costs beyond that is stated as more columns to multiply (tiles of experts are filled worse
and tuned less) and as kernels around the two products: sort tokens by expert, gather, activation, weighted sum.

Which experts get a token is a question of routing. With ``skew = 0`` every expert is as probable as any other and
tokens choose independently, what routers are trained to; ``skew`` above 0 is the exponent of a power law, the synthetic
load that engines are benchmarked with (1.01 and 1.2 in AIConfigurator): tokens of an expert spread over the
density ``x**-skew`` from 1 to 0.8 of all tokens, or over a range of 200 where there are fewer choices than experts.

Where experts are spread over GPUs whole, the layer waits for the GPU with the most tokens. Letters: n tokens, E
experts, a of them visited by a token, p GPUs that spread the experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Bound, Gpu
from perfmodel.kernels.base import Machine, free
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.work import UNCOUNTED, Cost, Work
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
Answer = TypeVar("Answer")  # to a plain product of rows of weights with columns of inputs: its seconds, or more

CALIBRATION_NAME = "experts"
FIRST_WARP_GROUPS = 9.0  # compute capability from which Tensor Cores are fed by groups of four warps: Hopper
FUSED_MAJOR = 10  # of data-centre Blackwell, where engines run FlashInfer's kernels of TensorRT-LLM
MOST_SHARE = 0.8  # of all tokens that the power law gives one expert at most
FEW_RANGE = (0.01, 2.0)  # of the power law where there are fewer choices than experts
HALF = 0.5  # tokens; loads below round to none
HIDDEN_PASSES, INNER_PASSES = 4, 4  # gather, its read, result, its sum; gate and up, their product, its read


@dataclass(frozen=True)
class ExpertParameters:
    """Free parameters of grouped products, the same for all models, engines and kernels."""

    tensor_share: float = free(0.8, 0.3, 1.5, "Tensor-Core rate of a grouped product, in that of a plain one")
    warp_tensor_share: float = free(0.6, 0.2, 1.5, "the same on cards before Hopper")
    uneven_share: float = free(0.2, 0.0, 2.0, "columns more to multiply, per relative spread of the experts' tokens")
    moved_share: float = free(1.0, 0.0, 4.0, "bytes moved between the products, in those if each step goes to memory")
    launches_s: float = free(2e-5, 1e-6, 1e-4, "seconds of the layer's small kernels: sort, gather, activation, sum")
    fused_s: float = free(5e-6, 1e-7, 5e-5, "the same where most of them are part of the products")


def calibrated_experts() -> ExpertParameters:
    """The stored fit."""
    return ExpertParameters(**load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].parameters)


@dataclass(frozen=True)
class Load:
    """Tokens of the experts on the GPU that has the most of them; arrays that broadcast.

    ``active`` experts have at least one token and ``each`` on average; ``spread`` is the standard deviation of an
    expert's tokens over their mean.
    """

    active: Array
    each: Array
    spread: Array

    @property
    def rows(self) -> Array:
        """Pairs of token and expert on this GPU."""
        return self.active * self.each


def active_experts(
    tokens: ArrayLike, experts: ArrayLike, per_token: ArrayLike, skew: float = 0.0, gpus: ArrayLike = 1
) -> Load:
    """Experts that get a token, and how many each, on the busiest of ``gpus`` GPUs.

    Parameters
    ----------
    tokens, experts, per_token
        Tokens that choose, experts on all GPUs, experts that a token chooses.
    skew
        0: uniform and independent, ``E (1 - (1 - a / E)**n)`` experts get a token. Above: exponent of the power law.
    gpus
        GPUs that spread the experts. All have the same number, so the busiest is so by chance or by popular experts.

    Raises
    ------
    ValueError
        If ``skew`` is negative, or a token chooses more experts than there are; names the value.

    Notes
    -----
    The power law is taken at its expectation: loads below half a token round to none, and what they and loads above n
    miss goes to experts without any. Active experts come within 3 % of the published generator, tokens of the busiest
    GPU within 10 %, but 20 to 30 % low where a GPU has one or two experts.

    Examples
    --------
    >>> load = active_experts(16, 128, 8)
    >>> float(load.active.round(1)), float(load.each.round(2))
    (82.4, 1.55)
    """
    n, e, a, p = (np.asarray(value, dtype=np.float64) for value in (tokens, experts, per_token, gpus))
    if not skew >= 0:
        raise ValueError(f"skew must be at least 0, got {skew:g}")
    if np.any(~(a <= e)):
        raise ValueError(f"per_token must be at most experts, got {float(np.max(a)):g} of {float(np.min(e)):g}")
    local, mean = e / p, n * a / p
    if skew > 0:
        chosen, spread = _power_law(n, e, a, skew)
        deviation = spread / np.sqrt(local)
    else:
        chosen, spread = e * (1 - (1 - a / e) ** n), None
        deviation = np.sqrt((1 - 1 / p) / mean)
    most = n * np.minimum(local, a)
    rows = np.maximum(np.minimum(mean * (1 + deviation * _expected_maximum(p)), most), 1.0)
    # More tokens find more experts, but never more than there are.
    active = np.clip(local * (1 - (1 - chosen / e) ** (rows / mean)), 1.0, np.minimum(local, rows))
    each = np.maximum(rows / active, 1.0)
    return Load(active, each, 1 / np.sqrt(each) if spread is None else spread)


def _expected_maximum(count: Array) -> Array:
    """Expected largest of ``count`` standard normal numbers: Blom's rank, Tukey's lambda for the quantile; 1 %."""
    rank = (count - 0.375) / (count + 0.25)
    return np.asarray(4.91 * (rank**0.14 - (1 - rank) ** 0.14))


def _power_law(n: Array, e: Array, a: Array, skew: float) -> tuple[Array, Array]:
    """Experts with a token under the power law, and the relative spread of their loads."""
    many = n * a > e
    low, high = np.where(many, 1.0, FEW_RANGE[0]), np.where(many, np.maximum(MOST_SHARE * n, 1.1), FEW_RANGE[1])
    total = _moment(0, low, high, skew)
    mean = _moment(1, low, high, skew) / total
    scale = n * a / e / mean

    def above(power: int, load: Array | float) -> Array:
        return _moment(power, np.clip(load / scale, low, high), high, skew) / total

    dropped = scale * (mean - above(1, HALF)) + scale * above(1, n) - n * above(0, n)
    chosen = np.minimum(e * (above(0, HALF) + dropped), np.minimum(e, n * a))
    return chosen, np.sqrt(_moment(2, low, high, skew) / total / mean**2 - 1)


def _moment(power: int, low: Array, high: Array, skew: float) -> Array:
    """Integral of ``x**(power - skew)``."""
    exponent = power + 1 - skew
    if abs(exponent) < 1e-9:  # where the power is a logarithm
        return np.asarray(np.log(high / low))
    return np.asarray((high**exponent - low**exponent) / exponent)


def grouped_product_s(
    gpu: Gpu,
    product_s: Callable[[Array, Array], Answer],
    m: ArrayLike,
    load: Load,
    parameters: ExpertParameters | None = None,
) -> Answer:
    """Seconds of one matrix of all active experts, launched once; or what else ``product_s`` says of a product.

    Parameters
    ----------
    product_s
        Seconds of a plain product of so many rows of weights with so many tokens, by the kernel model of the experts'
        format, launch included; it knows K and the sparsity.
    m
        Rows of one expert's matrix on this GPU.

    Notes
    -----
    ``product_s(active m, each / share (1 + uneven_share spread))``: what the kernel spends on bytes is left alone, what
    it spends on Tensor Cores grows. One token stays one column, so that kernels of a vector still apply.

    Examples
    --------
    Without parameters that cost anything, 82.4 experts of 100 rows are 8240 rows.

    >>> from perfmodel.catalog import load_gpu
    >>> free_of_cost = ExpertParameters(1, 1, 0, 0, 0, 0)
    >>> load = active_experts(16, 128, 8)
    >>> grouped_product_s(load_gpu("h100"), lambda rows, n: rows, 100, load, free_of_cost).round(-1)
    np.float64(8240.0)
    """
    c = calibrated_experts() if parameters is None else parameters
    share = c.tensor_share if float(gpu.compute_capability) >= FIRST_WARP_GROUPS else c.warp_tensor_share
    columns = np.maximum(load.each / share * (1 + c.uneven_share * load.spread), 1.0)
    rows = np.ceil(load.active * np.asarray(m, dtype=np.float64))  # formats pad whole rows
    return product_s(rows, np.where(load.each > 1, columns, 1.0))


def fuses_experts(gpu: Gpu) -> bool:
    """Whether engines have kernels there that sort, gather, activate and sum as part of the products."""
    return not gpu.architecture.amd and int(float(gpu.compute_capability)) == FUSED_MAJOR


def permutation(
    gpu: Gpu, rows: ArrayLike, hidden: ArrayLike, inter: ArrayLike, parameters: ExpertParameters | None = None
) -> Cost:
    """All between router and residual that is no product: sort, gather, activation, weighted sum.

    Without softmax and top-k of the router, which are a small kernel as any other.

    ``rows`` are `Load.rows`, ``hidden`` the features of a token, ``inter`` an expert's inner ones on this GPU.
    """
    c = calibrated_experts() if parameters is None else parameters
    values = HIDDEN_PASSES * np.asarray(hidden, dtype=np.float64) + INNER_PASSES * np.asarray(inter, dtype=np.float64)
    moved = c.moved_share * FP16_BYTES * np.asarray(rows, dtype=np.float64) * values
    started_s, moved_s = c.fused_s if fuses_experts(gpu) else c.launches_s, moved / Machine.of(gpu).streamed_bytes_per_s
    terms = {Bound.LATENCY: np.asarray(started_s), Bound.MEMORY: np.asarray(moved_s)}
    return Cost(np.asarray(started_s + moved_s), terms, Work(UNCOUNTED, activation_bytes=np.asarray(moved)))
