"""A card like another: what was asked for changes, what follows from it follows, and nothing else moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import gpu_from_text, gpu_names, load_gpu
from perfmodel.catalog.altered import LEAST, MOST, altered, toml_of
from perfmodel.catalog.specs import Gpu
from perfmodel.kernels import KERNELS
from perfmodel.kernels.machine import Machine
from perfmodel.pipeline.simulate import simulate
from perfmodel.prediction import predict, predict_all
from perfmodel.serving import evaluate
from perfmodel.worth import worth

FACTORS = ("bandwidth", "sms", "clock", "l2", "memory", "price")
STEP = 1.001  # of a slider, the smallest that anybody sees


def moved(before: Gpu, after: Gpu) -> dict[str, float]:
    """Numbers that differ, by group and field, as ratios."""
    found = {}
    old, new = (msgspec.to_builtins(card) for card in (before, after))
    for group, values in old.items():
        for field, value in (values or {}).items() if isinstance(values, dict) else ():
            if value != new[group][field] and field != "source":
                found[f"{group}.{field}"] = new[group][field] / value
    return found


@pytest.mark.parametrize("name", gpu_names())
def test_factors_of_one_give_the_card_itself(name: str) -> None:
    gpu = load_gpu(name)
    assert altered(gpu) is gpu
    assert altered(gpu, sms=1 + 0.4 / gpu.clock.sm_count) is gpu, "the same number of SMs"


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"bandwidth": 1.5}, {"dram.bandwidth_bytes_per_s": 1.5}),
        ({"memory": 0.5}, {"dram.size_bytes": 0.5}),
        ({"l2": 2}, {"l2.size_bytes": 2}),
        ({"price": 0.5}, {"price.low_usd_per_hour": 0.5, "price.high_usd_per_hour": 0.5}),
        (
            {"sms": 0.5},
            {"clock.sm_count": 0.5, "l2.bandwidth_bytes_per_s": 0.5, "peak.fp16_tensor": 0.5, "peak.fp32_simt": 0.5},
        ),
        (
            {"clock": 2},
            {
                "clock.boost_hz": 2,
                "clock.tensor_hz": 2,
                "l2.bandwidth_bytes_per_s": 2,
                "peak.fp8_sparse": 2,
                # An H100's memory answers after 679 cycles, 280 of them up to the L2: 280 + 2 x 399.
                "latency.dram_cycles": 1078 / 679,
            },
        ),
    ],
)
def test_what_follows_from_a_number_follows_it(factors: dict[str, float], expected: dict[str, float]) -> None:
    gpu = load_gpu("h100")
    card = altered(gpu, **factors)
    found = moved(gpu, card)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    peaks = {key for key in found if key.startswith("peak.")}
    assert set(found) - peaks == set(expected) - peaks
    assert len(peaks) == (10 if "sms" in factors or "clock" in factors else 0), "all rates, or none"
    for group in {key.partition(".")[0] for key in found}:
        source, there = getattr(card, group).source, getattr(gpu, group).source
        assert source.startswith("what-if: ")
        assert source.endswith(f" of {gpu.name}; there: {there}")
    assert card.sm == gpu.sm
    assert card.power == gpu.power
    assert card.link == gpu.link


def test_a_reached_clock_goes_with_the_printed_one() -> None:
    gpu = load_gpu("rtx-4090")
    assert gpu.clock.reached_hz is not None
    card = altered(gpu, clock=1.2)
    assert card.clock.gain == pytest.approx(gpu.clock.gain)
    assert card.clock.hz == pytest.approx(1.2 * gpu.clock.hz)


def test_key_name_and_source_tell_what_was_changed() -> None:
    card = altered(load_gpu("h100"), bandwidth=1.5, sms=0.8)
    assert (card.key, card.name) == ("h100-like", "like NVIDIA H100 SXM5 80GB: 1.5x DRAM bandwidth, 106 SMs")
    assert "bandwidth_bytes_per_s 5.025e+12 in place of 3.35e+12 of NVIDIA H100" in card.dram.source
    again = altered(card, clock=1.1)
    assert (again.key, again.name) == ("h100-like", f"{card.name}: 1.1x clock")


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("value", [0, 0.0999, 10.01, -1, np.nan, np.inf, "2", None, True, [1, 2]])
def test_other_factors_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is "):
        altered(load_gpu("h100"), **{name: value})


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^price is 2, but NVIDIA A10 has no price to change$"):
        altered(load_gpu("a10"), price=2)
    with pytest.raises(ValueError, match=r"^gpu is 'h100', allowed is a Gpu"):
        altered("h100", clock=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^b300-like: peak\.fp4_tensor is 1\.35e\+18: Expected 'float' <= 1e\+18"):
        altered(load_gpu("b300"), sms=MOST, clock=MOST)


@pytest.mark.parametrize("name", gpu_names())
def test_every_card_reads_back_equal(name: str, tmp_path: Path) -> None:
    gpu = load_gpu(name)
    ends = [dict.fromkeys(("bandwidth", "sms", "l2", "memory"), factor) for factor in (LEAST, 1 / 3, MOST)]
    cards = [gpu, *(altered(gpu, **factors) for factors in ends), altered(gpu, clock=1 / 3)]
    for card in cards:
        path = tmp_path / f"{card.key}.toml"
        path.write_text(toml_of(card), encoding="utf-8")
        assert load_gpu(path) == card
        assert gpu_from_text(toml_of(card), path.name) == card


@pytest.mark.parametrize("name", gpu_names())
def test_every_prediction_is_marked_and_moves_no_further_than_the_card(name: str) -> None:
    """A thousandth more of a rate moves no time by more than that; the mark and the interval alone leap."""
    gpu = load_gpu(name)
    sizes = np.array([36864, 4096, 1024]), np.array([9216, 4096, 8192])
    before = {found.kernel: found for _, found in predict_all(gpu, *sizes, 16, 0.7)}
    for factors in ({"bandwidth": STEP, "clock": STEP}, {"l2": STEP, "memory": STEP}):
        after = {found.kernel: found for _, found in predict_all(altered(gpu, **factors), *sizes, 16, 0.7)}
        assert set(after) == set(before)
        for kernel, found in after.items():
            ratio = found.time_s / before[kernel].time_s
            assert np.all((ratio <= 1 + 1e-9) & (ratio >= 1 / STEP - 1e-9)), (kernel, factors, ratio)
            assert found.extrapolated.all()


def test_an_altered_card_has_the_interval_of_a_card_that_no_fit_has_seen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml_of(load_gpu("a100-80gb")), encoding="utf-8")
    own, card = load_gpu(path), altered(load_gpu("a100-80gb"), memory=STEP)
    sizes = 36864, 9216, 8, 0.8
    for kernel in ("cublas", "flash-llm"):
        a, b = (predict(kernel, gpu, *sizes) for gpu in (own, card))
        assert (float(a.lo_s), float(a.hi_s)) == (float(b.lo_s), float(b.hi_s))
        assert bool(b.extrapolated)
        assert not bool(predict(kernel, "a100-80gb", *sizes).extrapolated)


@pytest.mark.parametrize("system", ["vllm", "fastertransformer", "flash-llm"])
def test_whole_runs_are_marked_and_move_no_further(system: str) -> None:
    asked: dict[str, Any] = {"batch": [1, 64], "sparsity": 0.7 if system == "flash-llm" else 0.0}
    gpu = load_gpu("a100-80gb")
    before = evaluate("llama-3.1-8b", gpu, system, **asked)
    for factors in ({"bandwidth": STEP}, {"clock": STEP}, {"memory": STEP}):
        after = evaluate("llama-3.1-8b", altered(gpu, **factors), system, **asked)
        ratio = after.total_s / before.total_s
        assert np.all((ratio <= 1 + 1e-9) & (ratio >= 1 / STEP - 1e-9)), (factors, ratio)
        assert after.extrapolated.all()
        assert after.joules_per_token is not None


def test_more_of_everything_is_never_slower() -> None:
    gpu = load_gpu("h100")
    sizes = np.array([4096, 36864]), np.array([4096, 9216])
    for factors in ({"bandwidth": 2}, {"clock": 2}, {"l2": 2}):
        for _, found in predict_all(altered(gpu, **factors), *sizes, 64, 0.7):
            if found.kernel in KERNELS and not KERNELS[found.kernel].assumed:
                before = predict(found.kernel, gpu, *sizes, 64, found.sparsity)
                assert np.all(found.time_s <= before.time_s * (1 + 1e-9)), (found.kernel, factors)


def test_a_card_goes_wherever_its_file_goes(tmp_path: Path) -> None:
    """`worth`, the simulator and the closed forms take the record, and say of its file the same."""
    card = altered(load_gpu("h100"), bandwidth=1.5, sms=0.8)
    path = tmp_path / "mine.toml"
    path.write_text(toml_of(card), encoding="utf-8")
    asked: dict[str, Any] = {"batches": (8,), "sparsity": 0.6, "kernels": ["flash-llm", "fp8"]}
    a, b = (worth("llama-3.1-8b", gpu, **asked).headline for gpu in (card, str(path)))
    assert a == b
    assert all(r.extrapolated for r in a.rivals)
    assert simulate("flash-llm", card, m=256, k=256, n=8, sparsity=0.7).time_s > 0
    assert Machine.of(card).dram_bytes_per_s == 1.5 * Machine.of(load_gpu("h100")).dram_bytes_per_s
    assert re.search(r"^name = \"like NVIDIA H100", toml_of(card))
