"""A language model: its shape, how its checkpoint stores the weights, and what others count."""

from __future__ import annotations

from typing import Any

import msgspec

from perfmodel.catalog.decoder import Block, Decoder, Experts, Mlp, Norm, SelfAttention
from perfmodel.catalog.records import Natural, Positive, PositiveInt, Record, Text, check_order


class Layers(Record, frozen=True, kw_only=True):
    """Shape of a decoder whose layers are all alike, as one flat table; H = ``hidden_size``.

    ``attention_bias`` (Q, K, V), ``output_bias`` (projection after attention) and ``mlp_bias`` say whether these add
    a bias (Qwen2 has the first alone); ``learned_positions`` counts rows of a position table (0 for rotary
    embeddings); ``embedding_size`` differs from H only where the model projects its embeddings (OPT-350M).
    ``norms_per_layer`` counts normalisations inside a layer, ``final_norm`` the one after; ``qk_norm`` says whether
    queries and keys are normalised too, head by head (Qwen3, Gemma 3); ``parallel`` whether attention and MLP read the
    same input, so that GPUs sum once a layer.
    """

    layers: PositiveInt
    hidden_size: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn_size: PositiveInt
    gated_mlp: bool
    experts: PositiveInt
    experts_per_token: PositiveInt
    vocab_size: PositiveInt
    embedding_size: PositiveInt
    tied_embeddings: bool
    learned_positions: Natural
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    norm: Norm
    norms_per_layer: PositiveInt
    final_norm: bool
    qk_norm: bool = False
    parallel: bool = False
    max_positions: PositiveInt
    source: Text

    def __post_init__(self) -> None:
        """Refuse head and expert counts that no kernel could split."""
        check_order("experts_per_token", self.experts_per_token, self.experts)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}, allowed are divisors of heads = {self.heads}")

    @property
    def decoder(self) -> Decoder:
        """The same shape as a list of one kind of layer."""
        attention = SelfAttention(
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            bias=self.attention_bias,
            output_bias=self.output_bias,
            scales=2 * self.head_dim * self.qk_norm,
        )
        mlp: dict[str, Any] = {"size": self.ffn_size, "gated": self.gated_mlp, "bias": self.mlp_bias}
        routed: dict[str, Any] = {"count": self.experts, "per_token": self.experts_per_token}
        inner = Mlp(**mlp) if self.experts == 1 else Experts(**mlp, **routed)
        block = Block(
            count=self.layers, parts=(attention, inner), norms=self.norms_per_layer, parallel=self.parallel
        )  # fmt: skip
        same = ("hidden_size", "vocab_size", "embedding_size", "tied_embeddings", "learned_positions", "norm")
        fields: dict[str, Any] = {name: getattr(self, name) for name in (*same, "max_positions", "source")}
        return Decoder(blocks=(block,), final_norms=int(self.final_norm), **fields)


class Published(Record, frozen=True, kw_only=True):
    """What the authors or the checkpoint say, to check our own totals against.

    ``active_parameters`` are those that one token uses, ``kv_bytes_per_token`` is the 16-bit cache it leaves behind.
    """

    parameters: Positive
    active_parameters: Positive | None = None
    kv_bytes_per_token: Positive | None = None
    source: Text


class Stored(Record, frozen=True, kw_only=True):
    """How a quantised checkpoint stores its weights: the format of each matrix by its name, 16 bits where absent.

    ``cache_bits`` are those of a cached value, None where the checkpoint says nothing; ``method`` is what its
    configuration calls the scheme.
    """

    method: Text
    formats: dict[Text, Text]
    cache_bits: PositiveInt | None = None


class LanguageModel(Record, frozen=True, kw_only=True):
    """One language model of ``data/models`` or of a Hugging Face ``config.json``."""

    key: Text
    name: Text
    family: Text
    shape: Decoder
    stored: Stored | None = None
    published: Published | None = None

    @property
    def unquantised(self) -> LanguageModel:
        """The same model with all weights in 16 bits."""
        return msgspec.structs.replace(self, stored=None)

    @property
    def parameters(self) -> int:
        """Parameters counted from the shape: every weight, bias, norm and table of the checkpoint."""
        return self.shape.parameters
