"""The reader of `data/`: a wrong file is refused by name and key, a right one is read once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from perfmodel.catalog import (
    cpu_names,
    data_directory,
    files,
    gpu_from_text,
    gpu_names,
    has_gpu,
    has_model,
    load_gpu,
    load_kernel_times,
    load_model,
    load_sources,
    model_from_text,
    model_names,
    models,
    sparsities_from_text,
)
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS


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
        ("boost_hz = 1410e6", "boost_hz = -1410e6", "x.toml: clock.boost_hz is -1410000000.0: Expected 'float' > 0.0"),
        ("boost_hz = 1410e6", "boost_hz = inf", "x.toml: clock.boost_hz is inf: Expected 'float' < 1e+30"),
        ("sm_count = 108", 'sm_count = "108"', "x.toml: clock.sm_count is '108': Expected 'int', got 'str'"),
        ('architecture = "ampere"', 'architecture = "fermi"', "x.toml: architecture: Invalid enum value 'fermi'"),
        ("l1_cycles = 33", "l1_cycles = 333", "x.toml: latency: l1_cycles is 333, allowed is at most 205"),
        ("shared_memory_per_block_bytes = 166_912", "shared_memory_per_block_bytes = 200_000", "x.toml: sm: shared_"),
        ("fp16_tensor = 312e12", "fp16_tensor = 1e-300", "x.toml: peak.fp16_tensor is 1e-300: Expected 'float' >="),
        ("fp16_sparse = 624e12", "fp16_sparse = 1e15", "x.toml: peak: fp16_sparse is 1e+15, allowed is fp16_tensor"),
        ("fp16_sparse = 624e12", "fp8_sparse = 1e15", "x.toml: peak: fp8_sparse is 1e+15, but there is no fp8_tensor"),
        ("sm_count = 108", f"sm_count = {10**30}", f"x.toml: clock.sm_count is {10**30}: Expected 'int' <="),
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


def test_a_users_own_card_does_not_go_by_the_name_of_another(tmp_path: Path) -> None:
    """What was measured on the catalogue's card would count as measured on this one."""
    text = (data_directory() / "hardware" / "h100.toml").read_text(encoding="utf-8")
    path = tmp_path / "h100.toml"
    path.write_text(text, encoding="utf-8")
    assert load_gpu(path) == load_gpu("h100")
    other = text.replace("sm_count = 132", "sm_count = 114")
    path.write_text(other, encoding="utf-8")
    for read in (lambda: load_gpu(path), lambda: gpu_from_text(other, "h100.toml")):
        with pytest.raises(
            ValueError, match=r"h100\.toml: it differs from the catalogue's h100: give the file another"
        ):
            read()
    assert gpu_from_text(other, "mine.toml").clock.sm_count == 114


READERS = ((gpu_from_text, "up.toml"), (model_from_text, "up.json"), (sparsities_from_text, "up.json"),
           (sparsities_from_text, "up.csv"))  # fmt: skip


@pytest.mark.parametrize(("read", "name"), READERS)
@pytest.mark.parametrize(
    "text",
    ["", "\0", b"\x89PNG\r\n\xff", "\udcff", "[" * 100_000, '{"a":' * 100_000, "a = " + "[" * 50_000,
     "a." * 5_000 + "b = 1", "9" * 5_000, "[]", "{}", "null", "NaN", '{"model_type": NaN}', '{"matrices": [NaN]}',
     "layer,matrix,sparsity\n0,qkv,NaN",
     "a,b\n1,2,3\n", '"', "\ufeff", "a = 1\na = 2", f'{{"model_type": "{"x" * 10**6}"}}', 5, None, ["a"]],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_hostile_uploads_are_refused_in_a_sentence(read: Any, name: str, text: Any) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is looked at below
        read(text, name)
    message = str(refusal.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert len(message) <= files.LONGEST_MESSAGE


@pytest.mark.parametrize(("read", "name"), READERS)
def test_uploads_have_a_size_and_a_name(read: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("", "\0.toml", "x" * 300 + ".json", 5, None):
        with pytest.raises(ValueError, match=r"name|suffix|key|^\."):
            read("", bad)
    monkeypatch.setattr(files, "LARGEST_BYTES", 100)
    with pytest.raises(ValueError, match=rf"{name}: 101 bytes, allowed are at most 100"):
        read("#" * 101, name)


def test_kernel_times_are_one_table_in_the_schema() -> None:
    times = load_kernel_times()
    assert tuple(times.columns) == KERNEL_TIME_COLUMNS
    assert set(times["source"]) <= set(load_sources())
    paper = load_kernel_times("published/*")
    assert 0 < len(paper) < len(times)
    with pytest.raises(ValueError, match=r"no table of kernel times matches 'nowhere/\*'; there are "):
        load_kernel_times(["published/*", "nowhere/*"])


def test_a_byte_order_mark_is_forgiven_and_deep_nesting_refused(tmp_path: Path) -> None:
    text = (data_directory() / "hardware" / "h100.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8-sig")
    assert load_gpu(tmp_path / "mine.toml").key == "mine"
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.json: its keys nest too deeply"):
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


def test_records_are_read_once_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = Path(shutil.copy(data_directory() / "models" / "opt-30b.toml", tmp_path))
    read, parse = [], models.parse
    monkeypatch.setattr(models, "parse", lambda path: read.append(path) or parse(path))
    assert load_model(path) is load_model(path)
    assert len(read) == 1
    os.utime(path, ns=(1, 1))
    assert load_model(path).parameters == load_model("opt-30b").parameters
    assert read.count(path) == 2


def test_a_name_is_known_exactly() -> None:
    assert all(has_model(name) for name in model_names())
    assert all(has_gpu(name) for name in gpu_names())
    for name in ("", ".", "../models/opt-30b", "opt-30b/", "OPT_30B", "opt-30b.toml", "x" * 5000, "\0", "\ud800"):
        assert not has_model(name)
        assert not has_gpu(name)
    assert not any(has_gpu(name) for name in cpu_names())
