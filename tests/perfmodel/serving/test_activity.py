"""How busy memory and Tensor Cores are, and the energy that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.serving.energy import sustained_bytes_per_s, sustained_flops_share
from perfmodel.serving.run import Serving, evaluate
from tests.perfmodel.serving.cases import A100, FT

H100 = load_gpu("h100")
BATCHES = np.array([1, 8, 64, 256])
RUNS = {
    "dense": ("llama-3.1-8b", "h100", "vllm", {}),
    "paper": ("opt-30b", "a100-80gb", "fastertransformer", {}),
    "sparse": ("llama-3.1-8b", "h100", "vllm+bitmap", {"sparsity": 0.7}),
    "int4": ("llama-3.1-8b", "h100", "vllm+int4", {}),
    "experts": ("qwen3-30b-a3b", "h100", "vllm", {}),
    "spread": ("deepseek-v3", "h200", "vllm", {"gpus": 8, "expert_parallel": 8}),
    "recurrent": ("bamba-9b", "h100", "vllm", {}),
    "shared": ("opt-66b", "a100-80gb", "fastertransformer", {"gpus": 4}),
    "stages": ("opt-30b", "a100-80gb", "fastertransformer", {"gpus": 2, "pipeline_parallel": 2}),
}


def run(kind: str = "dense", **asked: Any) -> Serving:
    model, gpu, system, how = RUNS[kind]
    return evaluate(model, gpu, system, **{"batch": BATCHES, "input_len": 64, "output_len": 256} | how | asked)


@pytest.mark.parametrize("kind", RUNS)
def test_shares_are_shares(kind: str) -> None:
    found = run(kind)
    for share in found.busy():
        assert share.shape == found.total_s.shape
        assert ((share > 0) & (share <= 1.1)).all()


@pytest.mark.parametrize("kind", ["dense", "paper", "recurrent", "shared"])
def test_one_sequence_keeps_the_memory_busy(kind: str) -> None:
    memory, tensor = run(kind, batch=1).busy()
    assert float(memory) > 0.5
    assert float(tensor) < 0.05


@pytest.mark.parametrize("system", ["vllm", "fastertransformer"])
def test_a_long_prompt_keeps_the_tensor_cores_busy(system: str) -> None:
    memory, tensor = evaluate("llama-3.1-8b", H100, system, batch=8, input_len=8192, output_len=1).busy()
    assert 0.7 < float(tensor) <= 1.1
    assert float(memory) < 0.1


def test_busy_by_hand() -> None:
    """One token after a prompt of one: every weight but the token table is read twice, 2 FLOP each, and little else."""
    found = evaluate("opt-30b", A100, FT, batch=1, input_len=1, output_len=2)
    memory, tensor = found.busy()
    weights = 48 * 12 * 7168**2 + 50272 * 7168
    assert float(memory * found.total_s) == pytest.approx(2 * 2 * weights / sustained_bytes_per_s(A100), rel=1e-3)
    rate = sustained_flops_share(A100) * A100.peak.fp16_tensor
    assert float(tensor * found.total_s) == pytest.approx(2 * 2 * weights / rate, rel=1e-3)


def test_more_sequences_are_more_products_and_cache() -> None:
    found = run()
    memory, tensor = (share * found.total_s for share in found.busy())
    assert (np.diff(memory) > 0).all()  # caches come to the weights
    assert tensor[1:] / tensor[0] == pytest.approx(BATCHES[1:])  # products grow with tokens
    lengths = run(batch=8, output_len=[64, 256, 1024])
    assert (np.diff(lengths.busy()[0] * lengths.total_s) > 0).all()


def test_smaller_weights_are_fewer_bytes_and_the_same_products() -> None:
    read, multiplied = {}, {}
    for kind in ("dense", "sparse", "int4"):
        found = run(kind, batch=1)
        memory, tensor = found.busy()
        read[kind], multiplied[kind] = float(memory * found.total_s), float(tensor * found.total_s)
    assert read["int4"] < read["sparse"] < 0.6 * read["dense"]
    assert multiplied["sparse"] == pytest.approx(multiplied["dense"])


def test_only_experts_with_a_token_are_read() -> None:
    one = run("experts", batch=1)
    weights = 2 * 30.5e9 / sustained_bytes_per_s(H100)
    assert float(one.busy()[0] * one.total_s) < 256 * weights / 5
    many = run("experts", batch=256)
    assert float(many.busy()[0] * many.total_s) > 255 * weights


@pytest.mark.parametrize("kind", RUNS)
def test_energy_per_token_falls_with_the_batch(kind: str) -> None:
    found = run(kind)
    joules = found.joules_per_token
    assert joules is not None
    assert (np.diff(joules[1]) < 0).all()


@pytest.mark.parametrize("kind", RUNS)
def test_energy_has_an_interval_within_the_boards_limit(kind: str) -> None:
    for lengths in ({"input_len": 64, "output_len": 256}, {"input_len": 2000, "output_len": 8}):
        found = run(kind, **lengths)
        assert found.joules_per_token is not None
        assert found.gpu.power is not None
        low, mean, high = (joules * found.tokens_per_gpu_s for joules in found.joules_per_token)
        assert ((low > 0) & (low < mean) & (mean <= high)).all()
        assert (high <= found.gpu.power.tdp_w * (1 + 1e-12)).all()


def test_a_prompt_draws_more_than_a_token() -> None:
    prompt, decode = (evaluate("llama-3.1-8b", H100, "vllm", batch=8, **lengths) for lengths in (
        {"input_len": 8192, "output_len": 1}, {"input_len": 16, "output_len": 512},
    ))  # fmt: skip
    assert prompt.joules_per_token is not None
    assert decode.joules_per_token is not None
    watts = [float(found.joules_per_token[1] * found.tokens_per_gpu_s) for found in (prompt, decode)]
    assert watts[0] == pytest.approx(H100.power.tdp_w, rel=1e-12)
    assert watts[0] > 1.3 * watts[1]
