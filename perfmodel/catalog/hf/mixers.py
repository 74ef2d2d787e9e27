"""Parts of layers from the keys of a Hugging Face configuration: attention, recurrences, MLPs, experts, windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import msgspec

from perfmodel.catalog.decoder import (
    Block,
    Experts,
    LatentAttention,
    Mlp,
    Part,
    Product,
    Recurrent,
    SelfAttention,
    Split,
)
from perfmodel.catalog.hf.keys import Keys

RECURRENT_IN, RECURRENT_OUT, RECURRENT_GATES = "recurrent-in", "recurrent-out", "recurrent-gates"
_FULL = ("full_attention", "global", "attention")
_WINDOWED = ("sliding_attention", "chunked_attention", "local")


class QkNorm(Enum):
    """What scales queries and keys: nothing, one vector for all heads, one for each head."""

    NONE = 0
    SHARED = 1
    EACH = 2


def blocks(mixers: Sequence[tuple[Part, ...]], feeds: Sequence[tuple[Part, ...]], **of_all: Any) -> tuple[Block, ...]:
    """Layers by the parts of each that mix tokens and that do not, equal ones in one block."""
    kinds = Counter(zip(mixers, feeds, strict=True))
    return tuple(Block(count=count, parts=(*mixer, *feed), **of_all) for (mixer, feed), count in kinds.items())


def merged(found: Iterable[Block]) -> tuple[Block, ...]:
    """The same layers, equal blocks in one."""
    kinds: Counter[Block] = Counter()
    for block in found:
        kinds[msgspec.structs.replace(block, count=1)] += block.count
    return tuple(msgspec.structs.replace(block, count=count) for block, count in kinds.items())


def windows(keys: Keys, default: Callable[[int], bool], window: int | None = None) -> list[int | None]:
    """Tokens that each layer looks back at: by ``layer_types``, else in the layers that ``default`` names.

    ``window`` is the class's own, for configurations without ``sliding_window``.
    """
    window = keys.nullable("sliding_window", window)
    types = keys.of_layers("layer_types", (*_FULL, *_WINDOWED))
    layers = range(keys.layers())
    windowed = [default(layer) for layer in layers] if types is None else [kind in _WINDOWED for kind in types]
    return [window if here else None for here in windowed]


def periodic_windows(keys: Keys, period: int, window: int | None = None) -> list[int | None]:
    """Windows in all layers but every ``period``-th, where the configuration names no other pattern."""
    pattern = keys.get("sliding_window_pattern")
    if pattern and isinstance(pattern, str):  # "LLLG": three local layers, one global
        return windows(keys, lambda layer: pattern[layer % len(pattern)] == "L", window)
    period = keys.size("sliding_window_pattern", period)
    return windows(keys, lambda layer: (layer + 1) % period > 0, window)


def head_sizes(keys: Keys, *, grouped: bool = True, head_dim: int | None = None) -> dict[str, int]:
    """Heads, heads of keys and values, and the size of a head; keys and values of all heads if not ``grouped``.

    ``head_dim`` is the class's own; without it the heads share the hidden size.
    """
    heads = keys.size("num_attention_heads")
    if "head_dim" not in keys and head_dim is None and keys.size("hidden_size") % heads:
        shown = keys.shown("num_attention_heads"), keys.shown("hidden_size")
        raise ValueError(f"{shown[0]} is {heads}, allowed are divisors of {shown[1]} = {keys.size('hidden_size')}")
    head_dim = keys.size("head_dim", head_dim or keys.size("hidden_size") // heads or 1)
    kv_heads = keys.size("num_key_value_heads", heads) if grouped else heads
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}


def attention(
    keys: Keys, *, norm: QkNorm = QkNorm.NONE, grouped: bool = True, head_dim: int | None = None, **more: Any
) -> SelfAttention:
    """Self-attention as the usual keys describe it; ``head_dim`` is the class's own."""
    sizes = head_sizes(keys, grouped=grouped, head_dim=head_dim)
    scaled = {QkNorm.NONE: 0, QkNorm.SHARED: 2, QkNorm.EACH: sizes["heads"] + sizes["kv_heads"]}[norm]
    return SelfAttention(**({"scales": scaled * sizes["head_dim"]} | sizes | more))


def latent_attention(keys: Keys, **more: Any) -> LatentAttention:
    """Multi-head latent attention of DeepSeek's families."""
    keys.ignore("num_key_value_heads", "head_dim", "qk_head_dim")
    return LatentAttention(
        heads=keys.size("num_attention_heads"),
        query_rank=keys.nullable("q_lora_rank"),
        rank=keys.size("kv_lora_rank"),
        nope_dim=keys.size("qk_nope_head_dim"),
        rope_dim=keys.size("qk_rope_head_dim"),
        value_dim=keys.size("v_head_dim"),
        bias=keys.flag("attention_bias"),
        **more,
    )


def gated_mlp(keys: Keys, size: str = "intermediate_size", *, bias: bool = False) -> Mlp:
    """Three matrices."""
    return Mlp(size=keys.size(size), gated=True, bias=bias)


def experts(keys: Keys, size: int, **more: Any) -> Experts:
    """Gated experts of ``size`` inner values by the usual keys."""
    routed = {"count": keys.size("num_experts"), "per_token": keys.size("num_experts_per_tok")}
    return Experts(**(routed | {"size": size, "gated": True} | more))


def matrix(name: str, m: int, k: int, split: Split = Split.ROWS) -> Product:
    """A matrix of a recurrence; those that GPUs do not share are small and not pruned."""
    return Product(name=name, m=m, k=k, split=split, prunable=split is not Split.NONE)


def mamba(keys: Keys, *, inner: int, state: int, rank: int, kernel: int, **other: bool | int) -> Recurrent:
    """Selective state space (Mamba): a state of ``state`` values for each of ``inner`` channels.

    ``conv_bias`` and ``bias`` say whether convolution and projections add one; ``scales`` counts parameters of norms.
    """
    hidden = keys.size("hidden_size")
    biases = inner * other["conv_bias"] + (2 * inner + hidden) * other["bias"]
    return Recurrent(
        projections=(
            matrix(RECURRENT_IN, 2 * inner, hidden),
            matrix("recurrent-parameters", rank + 2 * state, inner, Split.NONE),
            matrix("recurrent-step", inner, rank, Split.NONE),
            matrix(RECURRENT_OUT, hidden, inner, Split.COLUMNS),
        ),
        state_values=inner * state,
        recent_values=inner * (kernel - 1),
        # convolution, A, D, and the bias of the step
        other=inner * kernel + inner * state + 2 * inner + biases + other.get("scales", 0),
    )


def mamba2(keys: Keys, *, heads: int, head_dim: int, groups: int, state: int, kernel: int, **other: bool) -> Recurrent:
    """State-space duality (Mamba-2): ``state`` times ``head_dim`` values for each head.

    ``conv_bias`` and ``bias`` say whether convolution and projections add one, ``norm`` whether the output has a scale;
    ``output_bias`` is meant where the two projections differ.
    """
    hidden, inner = keys.size("hidden_size"), heads * head_dim
    channels = inner + 2 * groups * state
    rows = inner + channels + heads
    biases = channels * other["conv_bias"] + rows * other["bias"] + hidden * other.get("output_bias", other["bias"])
    return Recurrent(
        projections=(matrix(RECURRENT_IN, rows, hidden), matrix(RECURRENT_OUT, hidden, inner, Split.COLUMNS)),
        state_values=inner * state,
        recent_values=channels * (kernel - 1),
        other=channels * kernel + 3 * heads + inner * other["norm"] + biases,  # of each head: A, D, bias of the step
    )


def gated_delta_net(keys: Keys) -> Recurrent:
    """Gated DeltaNet of Qwen3-Next: a matrix of keys times values for each head of values."""
    hidden, kernel = keys.size("hidden_size"), keys.size("linear_conv_kernel_dim", 4)
    key_dim, value_dim = keys.size("linear_key_head_dim", 128), keys.size("linear_value_head_dim", 128)
    heads = keys.size("linear_num_value_heads", 32)
    all_keys, all_values = keys.size("linear_num_key_heads", 16) * key_dim, heads * value_dim
    channels = 2 * all_keys + all_values
    return Recurrent(
        projections=(
            matrix(RECURRENT_IN, channels + all_values, hidden),
            matrix(RECURRENT_GATES, 2 * heads, hidden, Split.NONE),
            matrix(RECURRENT_OUT, hidden, all_values, Split.COLUMNS),
        ),
        state_values=heads * key_dim * value_dim,
        recent_values=channels * (kernel - 1),
        other=channels * kernel + 2 * heads + value_dim,
    )


def delta_attention(hidden: int, *, heads: int, head_dim: int, kernel: int) -> Recurrent:
    """Kimi Delta Attention: as Gated DeltaNet, with a forget gate for each channel; both gates of low rank."""
    inner = heads * head_dim
    return Recurrent(
        projections=(
            matrix(RECURRENT_IN, 3 * inner, hidden),
            matrix(RECURRENT_GATES, 2 * head_dim + heads, hidden, Split.NONE),
            matrix("recurrent-gates-up", 2 * inner, head_dim, Split.NONE),
            matrix(RECURRENT_OUT, hidden, inner, Split.COLUMNS),
        ),
        state_values=inner * head_dim,
        recent_values=3 * inner * (kernel - 1),
        other=3 * inner * kernel + inner + heads + head_dim,
    )


def lightning_attention(keys: Keys) -> Recurrent:
    """Linear attention of MiniMax-01: one matrix of keys times values for each head, and a gated output."""
    sizes, hidden = head_sizes(keys), keys.size("hidden_size")
    inner = sizes["heads"] * sizes["head_dim"]
    return Recurrent(
        projections=(
            matrix(RECURRENT_IN, 4 * inner, hidden),
            matrix(RECURRENT_OUT, hidden, inner, Split.COLUMNS),
        ),
        state_values=inner * sizes["head_dim"],
        recent_values=0,
        other=inner,
    )


def short_convolution(keys: Keys) -> Recurrent:
    """Gated convolution over ``conv_L_cache`` tokens of LFM2, which keeps inputs but no state."""
    hidden, kernel = keys.size("hidden_size"), keys.size("conv_L_cache", 3)
    return Recurrent(
        projections=(
            matrix(RECURRENT_IN, 3 * hidden, hidden),
            matrix(RECURRENT_OUT, hidden, hidden, Split.COLUMNS),
        ),
        state_values=0,
        recent_values=hidden * (kernel - 1),
        other=hidden * kernel + keys.flag("conv_bias") * 5 * hidden,
    )
