"""Whatever the public functions are given: finite numbers, or a ValueError that says in a sentence what is allowed."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel import (
    analysis,
    catalog,
    choice,
    formats,
    frontier,
    inverse,
    layer_wise,
    overtaking,
    prediction,
    roofline,
    serving,
    worth,
)
from perfmodel.kernels import kernel_model
from perfmodel.roofline import MemoryLevel
from perfmodel.serving import planning, profile, steady, tradeoff
from perfmodel.serving.systems import load_system
from perfmodel.serving.what_if import WhatIf

GPU, DENSE, BITMAP = catalog.load_gpu("a100-80gb"), formats.FORMATS["dense"], formats.FORMATS["bitmap"]
PRODUCT: dict[str, Any] = {"m": 4096, "k": 4096, "n": 8, "sparsity": 0.7}
ONE: dict[str, Any] = {"kernel": "flash-llm", "gpu": "a100-80gb"}
RUN: dict[str, Any] = {"model": "opt-13b", "gpu": "a100-80gb", "input_len": 64, "output_len": 64}
LENGTHS: dict[str, Any] = {"gpus": 1, "pipeline_parallel": 1, "expert_parallel": 1, "cache_bits": 16.0}
FOUND: dict[str, Any] = {"speedup": 1.2, "m": 4096, "k": 4096}
LEVEL: dict[str, Any] = {"level": MemoryLevel.L2}
# What is called, and with which good arguments.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "predict": (
        prediction.predict,
        ONE | PRODUCT | {"launch": "graph", "cache": "warm", "split_k": 2, "activations": "fp16"},
    ),
    "predict_all": (lambda **asked: list(prediction.predict_all(**asked)), {"gpu": "a100-80gb", **PRODUCT}),
    "left_out": (prediction.left_out, {"gpu": "a100-80gb", "n": 8, "sparsity": 0.7}),
    "load_gpu": (catalog.load_gpu, {"name_or_path": "a100-80gb"}),
    "load_device": (catalog.load_device, {"name_or_path": "xeon-emerald-rapids-2c@1"}),
    "load_model": (catalog.load_model, {"name_or_path": "opt-30b"}),
    "load_sparsities": (catalog.load_sparsities, {"path": "none.csv"}),
    "model_from_hf_config": (catalog.model_from_hf_config, {"path": "none.json"}),
    "read_kernel_times": (catalog.read_kernel_times, {"path": "none.csv"}),
    "load_table": (catalog.load_table, {"relative_path": "published/e2e.csv"}),
    "load_trace": (catalog.load_trace, {"variant": "dense_n8"}),
    "load_calibration": (catalog.load_calibration, {"file": "calibration/kernels.json"}),
    "load_kernel_times": (catalog.load_kernel_times, {"include": "published/kernel_a100.csv"}),
    "load_system": (load_system, {"name": "flash-llm"}),
    "kernel_model": (kernel_model, {"name": "flash-llm"}),
    "product_speedup": (inverse.product_speedup, ONE | PRODUCT),
    "sparsity_for_speedup": (inverse.sparsity_for_speedup, ONE | FOUND | {"n": 8}),
    "tokens_for_speedup": (inverse.tokens_for_speedup, ONE | FOUND | {"n": 8, "sparsity": 0.8}),
    "bandwidth_for_speedup": (inverse.bandwidth_for_speedup, ONE | FOUND | {"n": 8, "sparsity": 0.8}),
    "bandwidths_for_speedup": (inverse.bandwidths_for_speedup, ONE | FOUND | {"n": 8, "sparsity": 0.8}),
    "bytes": (BITMAP.bytes, {"m": 128, "k": 128, "sparsity": 0.5}),
    "bits_per_weight": (BITMAP.bits_per_weight, {"m": 128, "k": 128, "sparsity": 0.5}),
    "check_sparsity": (formats.check_sparsity, {"sparsity": 0.5}),
    "pattern_sparsity": (formats.pattern_sparsity, {"name": "2:4"}),
    "break_even_sparsity": (formats.break_even_sparsity, {"sparse": BITMAP, "other": DENSE, "m": 512, "k": 512}),
    "bytes_moved": (roofline.bytes_moved, {"fmt": DENSE, **LEVEL, **PRODUCT}),
    "level_bandwidth": (roofline.level_bandwidth, {"gpu": GPU, **LEVEL}),
    "intensity": (roofline.intensity, {"fmt": DENSE, **LEVEL, **PRODUCT}),
    "ridge_point": (roofline.ridge_point, {"gpu": GPU, **LEVEL}),
    "attainable_flops_per_s": (roofline.attainable_flops_per_s, {"gpu": GPU, "at_intensity": 10.0, **LEVEL}),
    "memory_time_floor": (roofline.memory_time_floor, {"fmt": DENSE, "gpu": GPU, **PRODUCT}),
    "roofline_time": (roofline.roofline_time, {"gpu": GPU, **PRODUCT, "fmt": BITMAP}),
    "bound": (roofline.bound, {"gpu": GPU, "fmt": DENSE, **PRODUCT}),
    "choose": (
        choice.choose,
        {
            "model": "opt-125m",
            "gpu": "a100-80gb",
            "batch": 8,
            "sparsity": 0.7,
            "gpus": 1,
            "formats": ("dense",),
            "kernels": (),
            "launch": "graph",
        },
    ),
    "worth": (
        worth.worth,
        {
            "model": "opt-125m",
            "gpu": "a100-80gb",
            "batches": (8,),
            "sparsity": 0.7,
            "gpus": 1,
            "kernels": ("flash-llm",),
        }
        | {"input_len": 64, "output_len": 64},
    ),
    "frontier": (
        frontier.frontier,
        {"model": "opt-13b", "gpu": "a100-80gb", "batch": 16, "input_len": 64, "output_len": 64, "gpus": 1}
        | {"metric": frontier.POINTS},
    ),
    "evaluate": (serving.evaluate, RUN | LENGTHS | {"system": "flash-llm", "batch": 8, "sparsity": 0.8}),
    "resolve": (serving.resolve, {"model": "opt-13b", "gpu": "a100-80gb", "system": "flash-llm"}),
    "serve": (steady.serve, RUN | {"system": "vllm", "users": 8, "chunk": 512}),
    "step_profile": (profile.step_profile, RUN | {"system": "vllm"}),
    "plan": (planning.plan, RUN | {"sparsity": 0.7, "systems": ("flash-llm",)}),
    "tradeoff": (
        tradeoff.tradeoff,
        RUN
        | {"batches": (8,), "sparsity": 0.7, "systems": ("vllm",), "engine": "vllm"}
        | {"ttft_s": 9.0, "tpot_s": 1.0, "gpus": 1},
    ),
    "WhatIf": (WhatIf, {field.name: field.default for field in dataclasses.fields(WhatIf)}),
    "layer_on": (overtaking.layer_on, {**ONE, "n": 8, "sparsity": 0.7, "model": "opt-30b"}),
    "overtaking": (overtaking.overtaking, {"gpu": "a100-80gb", "rival": "int8", "n": 8, "sparsities": (0.5, 0.8)}),
    "bests": (overtaking.bests, {"gpu": "a100-80gb", "n": 8, "sparsity": 0.7}),
    "winners": (overtaking.winners, {"gpu": "a100-80gb", "tokens": (8, 16), "sparsities": (0.5, 0.8)}),
    "crossover_sparsity": (
        analysis.crossover_sparsity,
        ONE | {"model": "opt-30b", "n": 8, "speedup": 1.0},
    ),
    "profile": (layer_wise.profile, {"name": "none"}),
    "value_where": (
        lambda **asked: inverse.value_where(lambda x: x, **asked),
        {"target": 0.5, "low": 0.1, "high": 1.0},
    ),
}
BAD: list[Any] = [
    None, True, "", "banana", "8", b"8", "\ud800", "a\0b", "x" * 5000, math.nan, math.inf, -math.inf, -1, 0, 1.5,
    10**400, -(10**400), 2**63, 1e308, 5e-324, 1j, [], [[]], [[1, 2], [3]], {}, set(), object(), len, ("a", 1),
    np.array(["a"]), np.array([None]), np.array([]), np.datetime64("2020-01-01"), np.float64("nan"), Path("none"),
    np.array([8.0, math.nan]), np.ma.masked_array([8], [True]), np.float16(8), np.array(8, np.complex64),
]  # fmt: skip


def fault(name: str, argument: str, value: Any) -> str | None:
    """What is wrong with the answer to one bad argument; None if it is refused or answered in silence."""
    function, good = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            function(**good | {argument: value})
        except ValueError as error:
            return None if str(error) and "\n" not in str(error) else f"no sentence: {error!r}"
        except Exception as error:  # whatever else there is, is a fault
            return f"{type(error).__name__}: {error}"
    return None


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_bad_arguments_are_refused_in_a_sentence(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    argument = data.draw(st.sampled_from(sorted(CALLS[name][1])))
    value = data.draw(st.sampled_from(BAD))
    found = fault(name, argument, value)
    assert found is None, f"{name}({argument}={value!r}): {found}"


def test_numpy_scalars_and_arrays_of_one_are_numbers() -> None:
    plain = prediction.predict(**ONE, **PRODUCT)
    for kind in (np.int64, np.float32, np.float64, np.array):
        given = {name: kind(value) if name != "sparsity" else np.float64(value) for name, value in PRODUCT.items()}
        assert prediction.predict(**ONE, **given).time_s == plain.time_s
    eight = {"batch": np.int64(8), "gpus": np.array(1)}
    assert choice.choose(**CALLS["choose"][1] | eight) == choice.choose(**CALLS["choose"][1])


def test_arrays_that_need_terabytes_are_refused_before_they_are_made() -> None:
    sizes = np.arange(1, 10**5 + 1)
    with pytest.raises(ValueError, match=r"1e\+1[05] points take .* GB, allowed are the .* GB"):
        prediction.predict("cublas", "a100-80gb", sizes[:, None, None], sizes[:, None], sizes)
