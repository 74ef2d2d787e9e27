"""`lscd gpus`, `models`, `formats`, `kernels list`: the name first, one a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lscd.cli import app
from lscd.worth import as_dict
from perfmodel.catalog import load_gpu
from perfmodel.catalog.altered import altered
from perfmodel.formats import FORMATS
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.worth import worth
from tests.lscd.commands import RUNNER, run


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["gpus"], ["a100-80gb", "h200", "rtx-2080-super", "v100"]),
        (["models"], ["opt-175b", "llama-3.1-405b", "mixtral-8x7b"]),
        (["formats"], ["tiled-csl", "bitmap", "gqsa-w4s50"]),
        (["kernels", "list"], ["cublas", "flash-llm", "sparta", "sputnik", "cusparse"]),
    ],
)
def test_lists_put_the_name_first(command: list[str], names: list[str]) -> None:
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0
    first = [line.split()[0] for line in result.output.splitlines()]
    assert set(names) <= set(first)


def test_formats_give_the_time_that_dram_sets_at_least() -> None:
    """12288 x 12288 FP16 weights, 8 columns in and out, at the 3.35 TB/s of an H100."""
    lines = RUNNER.invoke(app, ["formats", "--gpu", "h100", "--n", "8"]).output.splitlines()
    assert "us at least," in lines[0]
    assert " N = 8 " in lines[1]
    dense = next(line.split() for line in lines if line.startswith("dense "))
    assert float(dense[3]) == pytest.approx(2 * (12288**2 + 2 * 8 * 12288) / 3.35e12 * 1e6, abs=0.06)
    assert "at least" not in RUNNER.invoke(app, ["formats"]).output


def test_formats_stand_in_groups_by_what_becomes_of_the_weights() -> None:
    """Every format once, below the heading that fits it; no line too long for 100 columns."""
    lines = RUNNER.invoke(app, ["formats"]).output.splitlines()
    assert max(map(len, lines)) <= 100
    groups: dict[str, list[str]] = {}
    for line in lines[2:-1]:
        if line.endswith(":"):
            heading = line.removesuffix(":")
        else:
            groups.setdefault(heading, []).append(line.split()[0])
    assert set(groups) == {"lossless", "pruned", "rounded", "pruned and rounded"}
    assert sorted(name for names in groups.values() for name in names) == sorted(FORMATS)
    assert all(FORMATS[name].change == change for change, names in groups.items() for name in names)
    assert "For bsr the sparsity is that of whole blocks." in lines[-1]


def test_kernels_say_what_they_multiply_and_who_has_measured_them() -> None:
    header, *lines = RUNNER.invoke(app, ["kernels", "list"]).output.splitlines()
    assert re.split(r" {2,}", header) == ["name", "format", "N", "weights", "multiplies", "measured", "kernel"]
    found = {cells[0]: cells for cells in (re.split(r" {2,}", line) for line in lines)}
    assert list(found) == list(KERNELS)
    for name, words in (
        ("nvfp4", ["nvfp4", "any N", "rounded", "FP4", "yes", "NVFP4"]),
        ("mxfp4", ["mxfp4", "any N", "rounded", "FP4", "no", "MXFP4, unmeasured"]),
        ("two-four-int8", ["2:4-int8", "any N", "pruned and rounded", "INT8 2:4", "yes", "2:4 INT8"]),
        ("lscd-bitmap-8", ["lscd-bitmap-8", "any N", "pruned and rounded", "FP16", "no"]),
        ("macko", ["macko", "1", "pruned", "FP16", "yes", "MACKO"]),
    ):
        assert found[name][1 : len(words) + 1] == words
    assert {name for name, cells in found.items() if cells[5] != "yes"} == set(unmeasured_kernels())


def test_kernels_are_listed_as_json_too() -> None:
    found = json.loads(RUNNER.invoke(app, ["kernels", "list", "--json"]).output)
    assert [each["name"] for each in found] == list(KERNELS)
    assert set(found[0]) == {"name", "format", "N", "weights", "multiplies", "measured", "kernel"}
    assert (found[0]["format"], found[0]["measured"]) == ("dense", "yes")


def test_a_card_like_another_is_shown_beside_it_written_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    how = ["gpus", "--like", "h100", "--bandwidth", "1.5", "--sms", "0.8", "--output", str(path)]
    code, out, err = run(monkeypatch, capsys, *how)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "Like NVIDIA H100 SXM5 80GB: 1.5x DRAM bandwidth, 106 SMs."
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["h100", "132", "989", "3350"],
        ["h100-like", "106", "795", "5025"],
    ]
    assert "marked as extrapolated" in lines[-1]
    asked = ["--model", "llama-3.1-8b", "--batch", "8", "--sparsity", "0.6", "--kernels", "flash-llm", "--json"]
    code, out, err = run(monkeypatch, capsys, "worth", *asked, "--gpu", str(path))
    card = altered(load_gpu("h100"), bandwidth=1.5, sms=0.8)
    found = as_dict(worth("llama-3.1-8b", card, batches=(8,), sparsity=0.6, kernels=["flash-llm"]))
    told = json.loads(out)
    assert (code, told.pop("gpu"), found.pop("gpu")) == (0, "mine", "h100-like")
    assert told == json.loads(json.dumps(found))


def test_a_card_like_another_is_shown_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = RUNNER.invoke(app, ["gpus", "--like", "a10"]).output.splitlines()
    assert (out[0], len(out)) == ("NVIDIA A10.", 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bandwidth", "2"], "--bandwidth does nothing without --like; leave out"),
        (["--output", "x.toml"], "--output does nothing without --like; leave out"),
        (["--like", "h100", "--sms", "0.05"], "sms is 0.05, allowed is a number from 0.1 to 10"),
        (["--like", "h100", "--clock", "nan"], "clock is nan, allowed is a number from 0.1 to 10"),
        (["--like", "a10", "--price", "2"], "price is 2, but NVIDIA A10 has no price to change"),
        (["--like", "xeon-emerald-rapids-2c"], "xeon-emerald-rapids-2c is a CPU, and this is asked of GPUs only"),
        (["--like", "h10"], "unknown GPU 'h10': did you mean h100"),
        (["--like", "h100", "--output", "x.txt"], "--output is x.txt, allowed is a name that ends in .toml"),
        (["--like", "h100", "--output", "h200.toml"], "--output is h200.toml, but h200 is a card of the catalogue"),
        (["--like", "h100", "--output", "none/x.toml"], "--output: none/x.toml: no such directory "),
        (["--like", "mine.toml", "--output", "mine.toml"], "--output: mine.toml is the input itself"),
    ],
)
def test_other_cards_are_refused_and_nothing_is_written(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("mine\n")
    code, out, err = run(monkeypatch, capsys, "gpus", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mine.toml", "mine\n")]
