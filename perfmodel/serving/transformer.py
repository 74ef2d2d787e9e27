"""What does a decoder-only language model compute for a token, on each of the GPUs that share it?

Counts, not times: weight matrices and their local shapes under tensor parallelism (Megatron's split: QKV and the first
MLP matrix by rows, the output projection and the second MLP matrix by columns, so that an all-reduce follows each part
of a layer), bytes of the KV cache and of recurrent states, bytes and launches of everything between the matrix
products. Experts may be spread whole instead (expert parallelism): then each GPU has its own sequences and a copy of
all else. Letters: H hidden size, p GPUs of a tensor-parallel group, n tokens in flight.

References
----------
Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3 (the split).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arrays import numbers
from perfmodel.catalog.decoder import (
    LM_HEAD,
    Block,
    Decoder,
    Experts,
    LatentAttention,
    Mlp,
    Product,
    Recurrent,
    SelfAttention,
    Split,
)
from perfmodel.catalog.decoder import (
    Part as LayerPart,
)
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.units import FP16_BYTES, FP32_BYTES

Array = NDArray[np.float64]

ATTENTION_LAUNCHES = 1
ACTIVATION_LAUNCHES = 1  # bias and GeLU, or the product of gate and up projection
ROUTING_LAUNCHES = 1  # router softmax and top-k; what sorts tokens by expert and sums is in `experts`
RECURRENT_LAUNCHES = 2  # convolution, gate and norm of the output; the scan counts as attention
STEP_LAUNCHES = 10  # embedding, final norm, and about eight for sampling and stopping
NORM_PASSES = 4  # a fused norm reads the block's output and the residual, writes the new residual and its norm


class Part(StrEnum):
    """Where the time of a run goes; the four bars of the paper's breakdown."""

    MATMUL = "matmul"
    ATTENTION = "attention"
    OTHER = "other"
    COMMUNICATION = "communication"


@dataclass(frozen=True)
class Matrix:
    """One weight matrix as one GPU holds it, ``C[m, n] = A[m, k] @ B[k, n]``.

    Attributes
    ----------
    name : str
        Role in the layer.
    m, k : ndarray
        Rows and columns of the local share; arrays of the shape of ``p``.
    prunable : bool
        False for matrices that stay dense: router, embedding, LM head.
    experts : float or ndarray
        Copies of the matrix on this GPU; 1 without mixture of experts.
    experts_in_all, experts_per_token : int
        Copies on all GPUs, and how many of them a token visits; 1 and 1 without mixture of experts.
    layers : int
        Layers that have such a matrix.
    """

    name: str
    m: Array
    k: Array
    prunable: bool
    experts: Array | float = 1
    experts_in_all: int = 1
    experts_per_token: int = 1
    layers: int = 1

    @property
    def weights(self) -> Array:
        """Local weights of all copies in one layer."""
        return np.asarray(self.experts * self.m * self.k)

    @property
    def grouped(self) -> bool:
        """Whether tokens choose among copies."""
        return self.experts_in_all > 1

    def products(self, n: ArrayLike) -> tuple[Array, Array]:
        """Copies that ``n`` tokens visit in a layer on this GPU, and tokens in each.

        With uniform, independent routing ``E (1 - (1 - a/E)^n)`` of E experts get a token when each visits ``a``.
        """
        tokens = np.asarray(n, dtype=np.float64)
        if not self.grouped:
            return np.ones_like(tokens), tokens
        share = self.experts_per_token / self.experts_in_all
        active = self.experts * (1 - (1 - share) ** tokens)
        return np.asarray(active), np.maximum(1.0, np.ceil(tokens * self.experts * share / active))


def check_split(model: LanguageModel, tensor_parallel: ArrayLike) -> Array:
    """``tensor_parallel`` as floats, refused where heads or MLP rows cannot be shared evenly.

    Raises
    ------
    ValueError
        Names the model, the degree, and what is to be shared.
    """
    p = numbers("gpus", tensor_parallel)
    wrong = ~can_share(model.shape, p)
    if np.any(wrong):
        bad = float(p[wrong].flat[0])
        raise ValueError(
            f"{model.key} cannot be shared by {bad:g} GPUs; allowed are common divisors of {shared_sizes(model.shape)}"
            f", such as {', '.join(map(str, splits(model)))}"
        )
    return p


def can_share(shape: Decoder, p: ArrayLike) -> NDArray[np.bool_]:
    """True where ``p`` GPUs can share heads and MLP rows evenly."""
    degree = np.asarray(p, dtype=np.float64)
    whole = (degree >= 1) & (degree % 1 == 0)
    return np.asarray(whole & np.all([size % np.where(whole, degree, 1) == 0 for size in _to_share(shape)], axis=0))


def can_spread(shape: Decoder, gpus: ArrayLike) -> NDArray[np.bool_]:
    """True where ``gpus`` can have the same number of experts each; where one has all, with or without experts."""
    degree = np.asarray(gpus, dtype=np.float64)
    counts = [part.count for _, part in shape.parts if isinstance(part, Experts)] or [1]
    return np.asarray((degree >= 1) & np.all([count % np.maximum(degree, 1) == 0 for count in counts], axis=0))


def shared_sizes(shape: Decoder) -> str:
    """What GPUs share, in words: ``56 heads and 28672 MLP rows``."""
    things = [f"{size} {what}" for size, what in _to_share(shape).items()]
    return " and ".join([", ".join(things[:-1]), things[-1]] if things[1:] else things)


def splits(model: LanguageModel, largest: int = 16) -> list[int]:
    """Powers of two up to ``largest`` by which the model can be split."""
    degrees = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    return [p for p in degrees if can_share(model.shape, p)]


def _to_share(shape: Decoder) -> dict[int, str]:
    """Sizes that tensor parallelism must divide, and what they are."""
    found: dict[int, str] = {}
    for _, part in shape.parts:
        if isinstance(part, SelfAttention | LatentAttention):
            found.setdefault(part.heads, "heads")
        elif isinstance(part, Mlp | Experts):
            found.setdefault(part.size, "MLP rows")
            if isinstance(part, Experts) and part.shared_size:
                found.setdefault(part.shared_size, "MLP rows")
        else:
            inner = (product.k for product in part.projections if product.split is Split.COLUMNS)
            found |= dict.fromkeys(inner, "columns of a recurrent part")
    return found


def local_kv_heads(part: SelfAttention | Product, p: ArrayLike) -> Array:
    """Key-value heads one GPU holds; with fewer heads than GPUs they are replicated."""
    return np.maximum(1.0, np.ceil(part.kv_heads / np.asarray(p, dtype=np.float64)))


def _local(product: Product, layers: int, p: Array, expert_parallel: ArrayLike) -> Matrix:
    m, k = np.full_like(p, float(product.m)), np.full_like(p, float(product.k))
    if product.split is Split.ROWS:
        shared = product.m - product.kv_rows
        kept = product.kv_rows / product.kv_heads * local_kv_heads(product, p)
        m = shared / p + kept
    elif product.split is Split.COLUMNS:
        k = product.k / p
    here = product.experts / np.asarray(expert_parallel, dtype=np.float64) if product.experts > 1 else 1
    return Matrix(product.name, m, k, product.prunable, here, product.experts, product.per_token, layers)


def block_matrices(shape: Decoder, block: Block, p: ArrayLike = 1, expert_parallel: ArrayLike = 1) -> list[Matrix]:
    """Weight matrices of one layer of a kind on one of ``p`` GPUs."""
    p = np.asarray(p, dtype=np.float64)
    return [_local(product, block.count, p, expert_parallel) for product in block.products(shape.hidden_size)]


def layer_matrices(shape: Decoder, p: ArrayLike = 1) -> tuple[Matrix, ...]:
    """Weight matrices of one layer, of the most frequent kind, on one of ``p`` GPUs.

    Examples
    --------
    >>> from perfmodel.catalog import load_model
    >>> [(w.name, int(w.m), int(w.k)) for w in layer_matrices(load_model("opt-66b").shape, 2)]
    [('qkv', 13824, 9216), ('attention-output', 9216, 4608), ('mlp-in', 18432, 9216), ('mlp-out', 9216, 18432)]
    """
    return tuple(block_matrices(shape, shape.usual, p))


def all_matrices(shape: Decoder, p: ArrayLike = 1, expert_parallel: ArrayLike = 1) -> list[Matrix]:
    """Weight matrices of all kinds of layers, each with the number of layers that have it."""
    return [matrix for block in shape.blocks for matrix in block_matrices(shape, block, p, expert_parallel)]


def mean_sparsity(shape: Decoder, sparsities: Sparsities) -> float:
    """Share of zeros among all prunable weights."""
    matrices = [matrix for matrix in all_matrices(shape) if matrix.prunable]
    weights = [float(matrix.layers * matrix.weights) for matrix in matrices]
    means = [sum(share * sparsity for sparsity, share in sparsities.shares(matrix.name)) for matrix in matrices]
    return float(np.average(means, weights=weights))


def head_matrices(shape: Decoder, p: ArrayLike = 1) -> tuple[Matrix, ...]:
    """LM head, rows split over the GPUs, and OPT-350M's projections between embedding and hidden size: all dense."""
    p = np.asarray(p, dtype=np.float64)
    e, h = np.full_like(p, float(shape.embedding_size)), np.full_like(p, float(shape.hidden_size))
    head = Matrix(LM_HEAD, np.ceil(shape.vocab_size / p), e, prunable=False)
    if shape.embedding_size == shape.hidden_size:
        return (head,)
    return (head, Matrix("project-in", h, e, prunable=False), Matrix("project-out", e, h, prunable=False))


def local_cached_values(part: LayerPart, p: ArrayLike = 1) -> Array:
    """Values that one token leaves in the cache of one part, on one of ``p`` GPUs."""
    p = np.asarray(p, dtype=np.float64)
    if isinstance(part, SelfAttention):
        return np.asarray(part.cached_values / part.kv_heads * local_kv_heads(part, p))
    kept = 0 if isinstance(part, Mlp | Experts) else part.cached_values
    return np.full_like(p, float(kept))


def kv_bytes_per_token(shape: Decoder, p: ArrayLike = 1, value_bytes: float = FP16_BYTES) -> Array:
    """Bytes of keys and values that one token of one sequence leaves in all layers, on one of ``p`` GPUs.

    Those of layers with a sliding window too, which forget them again.
    """
    return np.asarray(sum(value_bytes * count * local_cached_values(part, p) for count, part in shape.parts))


def cache_bytes(shape: Decoder, tokens: ArrayLike, p: ArrayLike = 1, value_bytes: float = FP16_BYTES) -> Array:
    """Bytes that a sequence of ``tokens`` occupies in all layers, recurrent states included, on one of ``p`` GPUs."""
    total: Array = np.zeros(())
    for count, part in shape.parts:
        if isinstance(part, Recurrent):
            total = total + count * state_bytes(part, p)
        else:
            total = total + value_bytes * count * local_cached_values(part, p) * seen(part, tokens)
    return np.asarray(total)


def seen(part: LayerPart, tokens: ArrayLike) -> Array:
    """Tokens of a context that a part of a layer looks back at: no more than its window."""
    context = np.asarray(tokens, dtype=np.float64)
    return np.minimum(context, _window(part))


def mean_seen(part: LayerPart, prompt: ArrayLike, new: ArrayLike) -> Array:
    """Mean of `seen` over the steps that make ``new`` tokens after ``prompt``, each of which sees one more."""
    first, steps = np.asarray(prompt, dtype=np.float64), np.asarray(new, dtype=np.float64)
    window = _window(part)
    growing = np.clip(window - first, 0.0, steps)  # steps until the window is full
    # As an integral: the mean of prompt .. prompt + new is prompt + new / 2.
    short = np.where(growing > 0, growing * (first + growing / 2), 0.0)
    full = np.where(growing < steps, (steps - growing) * np.where(np.isinf(window), 0.0, window), 0.0)
    return np.asarray((short + full) / steps)


def _window(part: LayerPart) -> float:
    window = part.window if isinstance(part, SelfAttention) else getattr(part, "selected", None)
    return np.inf if window is None else float(window)


def state_bytes(part: Recurrent, p: ArrayLike = 1) -> Array:
    """Bytes of the state of one sequence in one recurrent part, on one of ``p`` GPUs."""
    whole = FP32_BYTES * part.state_values + FP16_BYTES * part.recent_values
    return np.asarray(whole / np.asarray(p, dtype=np.float64))


def attention_flops(part: SelfAttention | LatentAttention, input_len: ArrayLike, p: ArrayLike = 1) -> Array:
    """FLOP of ``Q K^T`` and ``P V`` for a whole prompt of one sequence in one layer, the masked half computed too."""
    length = np.asarray(input_len, dtype=np.float64)
    heads = part.heads / np.asarray(p, dtype=np.float64)
    sizes = 2 * part.head_dim if isinstance(part, SelfAttention) else part.query_dim + part.value_dim
    return np.asarray(2.0 * length * seen(part, length) * heads * sizes)


def activation_bytes(shape: Decoder, block: Block, p: ArrayLike = 1) -> Array:
    """Bytes that norms, bias and activation kernels of one layer read and write for one token on one GPU.

    Norms and residuals are not split. The MLP's inner activation is read (both halves if gated) and written; so are
    queries and keys where each head is normalised, and the inputs of a recurrence.
    """
    p = np.asarray(p, dtype=np.float64)
    values = np.full_like(p, float(NORM_PASSES * block.norms * shape.hidden_size))
    for part in block.parts:
        values = values + _activation_values(part, p)
    return FP16_BYTES * values


def _activation_values(part: LayerPart, p: Array) -> Array:
    if isinstance(part, SelfAttention):
        return 2 * part.head_dim * (part.heads / p + local_kv_heads(part, p)) * (part.scales > 0)
    if isinstance(part, LatentAttention):
        return np.full_like(p, 2.0 * ((part.query_rank or 0) + part.rank))
    if isinstance(part, Recurrent):
        return 2 * sum(product.m for product in part.projections if product.split is Split.ROWS) / p
    passes = 3 if part.gated else 2
    if isinstance(part, Mlp):
        return passes * part.size / p
    return passes * part.shared_size / p  # that of the routed ones is in `experts`


def other_launches(block: Block) -> int:
    """Kernels of one layer that are neither matrix product, attention nor all-reduce."""
    return block.norms + sum(map(_launches, block.parts))


def _launches(part: LayerPart) -> int:
    if isinstance(part, Mlp):
        return ACTIVATION_LAUNCHES
    if isinstance(part, Experts):
        return ROUTING_LAUNCHES + ACTIVATION_LAUNCHES * (part.shared_size > 0)
    if isinstance(part, Recurrent):
        return RECURRENT_LAUNCHES
    return 2 if isinstance(part, LatentAttention) else int(part.scales > 0)


def mixers(shape: Decoder) -> Iterator[tuple[int, SelfAttention | LatentAttention | Recurrent]]:
    """Parts that mix tokens, each with the number of layers that have it."""
    return ((count, part) for count, part in shape.parts if not isinstance(part, Mlp | Experts))
