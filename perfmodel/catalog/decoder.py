"""What is a decoder made of? Layers of a few kinds, each a list of parts, and each part's matrices, cache and state.

Counts as the checkpoint stores them, of one whole layer; `perfmodel.serving.transformer` shares them among GPUs. A kind
of layer (`Block`) holds parts that mix tokens (`SelfAttention`, `LatentAttention`, `Recurrent`) and parts that do not
(`Mlp`, `Experts`). Letters: H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from perfmodel.catalog.records import Natural, PositiveInt, Record, Text, check_order

QKV, ATTENTION_OUTPUT, MLP_IN, MLP_OUT = "qkv", "attention-output", "mlp-in", "mlp-out"
EXPERTS_IN, EXPERTS_OUT, SHARED_IN, SHARED_OUT = "experts-in", "experts-out", "shared-in", "shared-out"
ROUTER, LM_HEAD = "router", "lm-head"
QUERY, LATENT_DOWN, LATENT_UP = "query-up", "latent-down", "latent-up"
INDEXER = "indexer"


class Norm(StrEnum):
    """Normalisation layers."""

    LAYERNORM = "layernorm"
    RMSNORM = "rmsnorm"


class Split(StrEnum):
    """What of a matrix GPUs share: its rows (outputs), its columns (inputs), or nothing: each has it whole."""

    ROWS = "rows"
    COLUMNS = "columns"
    NONE = "none"


class Product(Record, frozen=True, kw_only=True):
    """One weight matrix of ``m`` rows (outputs) and ``k`` columns (inputs).

    Of the rows ``kv_rows`` belong to ``kv_heads`` heads, which GPUs replicate once there are fewer heads than GPUs.
    There are ``experts`` such matrices, of which each token visits ``per_token``. Matrices that pruning leaves alone
    (router, LM head, a recurrence's small ones) are not ``prunable``.
    """

    name: Text
    m: PositiveInt
    k: PositiveInt
    split: Split
    prunable: bool = True
    kv_rows: Natural = 0
    kv_heads: PositiveInt = 1
    experts: PositiveInt = 1
    per_token: PositiveInt = 1

    @property
    def weights(self) -> int:
        """Weights of all copies."""
        return self.experts * self.m * self.k


class SelfAttention(Record, frozen=True, kw_only=True, tag="self-attention", tag_field="part"):
    """Attention that keeps keys and values of ``kv_heads`` heads: all, grouped, or one for all queries.

    ``window`` is the number of tokens it looks back at, all if None. ``bias`` and ``output_bias`` say whether Q, K, V
    and the projection after attention add one; ``scales`` counts parameters that normalise queries and keys;
    ``sinks`` says whether each head has a learned logit beside its tokens (gpt-oss); ``gated`` whether a gate of the
    size of the queries scales what attention gives (Qwen3-Next); ``own_cache`` is False where the keys and values of an
    earlier layer are read, so that the layer projects none.
    """

    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    window: PositiveInt | None = None
    bias: bool = False
    output_bias: bool = False
    scales: Natural = 0
    sinks: bool = False
    gated: bool = False
    own_cache: bool = True

    def __post_init__(self) -> None:
        """Refuse heads that cannot share keys and values evenly."""
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}, allowed are divisors of heads = {self.heads}")

    @property
    def inner(self) -> int:
        """Size of what attention gives, heads together."""
        return self.heads * self.head_dim

    @property
    def _kv_rows(self) -> int:
        return 2 * self.kv_heads * self.head_dim * self.own_cache

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Q, K and V in one matrix, the output projection."""
        rows = self.inner * (1 + self.gated) + self._kv_rows
        qkv = Product(name=QKV, m=rows, k=hidden, split=Split.ROWS, kv_rows=self._kv_rows, kv_heads=self.kv_heads)
        return qkv, Product(name=ATTENTION_OUTPUT, m=hidden, k=self.inner, split=Split.COLUMNS)

    def vectors(self, hidden: int) -> int:
        """Parameters in no matrix."""
        biases = self.bias * (self.inner * (1 + self.gated) + self._kv_rows) + self.output_bias * hidden
        return biases + self.scales + self.sinks * self.heads

    @property
    def cached_values(self) -> int:
        """Values that a token leaves in the cache."""
        return self._kv_rows


class LatentAttention(Record, frozen=True, kw_only=True, tag="latent-attention", tag_field="part"):
    """Multi-head latent attention: ``rank`` values and ``rope_dim`` rotated ones are kept for all heads together.

    ``query_rank`` is the size that queries are squeezed through, None if they are not; ``nope_dim`` and ``rope_dim``
    make up a head's query and key, ``value_dim`` its value. While it decodes, attention works in the latent space
    (absorbed): the up-projection is applied to queries and outputs, of all heads, not to the cache. ``selected`` is the
    number of tokens that an indexer of ``index_heads`` heads of ``index_dim`` picks (DeepSeek-V3.2), all if None; no
    heads means that the choice of an earlier layer is taken over (GLM-5.2).
    """

    heads: PositiveInt
    query_rank: PositiveInt | None
    rank: PositiveInt
    nope_dim: PositiveInt
    rope_dim: PositiveInt
    value_dim: PositiveInt
    bias: bool = False
    selected: PositiveInt | None = None
    index_heads: Natural = 0
    index_dim: Natural = 0

    @property
    def query_dim(self) -> int:
        """Size of a head's query before absorption."""
        return self.nope_dim + self.rope_dim

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Down-projections (whole on every GPU), then what heads share."""
        squeezed = self.query_rank or 0
        down = Product(name=LATENT_DOWN, m=squeezed + self.rank + self.rope_dim, k=hidden, split=Split.NONE)
        query = Product(name=QUERY, m=self.heads * self.query_dim, k=squeezed or hidden, split=Split.ROWS)
        up = Product(name=LATENT_UP, m=self.heads * (self.nope_dim + self.value_dim), k=self.rank, split=Split.ROWS)
        output = Product(name=ATTENTION_OUTPUT, m=hidden, k=self.heads * self.value_dim, split=Split.COLUMNS)
        return (*self._index(hidden), down, query, up, output)

    def _index(self, hidden: int) -> tuple[Product, ...]:
        if self.selected is None or not self.index_heads:
            return ()
        queries = Product(
            name=f"{INDEXER}-query", m=self.index_heads * self.index_dim, k=self.query_rank or hidden, split=Split.NONE,
            prunable=False,
        )  # fmt: skip
        keys = Product(
            name=INDEXER, m=self.index_dim + self.index_heads, k=hidden, split=Split.NONE, prunable=False
        )  # fmt: skip
        return queries, keys

    def vectors(self, hidden: int) -> int:
        """Parameters in no matrix: scales of the squeezed queries and keys, biases."""
        squeezed = self.query_rank or 0
        biases = squeezed + self.rank + self.rope_dim + hidden
        return squeezed + self.rank + self.bias * biases + 2 * self.index_dim

    @property
    def cached_values(self) -> int:
        """Values that a token leaves in the cache, for all heads, on every GPU."""
        return self.rank + self.rope_dim


class Recurrent(Record, frozen=True, kw_only=True, tag="recurrent", tag_field="part"):
    """A state-space or linear-attention part: its state is of fixed size, however long the sequence.

    ``projections`` are its matrices; ``state_values`` (32-bit) and ``recent_values`` (16-bit, inputs of a convolution)
    are kept for each sequence, ``other`` counts parameters in no matrix.
    """

    projections: tuple[Product, ...]
    state_values: Natural
    recent_values: Natural
    other: Natural = 0

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Its matrices."""
        return self.projections

    def vectors(self, hidden: int) -> int:
        """Parameters in no matrix."""
        return self.other

    @property
    def cached_values(self) -> int:
        """None a token."""
        return 0


class Mlp(Record, frozen=True, kw_only=True, tag="mlp", tag_field="part"):
    """Two matrices with ``size`` inner values, three where a gate scales them."""

    size: PositiveInt
    gated: bool
    bias: bool = False

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Gate and up-projection in one matrix, and the one back."""
        return _pair(MLP_IN, MLP_OUT, hidden, self.size, gated=self.gated)

    def vectors(self, hidden: int) -> int:
        """Biases."""
        return self.bias * ((1 + self.gated) * self.size + hidden)


class Experts(Record, frozen=True, kw_only=True, tag="experts", tag_field="part"):
    """``count`` MLPs of ``size`` inner values, of which each token visits ``per_token``.

    ``shared_size`` counts inner values of experts that every token visits, together; ``shared_gate`` says whether a row
    of weights scales what these give, ``router_vectors`` counts parameters of the router in no matrix.
    """

    count: PositiveInt
    per_token: PositiveInt
    size: PositiveInt
    gated: bool
    bias: bool = False
    shared_size: Natural = 0
    shared_gate: bool = False
    router_vectors: Natural = 0

    def __post_init__(self) -> None:
        """Refuse tokens that visit more experts than there are."""
        check_order("per_token", self.per_token, self.count)

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Expert matrices, those of the shared experts, the router."""
        routed = {"experts": self.count, "per_token": self.per_token}
        own = _pair(EXPERTS_IN, EXPERTS_OUT, hidden, self.size, gated=self.gated, **routed)
        router = Product(name=ROUTER, m=self.count, k=hidden, split=Split.NONE, prunable=False)
        shared = _pair(SHARED_IN, SHARED_OUT, hidden, self.shared_size, gated=self.gated) if self.shared_size else ()
        return (*own, *shared, router)

    def vectors(self, hidden: int) -> int:
        """Biases, of the router too, and the row that scales the shared experts."""
        biases = self.bias * self.count * ((1 + self.gated) * self.size + hidden)
        return biases + self.router_vectors + self.shared_gate * hidden


def _pair(first: str, second: str, hidden: int, size: int, *, gated: bool, **routed: Any) -> tuple[Product, Product]:
    return (
        Product(name=first, m=(1 + gated) * size, k=hidden, split=Split.ROWS, **routed),
        Product(name=second, m=hidden, k=size, split=Split.COLUMNS, **routed),
    )


Part = SelfAttention | LatentAttention | Recurrent | Mlp | Experts
Mixer = SelfAttention | LatentAttention | Recurrent


class Block(Record, frozen=True, kw_only=True):
    """``count`` layers of one kind.

    ``norms`` counts normalisations of the hidden state in each; ``parallel`` says that all parts read the same input
    and their outputs are summed at once (GPT-NeoX, Falcon): one all-reduce. ``other`` counts parameters of a layer that
    belong to no part.
    """

    count: PositiveInt
    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1)]
    norms: Natural = 2
    parallel: bool = False
    other: Natural = 0

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Matrices of one layer."""
        return tuple(product for part in self.parts for product in part.products(hidden))

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Parts that mix tokens."""
        return tuple(part for part in self.parts if isinstance(part, SelfAttention | LatentAttention | Recurrent))

    @property
    def experts(self) -> Experts | None:
        """Its experts; None if it has none."""
        return next((part for part in self.parts if isinstance(part, Experts)), None)

    @property
    def all_reduces(self) -> int:
        """Sums over the GPUs of a tensor-parallel group; mixers side by side (Falcon-H1) are summed together."""
        return 1 if self.parallel else min(len(self.mixers), 1) + len(self.parts) - len(self.mixers)


class Decoder(Record, frozen=True, kw_only=True):
    """Shape of a decoder-only language model; H = ``hidden_size``.

    ``embedding_size`` differs from H only where the model projects its embeddings (OPT-350M); ``learned_positions``
    counts rows of a position table (0 for rotary embeddings and none); ``head_bias`` says whether the logits have one;
    ``final_norms`` counts normalisations outside the layers. ``max_positions`` is the longest sequence it was made for.
    ``left_out`` names what the checkpoint holds beside the language model, such as a vision tower.
    """

    hidden_size: PositiveInt
    blocks: Annotated[tuple[Block, ...], msgspec.Meta(min_length=1)]
    vocab_size: PositiveInt
    embedding_size: PositiveInt
    tied_embeddings: bool
    learned_positions: Natural = 0
    head_bias: bool = False
    norm: Norm
    norm_shift: bool | None = None
    final_norms: Natural = 1
    max_positions: PositiveInt
    left_out: tuple[Text, ...] = ()
    source: Text

    @property
    def layers(self) -> int:
        """Layers of all kinds."""
        return sum(block.count for block in self.blocks)

    @property
    def usual(self) -> Block:
        """The most frequent kind of layer."""
        return max(self.blocks, key=lambda block: block.count)

    @property
    def parts(self) -> Iterator[tuple[int, Part]]:
        """Every part, and in how many layers it is."""
        return ((block.count, part) for block in self.blocks for part in block.parts)

    @property
    def attentions(self) -> tuple[SelfAttention | LatentAttention, ...]:
        """Parts with a cache that grows, of each kind of layer."""
        return tuple(part for _, part in self.parts if isinstance(part, SelfAttention | LatentAttention))

    @property
    def norm_parameters(self) -> int:
        """Parameters of one normalisation: a scale, and for LayerNorm a shift (Cohere's has none)."""
        shift = self.norm is Norm.LAYERNORM if self.norm_shift is None else self.norm_shift
        return self.hidden_size * (2 if shift else 1)

    @property
    def embedding_parameters(self) -> int:
        """Token and position tables, the output head if it is its own, and OPT-350M's two projections."""
        tables = self.vocab_size * self.embedding_size * (1 if self.tied_embeddings else 2)
        projections = 2 * self.embedding_size * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return tables + projections + self.learned_positions * self.hidden_size + self.head_bias * self.vocab_size

    @property
    def vectors(self) -> int:
        """Biases, norms and all else that is neither in a matrix nor in an embedding table."""
        hidden = self.hidden_size
        norms = self.final_norms + sum(block.count * block.norms for block in self.blocks)
        inside = sum(count * part.vectors(hidden) for count, part in self.parts)
        return norms * self.norm_parameters + inside + sum(block.count * block.other for block in self.blocks)

    def weights(self, *, active: bool = False) -> int:
        """Weights of all matrices in layers; of experts only those that one token visits if ``active``."""
        return sum(
            block.count * product.m * product.k * (product.per_token if active else product.experts)
            for block in self.blocks
            for product in block.products(self.hidden_size)
        )

    @property
    def parameters(self) -> int:
        """Every weight, bias, norm and table; tied tables count once. Buffers (rotary frequencies) are none."""
        return self.embedding_parameters + self.weights() + self.vectors

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses, embedding tables included, as model cards count."""
        idle = sum(
            count * part.bias * (part.count - part.per_token) * ((1 + part.gated) * part.size + self.hidden_size)
            for count, part in self.parts
            if isinstance(part, Experts)
        )
        return self.embedding_parameters + self.weights(active=True) + self.vectors - idle

    @property
    def cached_values(self) -> int:
        """Values that one token leaves in the caches of all layers."""
        return sum(count * part.cached_values for count, part in self.parts if not isinstance(part, Mlp | Experts))
