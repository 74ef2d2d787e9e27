"""How long does one layer's attention take on one GPU, for a token that is decoded and for a prompt?

Kernels in the style of FlashAttention and FlashDecoding, whose scores never leave an SM. Decoding reads the cache, a
prompt multiplies. Per layer, back to back, with the launches of the kernels that store keys and values and that join
the parts of a split context:

========  ==========================================================================================
decoding  ``launch_s + overlap(read (1 + lone_read / caches), products, blocks)``
prompt    ``launch_s + max(products + softmax, products at the power limit) + passes x bytes moved``
========  ==========================================================================================

- *read*: cache, queries and outputs at the rate of any long read (`Machine.streamed_bytes_per_s`). A *cache* is what
  one sequence keeps for one key-value head; few of them are cut into many parts, whose results have to be joined.
- *blocks*: a block goes through one cache for up to 64 query heads. What it waits for at its start and end is hidden on
  the first block of an SM (that is in ``launch_s``), and not on the next ones. It counts where caches are short.
- *products*: only causal pairs of a query and a key, at the Tensor Cores' peak or the power limit's rate. Where
  products are not asynchronous (before Hopper, workstation Blackwells) FlashAttention-2 reaches a share of the peak.
- *softmax*: an exponential a pair, 16 a cycle and SM, as long as the products of 128 dimensions on a Blackwell. None of
  it is taken to hide behind the products. FlashAttention-3 and 4 do hide some; with products at their full peak, which
  no kernel reaches either, the sum fits heads of 64 to 256 dimensions on Hopper and Blackwell.

That share is the only number that knows the GPU's generation.

References
----------
Dao, "FlashAttention-2", arXiv 2307.08691; Shah et al., "FlashAttention-3", arXiv 2407.08608, section 2.2 (exponentials
of an H100: 3.9 TFLOP/s, which are 16 a cycle and SM); DeepSeek-AI, "DeepSeek-V2", arXiv 2405.04434, section 2.1 (latent
attention); CUDA C++ Programming Guide, arithmetic throughput.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Bound, Gpu, Precision
from perfmodel.kernels import Machine
from perfmodel.kernels.base import ceil_div, free, overlap
from perfmodel.serving.work import Cost, Work
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

CALIBRATION_FILE = "calibration/systems.json"
CALIBRATION_NAME = "attention"
HEADS_OF_BLOCK = 64  # query heads of a cache that one block serves: rows of a warpgroup's product
EXPONENTIALS_PER_CYCLE = 16  # of an SM
ULTRA = "10.3"  # compute capability of Blackwell Ultra, whose SMs have twice as many
ASYNCHRONOUS = (9.0, 12.0)  # compute capabilities whose Tensor Cores read shared memory themselves, the last excluded
FP8_PRODUCTS = (10.0, 12.0)  # whose latent kernels pass the 16-bit peak with FP8 caches; an H100 stays at 0.76 of it
MEMORY_AND_TENSOR_SHARPNESS = 2  # a deep pipeline of loads under the products
BLOCK_SHARPNESS = 1  # a block's start hides little of another's read


@dataclass(frozen=True)
class AttentionParameters:
    """Free parameters of decode and prompt attention."""

    launch_s: float = free(1e-5, 1e-6, 5e-5, "seconds of launches and of the longest chain of waits, per layer")
    block_cycles: float = free(
        5e3, 1e2, 3e4, "SM cycles that each further block waits on an SM when it starts and ends"
    )
    lone_read: float = free(0.3, 0.0, 3.0, "share by which a single cache, cut among all SMs, takes longer to read")
    passes: float = free(2.0, 1.0, 5.0, "times a prompt's queries, keys, values and outputs cross memory")
    early_tensor_efficiency: float = free(0.7, 0.3, 1.0, "share of the peak of FlashAttention-2's products")


def calibrated_attention() -> AttentionParameters:
    """The stored fit."""
    return AttentionParameters(**load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].parameters)


def decode(
    gpu: Gpu,
    batch: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    cache_bytes: ArrayLike = FP16_BYTES,
    parameters: AttentionParameters | None = None,
) -> Cost:
    """One layer's attention for one new token of each of ``batch`` sequences.

    Parameters
    ----------
    context
        Tokens attended to; a window's if that is shorter. The time is nearly affine in it, so a mean context will do.
    heads, kv_heads
        Query and key-value heads on this GPU.
    cache_bytes
        Bytes of one cached value: 2, or 1 for FP8 (its scales are not counted).

    Raises
    ------
    ValueError
        If a size is not positive; names it and the value.

    Examples
    --------
    Two gigabytes of cache at the 1.7 TB/s that an A100 reads, and 10 us of launches:

    >>> from perfmodel.catalog import load_gpu
    >>> c = AttentionParameters(launch_s=1e-5, lone_read=0.0)
    >>> round(float(decode(load_gpu("a100-80gb"), 16, 30_000, 32, 8, 128, parameters=c).time_s) * 1e6)
    1167
    """
    b, n, h, kv, d, size = _sizes(
        batch=batch, context=context, heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_bytes=cache_bytes
    )
    c = parameters or calibrated_attention()
    work = decode_work(b, n, h, kv, d, size)
    return _decode(gpu, c, work, caches=b * kv, group=h / kv, products_s=_products_s(gpu, c, work.flop))


def decode_work(
    b: Array, n: Array, heads: Array, kv_heads: Array, head_dim: Array | float, size: Array | float
) -> Work:
    """Two products of a query with each cached token; keys and values of ``n`` tokens, queries and outputs move."""
    ends = b * heads * head_dim
    cached = 2 * b * kv_heads * head_dim * n * size
    return Work(np.asarray(4 * ends * n), cache_bytes=np.asarray(cached), activation_bytes=2 * FP16_BYTES * ends)


def latent_decode(
    gpu: Gpu,
    batch: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    latent: ArrayLike,
    value: ArrayLike,
    cache_bytes: ArrayLike = FP16_BYTES,
    parameters: AttentionParameters | None = None,
) -> Cost:
    """One layer's latent attention (MLA) for one new token of each sequence, its projections left out.

    All heads read one cache of ``latent`` values a token (DeepSeek: 512 + 64), the first ``value`` of which are values
    too. The rest as `decode`.
    """
    b, n, h, k, v, size = _sizes(
        batch=batch, context=context, heads=heads, latent=latent, value=value, cache_bytes=cache_bytes
    )
    c = parameters or calibrated_attention()
    work = latent_decode_work(b, n, h, k, v, size)
    products_s = _products_s(gpu, c, work.flop)
    if _among(gpu, FP8_PRODUCTS):
        products_s = np.where(size < FP16_BYTES, _products_s(gpu, c, work.flop, Precision.FP8), products_s)
    return _decode(gpu, c, work, caches=b, group=h, products_s=products_s)


def latent_decode_work(
    b: Array, n: Array, heads: Array, latent: Array | float, value: Array | float, size: Array | float
) -> Work:
    """As `decode_work`, with one cache for all heads."""
    ends = b * heads * (latent + value)
    return Work(
        np.asarray(2 * ends * n), cache_bytes=np.asarray(b * latent * n * size), activation_bytes=FP16_BYTES * ends
    )


def prompt(
    gpu: Gpu,
    batch: ArrayLike,
    tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    value_dim: ArrayLike | None = None,
    window: ArrayLike | None = None,
    before: ArrayLike = 0,
    parameters: AttentionParameters | None = None,
) -> Cost:
    """One layer's causal attention of ``batch`` prompts of ``tokens``, in 16 bits.

    Parameters
    ----------
    value_dim
        Width of a head's values, if other than ``head_dim``.
    window
        Tokens that each token attends to at most, itself among them; all of them by default.
    before
        Tokens already in the cache: of a chunk of a longer prompt, or a prefix that is known.
    """
    b, n, h, kv, d = _sizes(batch=batch, tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    width = d + (d if value_dim is None else np.asarray(value_dim, dtype=np.float64))
    c, machine = parameters or calibrated_attention(), Machine.of(gpu)
    work = prompt_work(b, n, h, kv, width, window, before)
    softmax_s = work.flop / (2 * width) / (_exponentials_per_cycle(gpu) * machine.sm_cycles_per_s)
    products_s = work.flop / (_efficiency(gpu, c) * machine.tensor_flops_per_s)
    moved_s = (c.passes * work.activation_bytes + work.cache_bytes) / machine.streamed_bytes_per_s
    compute_s = np.maximum(products_s + softmax_s, work.flop / machine.power_flops_per_s)
    terms = {Bound.MEMORY: moved_s, Bound.COMPUTE: compute_s, Bound.LATENCY: np.full((), c.launch_s)}
    return Cost(np.asarray(c.launch_s + compute_s + moved_s), terms, work)


def prompt_work(
    b: Array, n: Array, heads: Array, kv_heads: Array, width: Array | float,
    window: ArrayLike | None = None, before: ArrayLike = 0,
) -> Work:  # fmt: skip
    """Products of causal pairs alone; queries, keys, values and outputs move once, ``width`` values a pair of heads."""
    earlier = np.asarray(before, dtype=np.float64)
    pairs = b * heads * attended_pairs(n, window, earlier)
    kept = earlier if window is None else np.minimum(earlier, np.asarray(window, dtype=np.float64))
    moved = FP16_BYTES * b * width
    return Work(
        np.asarray(2 * width * pairs),
        cache_bytes=moved * kv_heads * kept,
        activation_bytes=moved * (heads + kv_heads) * n,
    )


def attended_pairs(tokens: ArrayLike, window: ArrayLike | None = None, before: ArrayLike = 0) -> Array:
    """Pairs of a query and a key of one head: each of ``tokens`` attends to itself and what is ``before`` it.

    Examples
    --------
    >>> attended_pairs(4).tolist(), attended_pairs(4, window=2).tolist(), attended_pairs(1, before=7).tolist()
    (10.0, 7.0, 8.0)
    """
    n, earlier = np.asarray(tokens, dtype=np.float64), np.asarray(before, dtype=np.float64)
    everything = earlier + n
    widest = everything if window is None else np.minimum(everything, np.asarray(window, dtype=np.float64))
    return _pairs_up_to(everything, widest) - _pairs_up_to(earlier, widest)


def _pairs_up_to(tokens: Array, window: Array) -> Array:
    triangle = np.minimum(tokens, window)
    return np.asarray(triangle * (triangle + 1) / 2 + window * (tokens - triangle))


def _decode(gpu: Gpu, c: AttentionParameters, work: Work, *, caches: Array, group: Array, products_s: Array) -> Cost:
    machine = Machine.of(gpu)
    read_s = work.bytes / machine.streamed_bytes_per_s * (1 + c.lone_read / caches)
    per_sm = caches * ceil_div(group, HEADS_OF_BLOCK) / machine.sm_count
    blocks_s = np.maximum(per_sm - 1, 0.0) * c.block_cycles / machine.clock_hz
    busy_s = overlap(read_s, products_s, MEMORY_AND_TENSOR_SHARPNESS)
    terms = {Bound.MEMORY: read_s, Bound.COMPUTE: products_s, Bound.LATENCY: np.asarray(c.launch_s + blocks_s)}
    return Cost(np.asarray(c.launch_s + overlap(busy_s, blocks_s, BLOCK_SHARPNESS)), terms, work)


def _products_s(gpu: Gpu, c: AttentionParameters, flops: Array, precision: Precision = Precision.FP16) -> Array:
    return Machine.of(gpu).tensor_s(flops, _efficiency(gpu, c), precision)


def _efficiency(gpu: Gpu, c: AttentionParameters) -> float:
    return 1.0 if _among(gpu, ASYNCHRONOUS) else c.early_tensor_efficiency


def _exponentials_per_cycle(gpu: Gpu) -> int:
    return 2 * EXPONENTIALS_PER_CYCLE if gpu.compute_capability == ULTRA else EXPONENTIALS_PER_CYCLE


def _among(gpu: Gpu, capabilities: tuple[float, float]) -> bool:
    first, end = capabilities
    return not gpu.architecture.amd and first <= float(gpu.compute_capability) < end


def _sizes(**sizes: ArrayLike) -> list[Array]:
    """As floats, checked."""
    arrays = {name: np.asarray(size, dtype=np.float64) for name, size in sizes.items()}
    for name, array in arrays.items():
        if np.any(~((array > 0) & (array < np.inf))):
            raise ValueError(f"{name} must be positive, got {float(np.min(array)):g}")
    return list(arrays.values())
