"""Whole models against published runs, fitted and held out."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_calibration, load_model
from perfmodel.evidence.runs import (
    joined_parts,
    joined_runs,
    joined_served,
    outside_runs,
    predict_runs,
    published_runs,
)
from perfmodel.evidence.systems_fit import all_reduce_wait_cycles, fit, fitted_evidence
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import calibrated_systems
from perfmodel.serving.transformer import Part
from tests.perfmodel.serving.cases import A100, FT, RUN

VLLM = "slidesparse-vllm"


@pytest.fixture(scope="module")
def runs():
    """All published runs; ``size`` is the error of the throughput."""
    joined = joined_runs()
    return joined.assign(size=(1 / (1 + joined["error"]) - 1).abs())


@pytest.fixture(scope="module")
def parts():
    joined = joined_parts()
    return joined.assign(size=joined["error"].abs())


@pytest.mark.parametrize(
    ("source", "bound"), [("flash-llm-fig15", 0.035), ("flash-llm-fig13", 0.037), ("flash-llm-fig16", 0.048)]
)
def test_throughput_of_opt_66b_which_is_fitted_and_of_opt_30b_and_175b_which_are_not(runs, source, bound):
    rows = runs[runs["source"] == source]
    assert set(rows["fitted"]) == {source == "flash-llm-fig15"}
    assert rows["size"].mean() <= bound


def test_dense_systems_alone():
    rows = published_runs().query("fits and system != 'flash-llm'").reset_index(drop=True)
    size = (predict_runs(rows) / rows["tokens_per_gpu_s"] - 1).abs()
    assert size.groupby(rows["model"]).mean().max() <= 0.03


def test_parts_of_opt_175b_were_never_seen(parts):
    rows = parts[parts["source"] == "flash-llm-fig16"]
    assert not rows["fitted"].any()
    assert rows["size"].mean() <= 0.12
    assert rows.groupby("part")["size"].mean().max() <= 0.17
    assert rows.groupby("part")["size"].mean()["matmul"] <= 0.06


def test_parts_of_runs_on_other_cards(parts):
    rows = parts[(parts["source"] == "spinfer-fig15") & ~parts["fitted"] & (parts["system"] != "fastertransformer")]
    mean = rows.groupby("part")["size"].mean()
    assert mean["matmul"] <= 0.08
    assert mean["communication"] <= 0.17  # through NVLink between two A6000, through the host between 4090s
    assert mean["attention"] <= 0.2


def test_runs_on_other_cards_that_no_fit_has_seen(runs):
    rows = runs[runs["source"] == "spinfer-fig13-14"]
    assert not rows["fitted"].any()
    assert rows["size"].mean() <= 0.09
    per_card = rows.groupby("gpu")["size"].mean()
    assert per_card["rtx-a6000"] <= 0.05
    assert per_card["rtx-4090"] <= 0.11


def test_headline_ratios_of_opt_66b():
    best = {
        system: evaluate("opt-66b", A100, system, **{**RUN, "batch": batch}, gpus=2, sparsity=0.8).tokens_per_gpu_s
        for system, batch in (("flash-llm", 64), ("fastertransformer", 16), ("deepspeed", 16))
    }
    # Published: 3.8x DeepSpeed, 3.6x FasterTransformer, each at its best batch on two GPUs.
    assert best["flash-llm"] / best["deepspeed"] == pytest.approx(3.8, rel=0.2)
    assert best["flash-llm"] / best["fastertransformer"] == pytest.approx(3.6, rel=0.2)


def test_fastertransformers_own_runs_of_models_of_6_billion_parameters_and_more(runs):
    own = runs[runs["source"] == "fastertransformer-gpt"]
    assert own[own["model"] != "opt-1.3b"]["size"].mean() <= 0.09
    gpt_20b = own[own["printed_model"] == "GPT-20B"]
    assert gpt_20b[gpt_20b["output_len"] == 200]["size"].mean() <= 0.04  # 1 to 8 GPUs, batch 1 to 256
    # A known miss: tables of another date, and of requests of 8 and 32 tokens only.
    assert own[own["model"] == "opt-1.3b"]["size"].mean() > 0.2


def test_engines_with_attention_of_their_own(runs):
    unseen = runs[~runs["fitted"]]
    error = unseen["error"].abs().groupby([unseen["source"], unseen["system"]]).mean()
    assert error["llm-inference-bench", "vllm-v0"] <= 0.075
    assert error["llm-inference-bench", "tensorrt-llm-v0"] <= 0.09
    assert error["gpt-fast-a100", "gpt-fast"] <= 0.06
    assert error["aiconfigurator-served", "sglang"] <= 0.08
    assert error["lmdeploy-a100", "lmdeploy"] <= 0.12  # with TensorRT-LLM's host
    assert error["tensorrt-llm-a100", "tensorrt-llm-v0"] <= 0.14
    mixtral = unseen[(unseen["model"] == "mixtral-8x7b") & (unseen["system"] == "vllm-v0")]
    assert len(mixtral) == 20
    assert mixtral["error"].abs().mean() <= 0.09  # 5 to 25 times too slow before experts were one launch
    # A known miss: one host for all of DeepSpeed-MII, whose attention has no grouped heads.
    assert 0.1 < error["llm-inference-bench", "deepspeed-mii"] <= 0.15


def test_served_runs_that_no_fit_has_seen():
    served = joined_served()
    unseen = served[~served["fitted"]]
    usual = unseen[~((unseen["model"] == "qwen3-32b") & unseen["concurrency"].isin((24, 48, 144, 224)))]
    assert len(unseen) - len(usual) < 10  # whose lengths or loads are not those of the other rows: up to 2.6 times off
    error = usual["error"].abs().groupby(usual["system"]).mean()
    assert error["vllm-v1"] <= 0.04
    assert error["vllm-v1+fp8"] <= 0.09
    assert error["tensorrt-llm-v1"] <= 0.11
    assert error["tensorrt-llm-v1+fp8"] <= 0.11
    # A known miss: these benchmarks start all users together, so that first tokens wait for one another.
    assert served["ttft_error"].median() < -0.5


def test_outside_runs_are_sound():
    runs = outside_runs()
    case = ["printed_model", "gpus", "batch", "input_len", "output_len", "source"]
    assert not runs.duplicated(case).any()
    assert (runs["fits"] == runs["tokens_per_gpu_s"].notna()).all()
    assert set(runs["gpu"]) == {"a100-80gb"}
    assert set(runs["system"]) == {"fastertransformer", "lmdeploy", "tensorrt-llm-v0", "gpt-fast"}
    # No request is quicker than reading its weights once a step at the datasheet's rate.
    ran = runs[runs["fits"]]
    weights = ran["model"].map(lambda name: 2 * load_model(name).parameters) / ran["gpus"]
    step_s = ran["batch"] / (ran["tokens_per_gpu_s"] * ran["gpus"])
    assert (step_s > 0.9 * weights / A100.dram.bandwidth_bytes_per_s).all()


def test_fit_sees_its_stated_part_and_no_more(runs):
    fitted, profile = fitted_evidence()
    assert set(fitted["model"]) == {"opt-66b"}
    assert set(profile["source"]) == {"spinfer-fig15"}
    assert set(profile["gpu"]) == {"rtx-4090"}
    assert set(profile["part"]) == {"other"}
    paper = runs[runs["source"].str.startswith(("flash-llm", "spinfer", "fastertransformer"))]
    assert len(fitted) == paper["fitted"].sum() == 16
    engines = runs[runs["fitted"] & (runs["source"] == "llm-inference-bench")]
    assert (engines["gpus"] == 1).all()
    assert set(runs.loc[runs["fitted"] & (runs["source"] == "gpt-fast-a100"), "model"]) == {"llama-2-7b"}
    host = runs[runs["fitted"] & (runs["source"] == VLLM)]
    assert set(host["gpu"]) == {"a100-80gb-pcie", "h100-pcie"}
    assert (host["sparsity"] == 0).all()
    keys = ["model", "gpu", "gpus", "system", "batch", "input_len", "output_len", "sparsity"]
    both = runs[runs["fitted"]].merge(runs[~runs["fitted"]], on=keys)
    assert both.empty


def test_stored_fit_is_what_the_evidence_gives():
    found, stored = fit(), load_calibration(CALIBRATION_FILE)
    assert found.keys() == stored.keys()
    for name, entry in found.items():
        assert entry.parameters == pytest.approx(stored[name].parameters, rel=1e-3, abs=1e-9), name
        assert entry.spread == pytest.approx(stored[name].spread, rel=1e-3), name


# Share of the throughput, and of the speed-up over dense in the same 8 bits. Only dense runs of the first two GPUs are
# fitted. On an RTX 4090 the host takes far longer than on servers: a known miss.
@pytest.mark.parametrize(
    ("gpu", "most", "most_speedup"),
    [("a100-80gb-pcie", 0.20, 0.15), ("h100-pcie", 0.10, 0.085), ("rtx-4090", 0.55, 0.23)],
)
def test_two_four_in_vllm(runs, gpu, most, most_speedup):
    rows = runs[(runs["source"] == VLLM) & (runs["gpu"] == gpu)]
    rows = rows.assign(bits=rows["system"].str.extract("(fp8|int8)")[0])
    pruned, dense = rows[rows["sparsity"] > 0], rows[rows["sparsity"] == 0]
    assert not pruned["fitted"].any()
    assert pruned["size"].mean() <= most
    case = ["model", "gpus", "batch", "input_len", "output_len", "bits"]
    both = pruned.merge(dense, on=case, suffixes=("", "_dense"))
    assert len(both) > 100
    published, predicted = (both[f"{name}_dense"] / both[name] for name in ("time_us", "predicted_us"))
    assert (predicted / published - 1).abs().mean() <= most_speedup


def test_wait_is_read_from_a_published_breakdown():
    # LLaMA-70B on two GPUs: 10 s of communication in 1536 steps of 160 all-reduces = 41 us each, 13 to 19 us alone.
    assert 2e-5 < all_reduce_wait_cycles() / A100.clock.boost_hz < 3e-5
    assert calibrated_systems().all_reduce_wait_cycles == pytest.approx(all_reduce_wait_cycles(), rel=1e-3)


def test_quant_llm_steps_of_opt_30b(parts):
    # Another framework and another year: dense matmul time of OPT-30B within 6 %.
    rows = parts.query("source == 'quant-llm-figures' and model == 'opt-30b' and system == 'fastertransformer'")
    matmul = rows[rows["part"] == Part.MATMUL]
    assert np.max(matmul["size"]) < 0.06
    run = evaluate("opt-30b", A100, FT, batch=matmul["batch"], input_len=1, output_len=1536)
    assert run.parts[Part.MATMUL] == pytest.approx(matmul["predicted_gpu_s"].to_numpy())
