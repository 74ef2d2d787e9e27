"""The catalogue: every file loads, its numbers agree with outside ones, and a wrong file is refused by name and key."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfmodel import catalog
from perfmodel.catalog import (
    data_directory,
    gpu_names,
    load_gpu,
    load_kernel_times,
    load_model,
    load_sources,
    load_table,
    model_names,
    read_kernel_times,
)
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS
from perfmodel.catalog.specs import Layers

# Streaming multiprocessors, DRAM GB/s, TFLOP/s of dense FP16 Tensor Cores with FP32 accumulation, as NVIDIA prints
# them: A100 and H100 whitepapers table 1-2, H200/L40S/A5000/V100 datasheets, DGX B200 datasheet / 8, Ada and GA102
# whitepapers appendix A; the RTX 2080 SUPER's peak is half its 89.2 with FP16 accumulation.
DATASHEET = {
    "a100-40gb": (108, 1555, 312),
    "a100-80gb": (108, 2039, 312),
    "b200": (148, 8000, 2250),
    "h100": (132, 3350, 989.4),
    "h200": (132, 4800, 989.4),
    "l40s": (142, 864, 362.05),
    "rtx-2080-super": (48, 496, 44.6),
    "rtx-3090": (82, 936, 71),
    "rtx-4090": (128, 1008, 165.2),
    "rtx-a5000": (64, 768, 111.1),
    "rtx-a6000": (84, 768, 154.8),
    "v100": (80, 900, 125),
}
# FLOP per clock and SM of the Tensor Cores (FP16 in, FP32 accumulation); GeForce cards run at half their die's rate.
FLOPS_PER_CLOCK = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "10.0": 8192}
GEFORCE = ("rtx-2080-super", "rtx-3090", "rtx-4090")
# KiB per SM, KiB per block, warps, blocks: CUDA C++ Programming Guide, table of technical specifications.
SM_LIMITS = {
    "7.0": (96, 96, 64, 32),
    "7.5": (64, 64, 32, 16),
    "8.0": (164, 163, 64, 32),
    "8.6": (100, 99, 48, 16),
    "8.9": (100, 99, 48, 24),
    "9.0": (228, 227, 64, 32),
    "10.0": (228, 227, 64, 32),
}
# Half a unit of the last digit that the OPT paper prints; all other published counts are exact.
ROUNDED = {"opt-2.7b": 5e7, "opt-6.7b": 5e7, "opt-13b": 5e8, "opt-30b": 5e8, "opt-66b": 5e8, "opt-175b": 5e8}


def test_the_catalogue_is_complete() -> None:
    assert set(gpu_names()) == set(DATASHEET)
    assert len(model_names()) == 17


@pytest.mark.parametrize("name", gpu_names())
def test_gpu_agrees_with_its_datasheet(name: str) -> None:
    gpu = load_gpu(name)
    sm_count, gigabytes_per_s, teraflops_per_s = DATASHEET[name]
    assert gpu.key == name
    assert gpu.clock.sm_count == sm_count
    assert gpu.dram.bandwidth_bytes_per_s == gigabytes_per_s * 1e9
    assert gpu.peak.fp16_tensor == pytest.approx(teraflops_per_s * 1e12, rel=1e-12)


@pytest.mark.parametrize("name", gpu_names())
def test_peaks_follow_from_sms_and_clock(name: str) -> None:
    """A 2:4-sparse or FP16-accumulation peak would be off by a factor of two."""
    gpu = load_gpu(name)
    per_clock = FLOPS_PER_CLOCK[gpu.compute_capability] / (2 if name in GEFORCE else 1)
    tensor_hz = gpu.clock.tensor_hz or gpu.clock.boost_hz
    assert gpu.peak.fp16_tensor == pytest.approx(gpu.clock.sm_count * tensor_hz * per_clock, rel=0.03)
    fp32_per_clock = 128 if gpu.compute_capability in ("7.0", "7.5", "8.0") else 256
    assert gpu.peak.fp32_simt == pytest.approx(gpu.clock.sm_count * gpu.clock.boost_hz * fp32_per_clock, rel=0.03)


@pytest.mark.parametrize("name", gpu_names())
def test_limits_of_an_sm_follow_from_the_compute_capability(name: str) -> None:
    gpu = load_gpu(name)
    kib_per_sm, kib_per_block, warps, blocks = SM_LIMITS[gpu.compute_capability]
    assert gpu.sm.shared_memory_bytes == kib_per_sm * 1024
    assert gpu.sm.shared_memory_per_block_bytes == kib_per_block * 1024
    assert (gpu.sm.max_warps, gpu.sm.max_blocks) == (warps, blocks)
    assert gpu.sm.registers == 65_536


@pytest.mark.parametrize("name", gpu_names())
def test_memory_levels_are_ordered(name: str) -> None:
    """On-chip levels are faster than DRAM, and decode (N = 16) stays left of every ridge point."""
    gpu = load_gpu(name)
    shared_bytes_per_s = gpu.clock.sm_count * gpu.clock.boost_hz * gpu.sm.shared_bytes_per_clock
    assert gpu.dram.bandwidth_bytes_per_s < gpu.l2.bandwidth_bytes_per_s < shared_bytes_per_s
    assert 50 < gpu.peak.fp16_tensor / gpu.dram.bandwidth_bytes_per_s < 500
    assert gpu.l2.size_bytes < gpu.dram.size_bytes


def test_nvlink_is_absent_where_the_board_has_none() -> None:
    assert load_gpu("l40s").link.nvlink_bytes_per_s is None
    assert load_gpu("rtx-4090").link.nvlink_bytes_per_s is None
    assert load_gpu("a100-80gb").link.nvlink_bytes_per_s == 600e9


@pytest.mark.parametrize("name", model_names())
def test_parameters_agree_with_the_published_count(name: str) -> None:
    model = load_model(name)
    assert model.published is not None
    if name in ROUNDED:
        assert model.parameters == pytest.approx(model.published.parameters, abs=ROUNDED[name])
    else:
        assert model.parameters == model.published.parameters


def test_parameters_of_a_model_small_enough_for_paper() -> None:
    """H = 4, two heads of 2, one K/V head, F = 6, vocabulary 10; every term by hand."""
    fields = msgspec.structs.asdict(load_model("llama-2-7b").shape) | {
        "layers": 2, "hidden_size": 4, "heads": 2, "kv_heads": 1, "head_dim": 2, "ffn_size": 6,
        "vocab_size": 10, "embedding_size": 4, "attention_bias": True, "experts": 3, "experts_per_token": 1,
    }  # fmt: skip
    shape = Layers(**fields)
    assert shape.attention_parameters == 4 * 4 + 2 * (4 * 2) + 4 * 4 + (4 + 2 + 2)
    assert shape.mlp_parameters == 3 * (3 * 4 * 6) + 4 * 3
    model = msgspec.structs.replace(load_model("llama-2-7b"), shape=shape)
    assert model.parameters == 2 * 10 * 4 + 2 * (56 + 228 + 2 * 4) + 4


def test_files_that_are_no_toml_or_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: no such file"):
        load_gpu(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.toml: Invalid value"):
        load_gpu(broken)
    listed = tmp_path / "listed.json"
    listed.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"listed\.json: expected an object of keys, got list"):
        load_model(listed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bandwidth_bytes_per_s = 2039e9\n", "", "x.toml: dram: missing key 'bandwidth_bytes_per_s'"),
        ("sm_count = 108", "sm_count = 108\nsms = 108", "x.toml: clock: unknown key 'sms'"),
        ("boost_hz = 1410e6", "boost_hz = -1410e6", "x.toml: clock.boost_hz: Expected 'float' > 0.0"),
        ("boost_hz = 1410e6", "boost_hz = inf", "x.toml: clock.boost_hz: Expected 'float' < 1e+30"),
        ("sm_count = 108", 'sm_count = "108"', "x.toml: clock.sm_count: Expected 'int', got 'str'"),
        ('architecture = "ampere"', 'architecture = "fermi"', "x.toml: architecture: Invalid enum value 'fermi'"),
        ("l1_cycles = 33", "l1_cycles = 333", "x.toml: latency: l1_cycles is 333, allowed is at most 205"),
        ("shared_memory_per_block_bytes = 166_912", "shared_memory_per_block_bytes = 200_000", "x.toml: sm: shared_"),
        ("sm_count = 108", f"sm_count = {10**30}", "x.toml: clock.sm_count: Expected 'int' <= 1099511627776"),
        ("low_usd_per_hour = 0.80", "low_usd_per_hour = 8.0", "x.toml: price: low_usd_per_hour is 8, allowed is at"),
        ('name = "NVIDIA', 'key = "a"\nname = "NVIDIA', "x.toml: unknown key 'key'"),
    ],
)
def test_a_wrong_gpu_file_is_refused_by_file_and_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (data_directory() / "hardware" / "a100-80gb.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "x.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        load_gpu(path)
    assert message in str(refusal.value)


def test_a_users_own_file_and_its_change_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (data_directory() / "hardware" / "h100.toml").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    assert load_gpu(path).key == "mine"
    path.write_text(text.replace("sm_count = 132", "sm_count = 114"), encoding="utf-8")
    assert load_gpu(path).clock.sm_count == 114


def test_names_are_forgiving_and_unknown_ones_suggest_the_nearest() -> None:
    assert load_gpu("A100_80GB") is load_gpu("a100-80gb")
    with pytest.raises(
        ValueError, match=r"unknown GPU 'a100-80': did you mean a100-80gb\? Known are a100-40gb, .*v100"
    ):
        load_gpu("a100-80")
    with pytest.raises(ValueError, match=r"unknown model 'llama2-7b': did you mean llama-2-7b\?"):
        load_model("llama2-7b")
    with pytest.raises(ValueError, match=r"unknown model 'zzz': Known are gpt-neox-20b"):
        load_model("zzz")
    with pytest.raises(
        ValueError, match=r"unknown table 'published/kernel_a10\.csv': did you mean published/kernel_a100"
    ):
        load_table("published/kernel_a10.csv")


def test_kernel_times_are_one_table_in_the_schema() -> None:
    times = load_kernel_times()
    assert tuple(times.columns) == KERNEL_TIME_COLUMNS
    assert set(times["source"]) <= set(load_sources())
    paper = load_kernel_times("published/*")
    assert 0 < len(paper) < len(times)
    with pytest.raises(ValueError, match=r"no table of kernel times matches 'nowhere/\*'; there are "):
        load_kernel_times(["published/*", "nowhere/*"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 0}, "row 2: m is 0, allowed is a positive integer"),
        ({"n": ""}, "row 2: n is nan, allowed is a positive integer"),
        ({"sparsity": 80}, "row 2: sparsity is 80.0, allowed is a fraction from 0 to 1"),
        ({"time_us": -1}, "row 2: time_us is -1.0, allowed is a positive time, or empty"),
        ({"time_us": "fast"}, "row 2: time_us is fast, allowed is a positive time, or empty"),
        ({"time_us": "nan "}, "row 2: time_us is nan , allowed is a positive time, or empty"),
        ({"time_us": "inf"}, "row 2: time_us is inf, allowed is a positive time, or empty"),
        ({"time_err_us": -1}, "row 2: time_err_us is -1.0, allowed is at least 0, or empty"),
        ({"m": 1e30}, "row 2: m is 1e+30, allowed is a positive integer of at most 2**40"),
        ({"m": 10**26}, f"row 2: m is {10**26}, allowed is a positive integer of at most 2**40"),
        ({"gpu": ""}, "row 2: gpu is empty or no text"),
        ({"kernel": " "}, "row 2: kernel is empty or no text"),
        ({"speed": 1}, "missing columns [], unknown columns ['speed']"),
    ],
)
def test_a_users_own_times_are_checked(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    names = {"gpu": "h200", "kernel": "cublas", "status": "value", "source": "mine"}
    row = dict.fromkeys(KERNEL_TIME_COLUMNS, "") | names | {"m": 64, "k": 64, "n": 8, "sparsity": 0.5, "time_us": 3.5}
    path = tmp_path / "mine.csv"

    def write(*rows: dict[str, Any]) -> None:
        lines = [",".join(rows[-1])] + [",".join(str(row.get(key, "")) for key in rows[-1]) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    write(row, row | {"time_us": ""})
    assert read_kernel_times(path)["time_us"].isna().tolist() == [False, True]
    write(row, row | change)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        read_kernel_times(path)
    assert f"mine.csv: {message}" in str(refusal.value)


CALIBRATION = json.loads((data_directory() / catalog.CALIBRATION_FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cublass": CALIBRATION["cublas"]}, "unknown kernel 'cublass': did you mean cublas?"),
        ({"spread": {}}, "cublas: spread has no keys, needed are inside, range, gpu"),
        ({"spread": {"inside": 0.1, "range": 0.1}}, "cublas: spread has inside, range, needed are inside, range, gpu"),
        ({"spread": {"inside": 0.1, "range": 0.1, "gpu": float("nan")}}, "cublas: spread.gpu is nan, allowed are"),
        ({"spread": {"inside": -1, "range": 0.1, "gpu": 0.1}}, "cublas: spread.inside is -1.0, allowed are finite"),
        ({"spread": {"inside": "x"}}, "cublas.spread[...]: Expected 'float', got 'str'"),
        ({"parameters": {"launch_s": 1e-6}}, "cublas: parameters has launch_s, needed are bandwidth_eff"),
        ({"evidence_range": {"m": [1, 2]}}, "cublas: evidence_range has m, needed are m, k, n, sparsity"),
        ({"mood": "good"}, "cublas: unknown key 'mood'"),
        ({"rows": 0}, "cublas.rows: Expected 'int' >= 1"),
    ],
)  # fmt: skip
def test_a_users_own_fit_is_checked(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    monkeypatch.setenv("LSCD_CALIBRATION", str(path))
    path.write_text(json.dumps(CALIBRATION), encoding="utf-8")
    assert set(catalog.load_calibration()) == set(CALIBRATION)
    broken = CALIBRATION | (change if "cublass" in change else {"cublas": CALIBRATION["cublas"] | change})
    path.write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        catalog.load_calibration()
    assert f"mine.json: {message}" in str(refusal.value)


def test_a_byte_order_mark_is_forgiven_and_deep_nesting_refused(tmp_path: Path) -> None:
    text = (data_directory() / "hardware" / "h100.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8-sig")
    assert load_gpu(tmp_path / "mine.toml").key == "mine"
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.json: maximum recursion depth"):
        load_model(tmp_path / "deep.json")


def test_another_data_directory_is_used_and_a_broken_table_in_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data_directory() / "hardware", tmp_path / "hardware")
    (tmp_path / "hardware" / "v100.toml").rename(tmp_path / "hardware" / "mine.toml")
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "bad.csv").write_text("kernel,time_us\ncublas,3\n", encoding="utf-8")
    (tmp_path / "sources.toml").write_text('[mine]\ntitle = "t"\n', encoding="utf-8")
    monkeypatch.setenv("LSCD_DATA", str(tmp_path))
    assert "mine" in gpu_names()
    with pytest.raises(ValueError, match=r"data/measured/bad\.csv: missing columns \['gpu', 'm', 'k'"):
        load_kernel_times()
    with pytest.raises(ValueError, match=r"data/sources\.toml: mine: missing key 'url'"):
        load_sources()
    monkeypatch.setenv("LSCD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no data directory with a folder 'hardware' at .*nowhere; set LSCD_DATA"):
        gpu_names()


def test_records_are_read_once() -> None:
    catalog._record_at.cache_clear()
    assert load_model("opt-30b") is load_model("opt-30b")
    assert catalog._record_at.cache_info().misses == 1
