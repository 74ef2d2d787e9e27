"""Published layouts, file by file: values code by code, bits and zeros; the others by name, never as weights."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels_numba.checkpoints.census import take_census
from kernels_numba.checkpoints.checkpoint import (
    chosen_matrices,
    is_matrix,
    prune_checkpoint,
    weight_matrices,
)
from kernels_numba.checkpoints.container import convert_checkpoint
from kernels_numba.checkpoints.layouts.recognise import packed_matrices, pieces_of
from kernels_numba.checkpoints.pruning import Method, PruningRule
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from tests.kernels_numba.checkpoints.files import save
from tests.kernels_numba.checkpoints.layouts.files import DECODED, NAMED, STEM, K, Layout, M, fp8, gptq

PLAIN = {
    "model.layers.0.self_attn.q_proj.weight": ("F16", np.ones((8, 8), np.float16)),
    "model.layers.0.input_layernorm.weight": ("F16", np.ones(8, np.float16)),
}
BUILT: dict[str, Layout] = {}
HALF = PruningRule(Method.MAGNITUDE, 0.5)


@pytest.mark.parametrize("case", DECODED)
def test_values_bits_and_zeros_of_each_layout(tmp_path: Path, case: str) -> None:
    layout = DECODED[case]()
    (packed,) = packed_matrices(open_checkpoint(layout.write(tmp_path, PLAIN)))
    assert (packed.name, packed.what) == (layout.name, layout.what)
    assert set(packed.parts) == {f"{STEM}{end}" for end in layout.tensors}
    assert layout.values is not None
    assert packed.shape == layout.values.shape
    np.testing.assert_array_equal(packed.values(), layout.values)
    blocks = list(packed.row_blocks(128))
    np.testing.assert_array_equal(np.concatenate(blocks), layout.values)
    assert packed.bits_per_weight == pytest.approx(8 * layout.nbytes / layout.values.size)
    census = take_census(packed.shape, "F32", packed.row_blocks(128))
    assert census.sparsity == pytest.approx(float((layout.values == 0).mean()), abs=1e-12)


def test_a_pattern_of_two_in_four_reads_half(tmp_path: Path) -> None:
    layout = DECODED["sparse-24-bitmask"]()
    (packed,) = packed_matrices(open_checkpoint(layout.write(tmp_path)))
    zeros = int((packed.values() == 0).sum())
    assert zeros == M * K // 2 + 1  # one stored value is zero
    assert packed.coding is not None
    assert packed.coding.pattern


def test_marlin_24_is_counted_though_its_places_are_unknown(tmp_path: Path) -> None:
    layout = NAMED["Marlin-24"]()
    (packed,) = packed_matrices(open_checkpoint(layout.write(tmp_path)))
    assert packed.what == layout.what
    assert packed.zeros is not None
    assert packed.zeros() == layout.zeros
    with pytest.raises(ValueError, match="Marlin-24, INT4 g128 2:4, which is not decoded here"):
        packed.values()


@pytest.mark.parametrize("case", [*DECODED, *NAMED])
def test_nothing_in_pieces_is_taken_for_weights(tmp_path: Path, case: str) -> None:
    """Not by default, not when asked for by name, and not by the functions that are handed names."""
    layout = {**DECODED, **NAMED}[case]()
    path = layout.write(tmp_path, PLAIN)
    before, out = path.read_bytes(), tmp_path / "out.safetensors"
    source = open_checkpoint(path)
    names, packed = chosen_matrices(source)
    assert names == ["model.layers.0.self_attn.q_proj.weight"]
    assert [matrix.what for matrix in packed] == [layout.what]
    assert {f"{STEM}{end}" for end in layout.tensors} <= pieces_of(source, packed)
    for choice in ({}, {"include": [f"*{end}" for end in layout.tensors]}):
        with pytest.raises(ValueError, match=r"stored in pieces|none is left") as refused:
            weight_matrices(source, **choice)
        assert layout.what in str(refused.value)
        assert "start from the checkpoint in 16 or 32 bits, or dequantise it first" in str(refused.value)
    for piece in [f"{STEM}{end}" for end in layout.tensors if is_matrix(source.info(f"{STEM}{end}"))]:
        with pytest.raises(ValueError, match="a piece of a matrix"):
            prune_checkpoint(source, out, HALF, [piece])
        with pytest.raises(ValueError, match="a piece of a matrix"):
            convert_checkpoint(source, out, "csr", [piece])
    assert path.read_bytes() == before
    assert not out.exists()
    chosen = weight_matrices(source, exclude=[f"{STEM}*"])
    prune_checkpoint(source, out, HALF, chosen)
    pruned = open_checkpoint(out)
    for end in layout.tensors:
        assert pruned.read(f"{STEM}{end}").tobytes() == source.read(f"{STEM}{end}").tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "q.scales", "q.qzeros", "q.weight_scale_inv", "q.weight.absmax", "q.centroids.weight", "q.s", "q.codebooks",
        "q.lookup_table", "q.s1_szeros", "experts.w1_scales", "q.weights_scaling_factor", "model.scale_table",
        "q.weight_mask", "q.wscales", "q.qweight",
    ],
)  # fmt: skip
def test_parameters_of_codes_that_lie_in_another_file_are_no_weights(tmp_path: Path, name: str) -> None:
    """A shard may hold scales whose codes are in the next one."""
    tensors = {name: np.ones((4, 128), np.float16), "up.weight": np.ones((4, 128), np.float16)}
    source = open_checkpoint(save(tmp_path / "x.safetensors", tensors, dict.fromkeys(tensors, "F16")))
    assert weight_matrices(source) == weight_matrices(source, include=["*"]) == ["up.weight"]
    with pytest.raises(ValueError, match="a piece of a matrix"):
        prune_checkpoint(source, tmp_path / "out.safetensors", HALF, [name])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("embeddings.position_ids", "I64"), ("attn.relative_position_index", "I64"), ("bn.num_batches_tracked", "I64"),
        ("h.0.attn.bias", "U8"), ("h.0.attn.masked_bias", "I32"), ("d2t", "I64"), ("gate.tid2eid", "I64"),
    ],
)  # fmt: skip
def test_integers_that_count_and_order_make_no_layout(tmp_path: Path, name: str, dtype: str) -> None:
    module = name.rpartition(".")[0]
    weight = f"{module}.weight" if module else "weight"
    types = {"I64": np.int64, "I32": np.int32, "U8": np.uint8}
    tensors = {name: np.ones((4, 16), types[dtype]), weight: np.ones((4, 16), np.float16)}
    source = open_checkpoint(save(tmp_path / "x.safetensors", tensors, {name: dtype, weight: "F16"}))
    assert packed_matrices(source) == []
    assert weight_matrices(source, include=["*"]) == [weight]


@pytest.mark.parametrize(
    "name",
    [
        "rotary_emb.inv_freq", "model.freqs_cis", "mixer.A_log", "conv1d.weight", "block.gate.weight", "router.weight",
        "attn.relative_position_bias_table", "q.lora_A.weight", "q.lora_B.weight", "rotary.cos_cached", "shared.weight",
        "time_decay",
    ],
)  # fmt: skip
def test_tables_and_adapters_are_left_alone_unless_asked_for(tmp_path: Path, name: str) -> None:
    tensors = {
        name: np.ones((8, 1 if name == "time_decay" else 8), np.float32),
        "up.weight": np.ones((8, 8), np.float32),
    }
    source = open_checkpoint(save(tmp_path / "x.safetensors", tensors, dict.fromkeys(tensors, "F32")))
    assert weight_matrices(source) == ["up.weight"]
    assert weight_matrices(source, include=[name]) == [name]


BROKEN = {
    "g_idx beyond the groups": (lambda: gptq(4, 64, 1), ".g_idx", lambda x: x + 99, "g_idx: points outside"),
    "columns of another matrix": (DECODED["pack-quantized 4"], ".weight_shape", lambda x: x * 2, None),
    "rows of another matrix": (DECODED["pack-quantized 4"], ".weight_shape", lambda x: x - np.array([1, 0]), None),
    "bits without values": (DECODED["sparse-bitmask"], ".bitmask", lambda x: x | 1, "bits set"),
    "scales of no regular grain": (lambda: fp8("row"), ".weight_scale", lambda x: x[:100], None),
    "quant_state no JSON": (
        DECODED["bitsandbytes 4"], ".weight.quant_state.bitsandbytes__nf4", lambda x: x[:-9], None,
    ),
    "absmax too short": (DECODED["bitsandbytes 4"], ".weight.absmax", lambda x: x[:-1], None),
    "zero points too few": (lambda: gptq(4, 64, 1), ".qzeros", lambda x: x[:-1], None),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_pieces_that_contradict_each_other_are_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    build, end, change, message = BROKEN[case]
    layout = build()
    dtype, values = layout.tensors[end]
    layout.tensors[end] = (dtype, np.ascontiguousarray(change(values).astype(values.dtype)))
    path = layout.write(tmp_path)
    (packed,) = packed_matrices(open_checkpoint(path))
    with pytest.raises(ValueError, match=message or "not decoded here: (its|no|unknown)"):
        packed.values()
    with pytest.raises(ValueError, match="stored in pieces"):
        weight_matrices(open_checkpoint(path))


def test_what_corrects_codes_is_no_matrix(tmp_path: Path) -> None:
    """Tensors beside a matrix in pieces belong to it, though the layout knows nothing of them."""
    low_rank = (f"{STEM}.low_rank", ("F16", np.ones((M, 8), np.float16)))
    source = open_checkpoint(DECODED["GPTQ 4"]().write(tmp_path, PLAIN | dict([low_rank])))
    assert chosen_matrices(source, ["*"])[0] == ["model.layers.0.self_attn.q_proj.weight"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(DECODED)), st.sampled_from(["gone", "noise", "short", "flat", "turned", "other type"]),
    st.integers(0, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_broken_pieces_end_in_a_sentence_and_are_never_weights(
    tmp_path: Path, case: str, fault: str, which: int, seed: int
) -> None:
    layout = BUILT.setdefault(case, DECODED[case]())
    tensors = {f"{STEM}{end}": entry for end, entry in layout.tensors.items()}
    name = sorted(tensors)[which % len(tensors)]
    dtype, values = tensors.pop(name)
    rng, flat = np.random.default_rng(seed), np.frombuffer(values.tobytes(), np.uint8)
    faults = {
        "noise": lambda: (
            dtype,
            np.frombuffer(rng.bytes(len(flat)), np.uint8).view(values.dtype).reshape(values.shape),
        ),
        "short": lambda: (dtype, values[: rng.integers(len(values))] if values.ndim else values[None]),
        "flat": lambda: (dtype, values.reshape(-1)),
        "turned": lambda: (dtype, np.ascontiguousarray(values.T)),
        "other type": lambda: ("U8", flat.reshape(*values.shape, -1)),
    }
    if fault in faults:
        tensors[name] = faults[fault]()
    if not tensors:
        return
    arrays = {key: values for key, (_, values) in tensors.items()}
    path = save(tmp_path / "x.safetensors", arrays, {key: dtype for key, (dtype, _) in tensors.items()})
    with suppress(ValueError):
        names, packed = chosen_matrices(open_checkpoint(path))
        assert [key for key in names if not key.endswith("weight_orig")] == []
        for matrix in packed:
            matrix.values()


def test_numbers_that_stand_alone_are_no_codes(tmp_path: Path) -> None:
    """A tokenizer's model within the file, say."""
    tensors = {"spiece_model": np.ones(99, np.uint8), "up.weight": np.ones((4, 16), np.float16)}
    source = open_checkpoint(save(tmp_path / "x.safetensors", tensors, {"spiece_model": "U8", "up.weight": "F16"}))
    assert weight_matrices(source) == ["up.weight"]


def test_without_a_config_mlx_does_not_say_its_bits(tmp_path: Path) -> None:
    layout = DECODED["MLX"]()
    layout.config = {}
    (packed,) = packed_matrices(open_checkpoint(layout.write(tmp_path)))
    assert packed.layout == "MLX"
    assert packed.decoder is None
