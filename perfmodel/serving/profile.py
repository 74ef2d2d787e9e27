"""Our step times as the tables that LLMServingSim schedules by, so that it can simulate sparse and quantised weights.

Its profiles hold one table a kind of kernel: ``dense`` (by tokens of a step), ``per_sequence`` (by sequences),
``attention`` (by prompt tokens, their cache, decoding sequences, and their cache) and ``moe`` (by tokens and experts
that got one), in microseconds of one layer. Names are those of its Llama and Qwen3-MoE catalogues. The host's time of a
step stands under ``sampler``.

References
----------
Cho et al., "LLMServingSim", IISWC 2024; https://github.com/casys-kaist/LLMServingSim, profiler/perf (version 1.0.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import (
    ATTENTION_OUTPUT,
    EXPERTS_IN,
    EXPERTS_OUT,
    MLP_IN,
    MLP_OUT,
    QKV,
    ROUTER,
    Block,
    Experts,
    Mlp,
    SelfAttention,
)
from perfmodel.serving import attention, experts, passes
from perfmodel.serving.group import Group, make_group
from perfmodel.serving.transformer import NORM_PASSES, block_matrices, head_matrices, local_kv_heads
from perfmodel.units import FP16_BYTES, MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

TOKENS: Array = np.exp2(np.arange(12.0))
SEQUENCES: Array = np.exp2(np.arange(9.0))
CHUNKS = np.array([0.0, *2.0 ** np.arange(4, 12)])
CONTEXTS = np.array([0.0, *2.0 ** np.arange(4, 15)])
PRODUCTS = {QKV: "qkv_proj", ATTENTION_OUTPUT: "o_proj", MLP_IN: "gate_up_proj", MLP_OUT: "down_proj"}


def step_profile(model: Any, gpu: Any, system: Any, **asked: Any) -> dict[str, pd.DataFrame]:
    """Tables by name, for a model whose layers are all alike.

    Parameters
    ----------
    model, gpu, system, asked
        As `perfmodel.serving.evaluate`, without the batch.

    Returns
    -------
    dict
        ``dense, per_sequence, attention`` and, with experts, ``moe``: times in microseconds.

    Raises
    ------
    ValueError
        If the model has several kinds of layers, or another attention; names it.
    """
    group, _ = make_group(model, gpu, system, **asked)
    block = _only_block(group)
    tables = {
        "dense": _dense(group, block),
        "per_sequence": _per_sequence(group),
        "attention": _attention(group, block),
    }
    return tables | ({"moe": _moe(group, block)} if block.experts else {})


def _only_block(group: Group) -> Block:
    blocks = group.model.shape.blocks
    kinds = (SelfAttention, Mlp | Experts)
    alike = len(blocks) == 1 and len(blocks[0].parts) == len(kinds)
    if not (alike and all(isinstance(part, kind) for part, kind in zip(blocks[0].parts, kinds, strict=True))):
        raise ValueError(f"{group.model.key} has layers of several kinds: its profile has no place in LLMServingSim")
    return blocks[0]


def _table(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    shaped = [np.ravel(column) for column in np.broadcast_arrays(*columns.values())]
    return pd.DataFrame(dict(zip(columns, shaped, strict=True)))


def _moved_us(group: Group, values: float) -> Array:
    """A small kernel that moves so many 16-bit values for each of `TOKENS`."""
    seconds = group.parameters.launch_s + FP16_BYTES * values * TOKENS / group.machine.streamed_bytes_per_s
    return np.asarray(seconds / MICRO)


def _dense(group: Group, block: Block) -> pd.DataFrame:
    import pandas as pd

    shape, part = group.model.shape, block.parts[0]
    assert isinstance(part, SelfAttention)  # `_only_block` has looked
    hidden, kept = shape.hidden_size, (part.heads + local_kv_heads(part, 1)) * part.head_dim
    times: dict[str, Any] = {
        "embedding": _moved_us(group, 2.0 * hidden),
        "layernorm": _moved_us(group, float(NORM_PASSES * hidden)),
        "rotary_emb": _moved_us(group, float(2 * kept) / float(group.p)),
        "final_layernorm": _moved_us(group, float(NORM_PASSES * hidden)),
    }
    inner = block.parts[1]
    if isinstance(inner, Mlp):
        times["act_fn"] = _moved_us(group, (3.0 if inner.gated else 2.0) * inner.size / float(group.p))
    for matrix in block_matrices(shape, block, group.p):
        if matrix.name in PRODUCTS:
            times[PRODUCTS[matrix.name]] = passes.stored_s(group, matrix, TOKENS) / MICRO
    return pd.concat([_table({"layer": name, "tokens": TOKENS, "time_us": us}) for name, us in times.items()])


def _per_sequence(group: Group) -> pd.DataFrame:
    import pandas as pd

    heads = head_matrices(group.model.shape, group.p)
    head = sum(passes.stored_s(group, matrix, SEQUENCES) for matrix in heads) / MICRO
    host = (group.host.step_s + group.host.sequence_s * SEQUENCES) / MICRO
    tables = {"lm_head": head, "sampler": host}
    return pd.concat([_table({"layer": name, "sequences": SEQUENCES, "time_us": us}) for name, us in tables.items()])


def _attention(group: Group, block: Block) -> pd.DataFrame:
    """Prompt and decoding sequences of a step one after the other; a step without either is left out."""
    part = block.parts[0]
    assert isinstance(part, SelfAttention)
    heads, kv_heads = part.heads / group.p, local_kv_heads(part, group.p)
    chunk, before, count, context = np.meshgrid(CHUNKS, CONTEXTS, [0.0, *SEQUENCES], CONTEXTS, indexing="ij")
    real = ((chunk > 0) | (before == 0)) & ((count > 0) == (context > 0)) & (chunk + count > 0)
    chunk, before, count, context = (axis[real] for axis in (chunk, before, count, context))
    sizes = (heads, kv_heads, part.head_dim)
    read = attention.prompt(group.gpu, 1.0, np.maximum(chunk, 1.0), *sizes, before=before)
    decoded = attention.decode(group.gpu, np.maximum(count, 1.0), np.maximum(context, 1.0), *sizes, group.cache_bytes)
    seconds = np.where(chunk > 0, read.time_s, 0.0) + np.where(count > 0, decoded.time_s, 0.0)
    columns = {"prefill_chunk": chunk, "kv_prefill": before, "n_decode": count, "kv_decode": context}
    return _table({**columns, "time_us": seconds / MICRO}).astype(dict.fromkeys(columns, "int64"))


def _moe(group: Group, block: Block) -> pd.DataFrame:
    """Both products of so many experts that share the tokens evenly, and what sorts them; the router's product too."""
    inner = block.experts
    assert inner is not None
    matrices = {matrix.name: matrix for matrix in block_matrices(group.model.shape, block, group.p)}
    tokens, active = np.meshgrid(TOKENS, np.unique(np.append(2.0 ** np.arange(13), inner.count)), indexing="ij")
    real = (active <= np.minimum(inner.count, tokens * inner.per_token)) & (active >= inner.per_token)
    tokens, active = tokens[real], active[real]
    load = experts.Load(active, np.maximum(tokens * inner.per_token / active, 1.0), np.zeros(()))
    hidden = group.model.shape.hidden_size
    seconds = experts.permutation(group.gpu, load.rows, hidden, inner.size / group.p).time_s
    seconds = seconds + passes.stored_s(group, matrices[ROUTER], tokens)
    for name in (EXPERTS_IN, EXPERTS_OUT):
        for how, sparsity, share in group.stored(matrices[name]):
            seconds = seconds + share * passes.grouped(group, how, matrices[name], sparsity, load).time_s
    return _table({"tokens": tokens, "activated_experts": active, "time_us": seconds / MICRO})
