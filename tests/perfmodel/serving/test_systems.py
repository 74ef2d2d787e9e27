"""Inference systems: which matrices they keep dense, what hosted formats cost."""

from __future__ import annotations

import msgspec
import pytest

from perfmodel.catalog import load_calibration, load_model
from perfmodel.catalog.language_model import Stored
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import ENGINES, SYSTEMS, load_system
from perfmodel.serving.transformer import Part
from tests.perfmodel.serving.cases import A100, FLASH, RUN, group


def test_matrices_under_half_sparsity_stay_dense():
    dense, same, sparse = weight_bytes(group(system=FLASH, sparsity=[0.0, 0.49, 0.8]))
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
    assert load_system("lmdeploy").engine.flash
    assert not set(ENGINES) & set(SYSTEMS)


def test_every_engine_has_a_host_and_takes_any_kernel():
    stored = load_calibration(CALIBRATION_FILE)
    for name, system in ENGINES.items():
        assert system.host in stored
        assert load_system(f"{name}+fp8").kernel == "fp8"
    assert load_system("vllm+flash-llm").engine == load_system("vllm").engine


def test_a_version_is_between_the_two_it_may_be():
    for name in ("vllm", "tensorrt-llm"):
        old, any_of_them, new = (evaluate("llama-3.1-8b", A100, name + end, **RUN).tpot_s for end in ("-v0", "", "-v1"))
        assert new < any_of_them < old


def test_a_quantised_checkpoint_is_read_as_it_is():
    model = load_model("llama-3.1-8b")
    stored = Stored(method="made up", formats=dict.fromkeys(("qkv", "attention-output", "mlp-in", "mlp-out"), "int4"))
    quantised = msgspec.structs.replace(model, stored=stored)
    for engine in ("vllm", "fastertransformer"):
        asked, own = (evaluate(m, A100, name, **RUN) for m, name in ((model, f"{engine}+int4"), (quantised, engine)))
        assert float(own.total_s) == pytest.approx(float(asked.total_s))
        assert float(own.memory.weights) == pytest.approx(float(asked.memory.weights))
    # A kernel of its own takes the checkpoint's place.
    sparse, same = (evaluate(m, A100, "vllm+flash-llm", **RUN, sparsity=0.7).total_s for m in (model, quantised))
    assert float(sparse) == float(same)


def test_unknown_system_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean flash-llm"):
        evaluate("opt-30b", A100, "flashllm", batch=1)
    with pytest.raises(ValueError, match="unknown system 'flash-llm\\+int4'"):
        load_system("flash-llm+int4")
