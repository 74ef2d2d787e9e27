"""How the matrices of a model are stored: pruned alike or layer by layer, quantised already, or left alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.decoder import LM_HEAD, MLP_IN, MLP_OUT, QKV, ROUTER
from perfmodel.catalog.language_model import LanguageModel, Stored
from perfmodel.catalog.sparsities import LayerSparsity, Sparsities
from perfmodel.formats import FORMATS
from perfmodel.serving.group import Group, make_group
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import load_system
from perfmodel.serving.transformer import Matrix, all_matrices, head_matrices
from tests.perfmodel.serving.cases import group as on_one_gpu

H100 = load_gpu("h100")
LAYERS = 32
LENGTHS = {"input_len": 64, "output_len": 64}


def group(model: str | LanguageModel = "llama-3.1-8b", system: str = "vllm+bitmap", **how: object) -> Group:
    return on_one_gpu(model, H100, system, **how)


def matrix(of: Group, name: str) -> Matrix:
    shape = of.model.shape
    return next(found for found in [*all_matrices(shape), *head_matrices(shape, np.ones(()))] if found.name == name)


def by_layer(**levels: list[float]) -> Sparsities:
    """Matrices whose layers cycle through these sparsities."""
    return Sparsities(
        source="mine.csv",
        matrices={
            name.replace("_", "-"): tuple(
                LayerSparsity(layer=layer, sparsity=shares[layer % len(shares)]) for layer in range(LAYERS)
            )
            for name, shares in levels.items()
        },
    )


def pruned(sparsities: Sparsities, system: str = "vllm+bitmap") -> Group:
    return make_group("llama-3.1-8b", H100, system, sparsity=sparsities, **LENGTHS)[0]


def quantised(formats: dict[str, str], **how: object) -> Group:
    model = msgspec.structs.replace(load_model("llama-3.1-8b"), stored=Stored(method="mine", formats=formats))
    return group(model, **{"system": "vllm", **how})


def test_one_sparsity_is_that_of_every_prunable_matrix() -> None:
    found = group(sparsity=0.7)
    for name in (QKV, MLP_IN):
        own = matrix(found, name)
        assert found.as_stored(own) is None
        ((system, sparsity, share),) = found.stored(own)
        assert (system.kernel, float(sparsity), share) == ("bitmap", 0.7, 1.0)
        assert float(found.bytes_of(own)) == float(FORMATS["bitmap"].bytes_of(own.m, own.k, 0.7))


@pytest.mark.parametrize(("model", "name"), [("llama-3.1-8b", LM_HEAD), ("mixtral-8x7b", ROUTER)])
def test_what_pruning_leaves_alone_stays_dense(model: str, name: str) -> None:
    found = group(model, sparsity=0.9)
    own = matrix(found, name)
    assert not own.prunable
    ((system, sparsity, share),) = found.stored(own)
    assert (system.kernel, float(sparsity), share) == ("cublas", 0.0, 1.0)
    assert float(found.bytes_of(own)) == 2 * float(own.m * own.k)


def test_sparsities_by_layer_are_their_mean_in_bytes() -> None:
    found = pruned(by_layer(qkv=[0.5, 0.7, 0.9, 0.7], mlp_in=[0.6]))
    own = matrix(found, QKV)
    kinds = [(system.kernel, float(sparsity), share) for system, sparsity, share in found.stored(own)]
    assert kinds == [("bitmap", 0.5, 0.25), ("bitmap", 0.7, 0.5), ("bitmap", 0.9, 0.25)]
    each = {s: float(FORMATS["bitmap"].bytes_of(own.m, own.k, s)) for s in (0.5, 0.7, 0.9)}
    assert float(found.bytes_of(own)) == pytest.approx(each[0.5] / 4 + each[0.7] / 2 + each[0.9] / 4)
    one = matrix(found, MLP_IN)
    assert float(found.bytes_of(one)) == float(group(sparsity=0.6).bytes_of(one))


def test_a_matrix_that_the_file_lacks_has_no_zeros() -> None:
    found = pruned(by_layer(qkv=[0.7]))
    own = matrix(found, MLP_OUT)
    assert [(float(sparsity), share) for _, sparsity, share in found.stored(own)] == [(0.0, 1.0)]


def test_layers_alike_are_one_sparsity() -> None:
    names = ("qkv", "attention_output", "mlp_in", "mlp_out")
    alike = pruned(by_layer(**{name: [0.7] for name in names}))
    assert float(weight_bytes(alike)) == pytest.approx(float(weight_bytes(group(sparsity=0.7))), rel=1e-12)


def test_a_system_keeps_sparse_layers_only() -> None:
    """Flash-LLM stores matrices of less than half zeros dense, so a layer at 0.3 has two bytes a weight."""
    found = pruned(by_layer(qkv=[0.3, 0.9]), "flash-llm")
    own = matrix(found, QKV)
    sparse = float(FORMATS["tiled-csl"].bytes_of(own.m, own.k, 0.9))
    assert float(found.bytes_of(own)) == pytest.approx((2 * float(own.m * own.k) + sparse) / 2)


def test_a_pattern_has_its_own_sparsity_in_every_layer() -> None:
    found = pruned(by_layer(qkv=[0.6, 0.8]), "vllm+two-four")
    own = matrix(found, QKV)
    assert {float(sparsity) for _, sparsity, _ in found.stored(own)} == {0.5}
    assert sum(share for *_, share in found.stored(own)) == pytest.approx(1)


def test_a_quantised_checkpoint_is_read_as_it_is() -> None:
    found, plain = quantised({MLP_IN: "int4", LM_HEAD: "int8"}), group(system="vllm")
    for name, fmt in ((MLP_IN, "int4"), (LM_HEAD, "int8")):
        own = matrix(found, name)
        stored = found.as_stored(own)
        assert stored is not None
        assert stored.kernel == fmt
        assert stored.engine == found.system.engine
        assert float(found.bytes_of(own)) == float(FORMATS[fmt].bytes_of(own.m, own.k, 0.0))
    own = matrix(found, QKV)  # absent: 16 bits
    assert found.as_stored(own) is None
    assert float(found.bytes_of(own)) == float(plain.bytes_of(own)) == 2 * float(own.m * own.k)


def test_a_quantised_pattern_comes_with_its_zeros() -> None:
    found = quantised({MLP_IN: "4:6"})
    ((system, sparsity, share),) = found.stored(matrix(found, MLP_IN))
    assert system.pattern == pytest.approx(1 / 3)
    assert (float(sparsity), share) == (pytest.approx(1 / 3), 1.0)


def test_a_format_of_its_own_replaces_that_of_the_checkpoint() -> None:
    found = quantised({MLP_IN: "int4"}, system="vllm+fp8")
    own = matrix(found, MLP_IN)
    assert found.as_stored(own) is None
    assert float(found.bytes_of(own)) == float(group(system="vllm+fp8").bytes_of(own))


def test_a_cached_value_has_its_bits() -> None:
    assert group().cache_bytes == 2
    assert group(cache_bits=8).cache_bytes == 1
    model = msgspec.structs.replace(
        load_model("llama-3.1-8b"), stored=Stored(method="mine", formats={}, cache_bits=8)
    )  # fmt: skip
    assert make_group(model, H100, "vllm", **LENGTHS)[0].cache_bytes == 1
    assert make_group(model, H100, "vllm", cache_bits=4, **LENGTHS)[0].cache_bytes == 0.5


@pytest.mark.parametrize("gpu", ["a100-80gb", "h100", "l40s", "rtx-4090"])
@pytest.mark.parametrize(("stored", "kernel"), [("mxfp4", "int4"), ("nvfp4", "int4"), ("fp8-block", "int8")])
def test_weights_whose_tensor_cores_are_missing_are_expanded(gpu: str, stored: str, kernel: str) -> None:
    """What runs as it is elsewhere takes about the time of INT4 or INT8 weights, and its own bytes."""
    model = msgspec.structs.replace(
        load_model("llama-3.1-8b"),
        stored=Stored(method="mine", formats=dict.fromkeys(("qkv", "attention-output", "mlp-in", "mlp-out"), stored)),
    )
    card = load_gpu(gpu)
    own = evaluate(model, card, "vllm", batch=1, **LENGTHS)
    alike = evaluate("llama-3.1-8b", card, f"vllm+{kernel}", batch=1, **LENGTHS)
    assert np.isfinite(own.total_s)
    if load_system(f"vllm+{stored}").refusal(card) is not None:
        assert float(own.tpot_s / alike.tpot_s) == pytest.approx(1, abs=0.1)
    read = matrix(on_one_gpu(model, card, "vllm"), QKV)
    assert float(on_one_gpu(model, card, "vllm").bytes_of(read)) == pytest.approx(
        float(FORMATS[stored].bytes_of(read.m, read.k, 0.0))
    )


def test_what_no_kernel_expands_is_refused() -> None:
    with pytest.raises(ValueError, match=r"system 'vllm\+fp8-block': .*AMD"):
        on_one_gpu("deepseek-v3", load_gpu("mi300x"), "vllm").bytes_of(matrix(group("deepseek-v3", "vllm"), MLP_IN))


def test_checkpoints_that_were_released_in_few_bits_are_read_so() -> None:
    bytes_each = {name: weight_bytes(group(name, "vllm")) for name in ("gpt-oss-120b", "deepseek-v3", "minimax-m2")}
    published_gb = {
        "gpt-oss-120b": 60.8 * 1.0737,
        "deepseek-v3": 674,
        "minimax-m2": 230,
    }  # OpenAI: 60.8 GiB; files without MTP
    for name, size in published_gb.items():
        assert float(bytes_each[name]) / 1e9 == pytest.approx(size, rel=0.03)


def test_vllm_shares_the_token_table() -> None:
    model = load_model("llama-3.1-8b").shape
    table = 2 * model.vocab_size * model.hidden_size
    whole, split = (
        weight_bytes(on_one_gpu("llama-3.1-8b", H100, system, p=np.array(8.0)))
        for system in ("fastertransformer", "vllm")
    )
    assert float(whole - split) == pytest.approx(table * 7 / 8)
