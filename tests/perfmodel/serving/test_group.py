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
from perfmodel.serving.group import Group
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.run import make_group
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
