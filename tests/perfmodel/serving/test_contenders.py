"""Who takes part in a comparison, by engine, GPU, sparsity and format."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_gpu
from perfmodel.kernels import BOUNDED, KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, STANDINGS, WHOLE, rivals
from perfmodel.serving.contenders import change, hosted_systems, of_formats, rival_systems
from perfmodel.serving.systems import ENGINES, HOST, SYSTEMS, load_system

MODERN = ("vllm", "sglang", "tensorrt-llm-v1")


@pytest.mark.parametrize("engine", [HOST, *MODERN])
def test_an_engine_hosts_every_measured_kernel_once(engine: str) -> None:
    hosted = hosted_systems(engine)
    assert len(set(hosted.values())) == len(hosted)
    for name, kernel in hosted.items():
        system = load_system(name)
        assert (name, system.kernel) == (f"{engine}+{kernel}", kernel)
        assert system.engine == load_system(engine).engine
    own = {"cublas", "flash-llm"} if engine == HOST else {"cublas"}
    able = {model.name for model in rivals() if not model.one_token}
    assert set(hosted.values()) == able - BOUNDED - own


def test_flash_llm_is_a_kernel_of_engines_and_a_system_beside_fastertransformer() -> None:
    assert "flash-llm" not in hosted_systems().values()
    assert hosted_systems("vllm")["vllm+flash-llm"] == "flash-llm"
    assert set(hosted_systems("vllm").values()) == {*hosted_systems().values(), "flash-llm"}


@pytest.mark.parametrize("engine", MODERN)
def test_a_plan_for_an_engine_compares_it_alone(engine: str) -> None:
    names = rival_systems("h100", 0.6, engine)
    assert names[0] == engine
    assert all(name.startswith(f"{engine}+") for name in names[1:])
    assert not set(names) & set(SYSTEMS)
    assert rival_systems(load_gpu("h100"), 0.6, engine) == names


def test_the_papers_systems_stand_beside_fastertransformers_kernels() -> None:
    names = rival_systems("a100-80gb", 0.6)
    assert names[:3] == tuple(SYSTEMS)
    assert all(name.startswith(f"{HOST}+") for name in names[3:])
    assert not set(names) & set(ENGINES)


@pytest.mark.parametrize("gpu", ["v100", "a100-80gb", "h100", "b200", "mi300x"])
def test_what_the_gpu_refuses_takes_no_part(gpu: str) -> None:
    names, card = rival_systems(gpu, 0.6, "vllm"), load_gpu(gpu)
    assert all(load_system(name).refusal(card) is None for name in names)
    left_out = set(hosted_systems("vllm")) - set(names)
    for name in left_out:
        model = KERNELS[load_system(name).kernel]
        kept_dense = model.format.prunes and change(load_system(name), 0.6) in WHOLE
        assert model.refusal(card) is not None or kept_dense


def test_fp8_asks_for_its_tensor_cores() -> None:
    assert "vllm+fp8" in rival_systems("h100", 0.0, "vllm")
    assert "vllm+fp8" not in rival_systems("a100-80gb", 0.0, "vllm")


def test_sparsity_decides_which_patterns_and_sparse_kernels_take_part() -> None:
    dense, quarter, half = (set(rival_systems("h100", s, "vllm")) for s in (0.0, 0.25, 0.5))
    assert dense < quarter < half
    assert "vllm+six-eight" in quarter - dense
    assert "vllm+two-four" in half - quarter
    assert {"vllm", "vllm+int4", "vllm+fp8"} <= dense
    changes = {change(load_system(name), 0.0) for name in dense}
    assert changes <= set(WHOLE)


def test_what_becomes_of_the_weights() -> None:
    expected = {
        "vllm": "lossless", "vllm+fp8": "rounded", "vllm+int4": "rounded", "vllm+bitmap": "pruned",
        "vllm+two-four-fp8": "pruned and rounded", "vllm+lscd-bitmap-8": "not measured", "vllm+mxfp4": "not measured",
    }  # fmt: skip
    assert {name: change(load_system(name), 0.7) for name in expected} == expected
    assert change(load_system("flash-llm"), 0.4) == "lossless"  # it keeps such matrices dense
    assert change(load_system("flash-llm"), 0.5) == "pruned"
    names = rival_systems("h100", 0.7, "vllm")
    assert {change(load_system(name), 0.7) for name in names} <= set(STANDINGS) - {NOT_MEASURED}


def test_formats_choose_among_systems_and_dense_stays() -> None:
    names = rival_systems("h100", 0.6, "vllm")
    assert of_formats(names, []) == names
    assert of_formats(names, ["int4"]) == ("vllm", "vllm+int4")
    kept = of_formats(names, ["tiled-csl", "bitmap"])
    assert {load_system(name).format.name for name in kept} == {"dense", "tiled-csl", "bitmap"}
    assert "vllm+flash-llm" in kept
    assert of_formats(["fastertransformer", "flash-llm"], ["tiled-csl"]) == ("fastertransformer", "flash-llm")


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (["itn4"], "unknown format 'itn4': did you mean int4"),
        (["csr"], "no system compared stores weights in csr; name one with --systems"),
        (["csr", "mxfp4"], "no system compared stores weights in csr or mxfp4"),
    ],
)
def test_formats_that_choose_nothing_are_a_sentence(formats: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_formats(rival_systems("h100", 0.6, "vllm"), formats)
