"""Inference systems: which matrices they keep dense, what hosted formats cost."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_model
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import ENGINES, SYSTEMS, load_system
from perfmodel.serving.transformer import Part
from tests.perfmodel.serving.cases import A100, FLASH, RUN


def test_matrices_under_half_sparsity_stay_dense():
    model = load_model("opt-30b")
    dense, same, sparse = weight_bytes(model, FLASH, [0.0, 0.49, 0.8])
    assert dense == same > sparse


def test_formats_without_a_kernel_model_read_their_bytes():
    dense, int4 = (evaluate("opt-30b", A100, name, **RUN) for name in ("fastertransformer", "fastertransformer+int4"))
    assert 0.2 < float(int4.parts[Part.MATMUL] / dense.parts[Part.MATMUL]) < 0.5
    assert float(int4.memory.weights) < 0.3 * float(dense.memory.weights)


def test_hosted_tiled_csl_is_flash_llm():
    hosted = evaluate("opt-30b", A100, "fastertransformer+tiled-csl", **RUN, sparsity=0.8)
    assert float(hosted.total_s) == float(evaluate("opt-30b", A100, FLASH, **RUN, sparsity=0.8).total_s)


def test_a_variant_is_hosted_by_its_own_name_only():
    plain, variant = (load_system(f"fastertransformer+{name}") for name in ("tiled-csl", "flash-llm-noreorder"))
    assert (plain.kernel, variant.kernel) == ("flash-llm", "flash-llm-noreorder")
    assert plain.format == variant.format


def test_engines_are_known_and_planned_nowhere():
    assert load_system("lmdeploy").attention.splits_context
    assert not set(ENGINES) & set(SYSTEMS)


def test_unknown_system_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean flash-llm"):
        evaluate("opt-30b", A100, "flashllm", batch=1)
    with pytest.raises(ValueError, match="unknown system 'deepspeed\\+int4'"):
        load_system("deepspeed+int4")
