"""What does a decoder-only transformer compute for a token, on each of the GPUs that share it?

Counts, not times: weight matrices and their local shapes under tensor parallelism (Megatron's split: QKV and the first
MLP matrix by rows, the output projection and the second MLP matrix by columns, so that two all-reduces a layer remain),
bytes of the KV cache, bytes and launches of everything between the matrix products. Letters: H hidden size, F MLP
size, p GPUs of a tensor-parallel group, n tokens in flight.

References
----------
Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3 (the split).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.specs import LanguageModel, Layers
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

ALL_REDUCES_PER_LAYER = 2
ATTENTION_LAUNCHES = 1
ACTIVATION_LAUNCHES = 1  # bias and GeLU, or the product of gate and up projection
ROUTING_LAUNCHES = 3  # router softmax and top-k, gather of tokens by expert, weighted sum of the experts' outputs
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
    experts, experts_per_token : int
        Copies of the matrix, and how many of them a token visits; 1 and 1 without mixture of experts.
    """

    name: str
    m: Array
    k: Array
    prunable: bool
    experts: int = 1
    experts_per_token: int = 1

    @property
    def weights(self) -> Array:
        """Local weights of all copies."""
        return self.experts * self.m * self.k

    def products(self, n: ArrayLike) -> tuple[Array, Array]:
        """Products that ``n`` tokens start, and tokens in each.

        With uniform, independent routing ``E (1 - (1 - a/E)^n)`` of E experts get a token when each visits ``a``.
        """
        tokens = np.asarray(n, dtype=np.float64)
        if self.experts == 1:
            return np.ones_like(tokens), tokens
        missed = (1 - self.experts_per_token / self.experts) ** tokens
        active = self.experts * (1 - missed)
        return active, np.maximum(1.0, np.ceil(tokens * self.experts_per_token / active))


def check_split(model: LanguageModel, tensor_parallel: ArrayLike) -> Array:
    """``tensor_parallel`` as floats, refused where attention heads or MLP rows cannot be shared evenly.

    Raises
    ------
    ValueError
        Names the model, the degree, and the heads.
    """
    p = np.asarray(tensor_parallel, dtype=np.float64)
    heads, ffn = model.shape.heads, model.shape.ffn_size
    wrong = ~(p >= 1) | (heads % np.maximum(p, 1) != 0) | (ffn % np.maximum(p, 1) != 0)
    if np.any(wrong):
        bad = float(p[wrong].flat[0])
        raise ValueError(
            f"{model.key} cannot be shared by {bad:g} GPUs; allowed are common divisors of {heads} heads and "
            f"{ffn} MLP rows, such as {', '.join(map(str, splits(model)))}"
        )
    return p


def splits(model: LanguageModel, largest: int = 16) -> list[int]:
    """Powers of two up to ``largest`` by which the model can be split."""
    degrees = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    return [p for p in degrees if model.shape.heads % p == 0 and model.shape.ffn_size % p == 0]


def local_kv_heads(shape: Layers, p: ArrayLike) -> Array:
    """Key-value heads one GPU holds; with fewer heads than GPUs they are replicated."""
    return np.maximum(1.0, np.ceil(shape.kv_heads / np.asarray(p, dtype=np.float64)))


def layer_matrices(shape: Layers, p: ArrayLike = 1) -> tuple[Matrix, ...]:
    """Weight matrices of one layer on one of ``p`` GPUs.

    Examples
    --------
    >>> from perfmodel.catalog import load_model
    >>> [(w.name, int(w.m), int(w.k)) for w in layer_matrices(load_model("opt-66b").shape, 2)]
    [('qkv', 13824, 9216), ('attention-output', 9216, 4608), ('mlp-in', 18432, 9216), ('mlp-out', 9216, 18432)]
    """
    p = np.asarray(p, dtype=np.float64)
    h, f = float(shape.hidden_size), shape.ffn_size / p
    heads = shape.heads / p
    hidden = np.full_like(p, h)
    qkv_rows = (heads + 2 * local_kv_heads(shape, p)) * shape.head_dim
    expert = {"experts": shape.experts, "experts_per_token": shape.experts_per_token}
    matrices = (
        Matrix("qkv", qkv_rows, hidden, prunable=True),
        Matrix("attention-output", hidden, heads * shape.head_dim, prunable=True),
        Matrix("mlp-in", (2 if shape.gated_mlp else 1) * f, hidden, prunable=True, **expert),
        Matrix("mlp-out", hidden, f, prunable=True, **expert),
    )
    router = Matrix("router", np.full_like(p, float(shape.experts)), hidden, prunable=False)
    return (*matrices, router) if shape.experts > 1 else matrices


def head_matrices(shape: Layers, p: ArrayLike = 1) -> tuple[Matrix, ...]:
    """LM head, rows split over the GPUs, and OPT-350M's projections between embedding and hidden size: all dense."""
    p = np.asarray(p, dtype=np.float64)
    e, h = np.full_like(p, float(shape.embedding_size)), np.full_like(p, float(shape.hidden_size))
    head = Matrix("lm-head", np.ceil(shape.vocab_size / p), e, prunable=False)
    if shape.embedding_size == shape.hidden_size:
        return (head,)
    return (head, Matrix("project-in", h, e, prunable=False), Matrix("project-out", e, h, prunable=False))


def vector_parameters(model: LanguageModel) -> int:
    """Biases and norms: all parameters that are neither in a matrix nor in an embedding table."""
    layer = sum(float(matrix.weights) for matrix in layer_matrices(model.shape))
    return model.parameters - model.shape.embedding_parameters - round(model.shape.layers * layer)


def kv_bytes_per_token(shape: Layers, p: ArrayLike = 1) -> Array:
    """Bytes of FP16 keys and values one token of one sequence leaves in all layers, on one of ``p`` GPUs."""
    return 2.0 * shape.layers * local_kv_heads(shape, p) * shape.head_dim * FP16_BYTES


def kv_read_bytes_per_token(shape: Layers, p: ArrayLike = 1, shared: bool = False) -> Array:
    """Bytes of FP16 keys and values that attention reads for one token of context, on one of ``p`` GPUs.

    Not ``shared``, each query head reads its own copy, also where heads share keys and values; else what is stored.
    """
    copies = 1.0 if shared else shape.heads / np.asarray(p, dtype=np.float64) / local_kv_heads(shape, p)
    return kv_bytes_per_token(shape, p) * copies


def attention_flops_per_layer(shape: Layers, input_len: ArrayLike, p: ArrayLike = 1) -> Array:
    """FLOP of ``Q K^T`` and ``P V`` for a whole prompt of one sequence, the masked half computed too."""
    length = np.asarray(input_len, dtype=np.float64)
    return 4.0 * length**2 * shape.heads / np.asarray(p, dtype=np.float64) * shape.head_dim


def activation_bytes_per_layer(shape: Layers, p: ArrayLike = 1) -> Array:
    """Bytes that norms, bias and activation kernels of one layer read and write for one token on one GPU.

    Norms and residuals are not split. The MLP's inner activation is read (both halves if gated) and written; so are
    queries and keys where each head is normalised.
    """
    p = np.asarray(p, dtype=np.float64)
    norms = NORM_PASSES * shape.norms_per_layer * shape.hidden_size
    inner = (3 if shape.gated_mlp else 2) * shape.ffn_size * shape.experts_per_token
    heads = 2 * shape.head_dim * (shape.heads / p + local_kv_heads(shape, p)) if shape.qk_norm else 0.0
    return FP16_BYTES * (norms + inner / p + heads)


def other_launches_per_layer(shape: Layers) -> int:
    """Kernels of one layer that are neither matrix product, attention nor all-reduce."""
    norms = shape.norms_per_layer + shape.qk_norm  # queries and keys together, in one
    return norms + ACTIVATION_LAUNCHES + (ROUTING_LAUNCHES if shape.experts > 1 else 0)
