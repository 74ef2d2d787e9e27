"""What a Hugging Face ``config.json`` says of a decoder, refused wherever this room computes something else.

Two families: ``llama`` (RMSNorm, rotary positions, grouped heads, gated SiLU) and ``opt`` (LayerNorm before each
block, learned positions, ReLU, biases).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kernels_numba.formats.encoded import check


class Family(StrEnum):
    """Which formulas the layers follow."""

    LLAMA = "llama"
    OPT = "opt"


FAMILIES = {"llama": Family.LLAMA, "mistral": Family.LLAMA, "opt": Family.OPT}  # by model_type
OPT_OFFSET = 2  # rows of OPT's learned positions before that of the first token
HEAD = "lm_head.weight"
ATTENTION = {
    Family.LLAMA: ("q_proj", "k_proj", "v_proj", "o_proj"),
    Family.OPT: ("q_proj", "k_proj", "v_proj", "out_proj"),
}
FEED_FORWARD = {Family.LLAMA: ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), Family.OPT: ("fc1", "fc2")}
NORMS = {
    Family.LLAMA: ("input_layernorm", "post_attention_layernorm"),
    Family.OPT: ("self_attn_layer_norm", "final_layer_norm"),
}


@dataclass(frozen=True)
class Llama3Scaling:
    """Slower rotation of the pairs whose wavelength exceeds the context of the first training.

    factor : by how much the slowest pairs are slowed down.
    low, high : ``old_positions`` over the wavelengths between which the factor fades in.
    """

    factor: float
    low: float
    high: float
    old_positions: int


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and formulas of one decoder.

    hidden, ffn : features of the residual stream and of the feed-forward block.
    heads, kv_heads : query heads, and the heads of keys and values that they share evenly.
    positions : most tokens of a sequence, prompt included.
    tied : whether the head is the embedding.
    eos : tokens that end a text.
    """

    family: Family
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    norm_epsilon: float
    tied: bool
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    eos: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = "config.json") -> DecoderConfig:
        """Decoder that a Hugging Face config describes; how weights are stored, their file says.

        Parameters
        ----------
        where : file named in errors.

        Raises
        ------
        ValueError
            If the family, an activation, a window or a size is not supported; names it and what is.
        """
        kind = config.get("model_type")
        check(kind in FAMILIES, f"{where}: model_type", repr(kind), ", ".join(FAMILIES))
        read = _llama if FAMILIES[str(kind)] is Family.LLAMA else _opt
        return read(config, where)

    @property
    def stem(self) -> str:
        """What the tensors' names begin with."""
        return "model." if self.family is Family.LLAMA else "model.decoder."

    @property
    def embedding(self) -> str:
        """Name of the embedding, (vocabulary, hidden)."""
        return f"{self.stem}embed_tokens.weight"

    @property
    def final_norm(self) -> str:
        """Name of the last normalisation, without ``.weight``."""
        return f"{self.stem}{'norm' if self.family is Family.LLAMA else 'final_layer_norm'}"

    def layer(self, index: int) -> str:
        """What the names of a layer's tensors begin with."""
        return f"{self.stem}layers.{index}."

    def matrices(self, index: int) -> dict[str, tuple[int, int]]:
        """Shape (m, k) of each weight matrix of a layer by name, in the order they are multiplied."""
        d, inner, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = zip(ATTENTION[self.family], ((inner, d), (kv, d), (kv, d), (d, inner)), strict=True)
        *ins, out = FEED_FORWARD[self.family]
        shapes = {f"self_attn.{name}": shape for name, shape in attention} | dict.fromkeys(ins, (self.ffn, d))
        shapes[out] = (d, self.ffn)
        return {f"{self.layer(index)}{name}.weight": shape for name, shape in shapes.items()}

    def inputs(self, index: int) -> dict[tuple[str, ...], str]:
        """Weight matrices of a layer that multiply the same input, with the name that they have stored as one.

        The names of the one are those of vLLM; its rows are theirs, one below the other.
        """
        stem = self.layer(index)
        attention, (*ins, out) = ATTENTION[self.family], FEED_FORWARD[self.family]
        groups = {attention[:3]: "qkv_proj", attention[3:]: attention[3]}
        parts = {tuple(f"self_attn.{name}" for name in names): f"self_attn.{one}" for names, one in groups.items()}
        parts |= {tuple(ins): "mlp.gate_up_proj" if len(ins) > 1 else ins[0], (out,): out}
        return {tuple(f"{stem}{name}.weight" for name in names): f"{stem}{one}.weight" for names, one in parts.items()}

    def stored(self, weights: Container[str]) -> list[str]:
        """Names under which ``weights`` has the matrices of all layers, alone or as one with others."""
        groups = [group for index in range(self.layers) for group in self.inputs(index).items()]
        return [name for names, one in groups for name in ((one,) if one in weights else names)]

    @property
    def all_matrices(self) -> dict[str, tuple[int, int]]:
        """Shape (m, k) of each weight matrix of all layers by name, in the order they are multiplied."""
        return {name: shape for index in range(self.layers) for name, shape in self.matrices(index).items()}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name; the head only where it is not the embedding."""
        found: dict[str, tuple[int, ...]] = {self.embedding: (self.vocabulary, self.hidden)}
        if self.family is Family.OPT:
            found[f"{self.stem}embed_positions.weight"] = (self.positions + OPT_OFFSET, self.hidden)
        for index in range(self.layers):
            for name, shape in self.matrices(index).items():
                found[name] = shape
                if self.attention_bias if ".self_attn." in name else self.mlp_bias:
                    found[bias_of(name)] = shape[:1]
            for norm in NORMS[self.family]:
                found |= self._norm(f"{self.layer(index)}{norm}")
        found |= self._norm(self.final_norm)
        return found if self.tied else found | {HEAD: (self.vocabulary, self.hidden)}

    def _norm(self, name: str) -> dict[str, tuple[int, ...]]:
        parts = ("weight",) if self.family is Family.LLAMA else ("weight", "bias")
        return {f"{name}.{part}": (self.hidden,) for part in parts}


def bias_of(weight: str) -> str:
    """Name of the bias that belongs to a weight."""
    return f"{weight.removesuffix('weight')}bias"


def _llama(config: Mapping[str, Any], where: str) -> DecoderConfig:
    _only(config, where, "hidden_act", "silu")
    positions = _size(config, where, "max_position_embeddings")
    window = config.get("sliding_window")
    matters = window is not None and window < positions
    check(not matters, f"{where}: sliding_window", window, f"none, or {positions} (max_position_embeddings) at least")
    hidden, heads = _size(config, where, "hidden_size"), _size(config, where, "num_attention_heads")
    kv_heads = _size(config, where, "num_key_value_heads", heads)
    check(heads % kv_heads == 0, f"{where}: num_key_value_heads", kv_heads, f"a divisor of the {heads} heads")
    head_dim = _size(config, where, "head_dim", hidden // heads)
    check(head_dim % 2 == 0, f"{where}: head_dim", head_dim, "an even number")
    theta, scaling = _rope(config, where)
    return DecoderConfig(
        family=Family.LLAMA,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        positions=positions,
        ffn=_size(config, where, "intermediate_size"),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
        rope_theta=theta,
        rope_scaling=scaling,
        **_common(config, where),
    )


def _opt(config: Mapping[str, Any], where: str) -> DecoderConfig:
    _only(config, where, "activation_function", "relu")
    _only(config, where, "do_layer_norm_before", True)
    _only(config, where, "layer_norm_elementwise_affine", True)
    _only(config, where, "_remove_final_layer_norm", False)
    hidden, heads = _size(config, where, "hidden_size"), _size(config, where, "num_attention_heads")
    _only(config, where, "word_embed_proj_dim", hidden)
    check(hidden % heads == 0, f"{where}: num_attention_heads", heads, f"a divisor of hidden_size {hidden}")
    biases = bool(config.get("enable_bias", True))
    return DecoderConfig(
        family=Family.OPT,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        positions=_size(config, where, "max_position_embeddings"),
        ffn=_size(config, where, "ffn_dim"),
        norm_epsilon=1e-5,  # what LayerNorm takes where nothing is said, and OPT's config says nothing
        tied=bool(config.get("tie_word_embeddings", True)),
        attention_bias=biases,
        mlp_bias=biases,
        **_common(config, where),
    )


def _common(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    eos = config.get("eos_token_id")
    return {
        "layers": _size(config, where, "num_hidden_layers"),
        "vocabulary": _size(config, where, "vocab_size"),
        "eos": tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),),
    }


def _rope(config: Mapping[str, Any], where: str) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling of the rotation; Transformers 5 keeps both in ``rope_parameters``."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    check(kind in ("default", "llama3"), f"{where}: rope_type", repr(kind), "default, llama3")
    if kind == "default":
        return theta, None
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [key for key in keys if key not in rope]
    check(not missing, f"{where}: rope scaling without", ", ".join(missing), f"all of {', '.join(keys)}")
    factor, low, high, old = (rope[key] for key in keys)
    return theta, Llama3Scaling(float(factor), float(low), float(high), int(old))


def _only(config: Mapping[str, Any], where: str, key: str, allowed: Any) -> None:
    """Refuse a config that says something else than ``allowed``; one that says nothing means it."""
    check(config.get(key, allowed) == allowed, f"{where}: {key}", repr(config.get(key)), repr(allowed))


def _size(config: Mapping[str, Any], where: str, key: str, default: int | None = None) -> int:
    size = config.get(key)
    size = default if size is None else size
    check(type(size) is int and size > 0, f"{where}: {key}", repr(size), "an integer of at least 1")
    return int(size or 0)
