"""`lscd weights` as people and scripts use it: answer first, JSON that adds up, one-sentence errors, whole files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.container import convert_checkpoint
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from lscd.cli import main
from perfmodel.formats import FORMATS
from perfmodel.kernels import KERNELS
from perfmodel.prediction import predict
from tests.kernels_numba.checkpoints.files import save, write_raw

SHAPES = {
    "layers.0.up.weight": (1024, 256),
    "layers.0.down.weight": (256, 1024),
    "layers.1.up.weight": (1024, 256),
    "layers.1.down.weight": (256, 1024),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``lscd weights`` with these arguments."""
    before = sys.argv
    sys.argv = ["lscd", "weights", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    tensors["embed.weight"] = np.zeros((7, 8), np.float32)
    return save(tmp_path / "model.safetensors", tensors, dict.fromkeys(tensors, "F32"))


@pytest.fixture
def pruned(model: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = model.with_name("pruned.safetensors")
    assert run(capsys, "prune", model, path, "--sparsity", "0.8")[0] == 0
    return path


def test_inspect_answers_first(model: Path, pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", model, "--gpu", "rtx-4090")
    assert code == 0
    assert out.startswith("Not pruned: 0.0% of the weights are zero")
    code, out, _ = run(capsys, "inspect", pruned)
    assert out.startswith("The zeros save memory: 80.0% of the weights are zero")
    assert re.search(r"\nlayers\.\*\.up\.weight +2 +1024 x 256 +F32 +0\.800 ", out)
    assert "layers.0.up.weight" in run(capsys, "inspect", pruned, "--all")[1]


def test_pruned_yet_no_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 10 % zeros a bitmap saves 4 % of the bytes: less than decoding costs on an A100."""
    rng = np.random.default_rng(1)
    big = np.where(rng.random((8192, 4096), np.float32) < 0.9, np.float16(1), np.float16(0))
    path = save(tmp_path / "big.safetensors", {"w": big}, {"w": "F16"})
    _, out, _ = run(capsys, "inspect", path, "--gpu", "a100-80gb", "--batch", "16")
    assert out.startswith("Pruned, yet no gain: 10.0% of the weights are zero, but dense stays the fastest for all 1")


def test_small_matrices_wait_for_the_launch(pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "inspect", pruned, "--gpu", "h100")
    assert "4 of 4 matrices are so small that launch latency sets even the dense time" in out


def test_large_matrices_pay_and_json_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    big = np.where(rng.random((8192, 4096), np.float32) < 0.2, np.float16(1), np.float16(0))
    path = save(tmp_path / "big.safetensors", {"w": big}, {"w": "F16"})
    code, out, _ = run(capsys, "inspect", path, "--gpu", "a100-80gb", "--batch", "8", "--json")
    assert code == 0
    found = json.loads(out)
    # On an A100 sources disagree on Flash-LLM by more than a matrix of this size gains.
    assert found["answer"].startswith(
        "The zeros may pay, within the models' error, for 1 of 1 matrices on a100-80gb at N = 8"
    )
    matrix, total = found["matrices"][0], found["total"]
    assert matrix["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert matrix["tiles"]["ratio"] == pytest.approx(1, abs=0.1)
    sparsity = matrix["sparsity"]
    for kernel, times in matrix["kernels"].items():
        expected = float(predict(kernel, "a100-80gb", 8192, 4096, times["tokens"], sparsity).time_s) * 1e6
        assert times["time_us"] == pytest.approx(expected)
        assert times["lo_us"] < times["time_us"] < times["hi_us"]
    for name in ("tiled-csl", "bitmap", "int8"):
        assert matrix["bytes"][name] == pytest.approx(float(FORMATS[name].bytes(8192, 4096, sparsity)), rel=1e-3)
    assert total["plan_us"] == matrix["kernels"][matrix["best_kernel"]]["time_us"] < total["us_by_kernel"]["cublas"]
    assert not matrix["kernels"]["lscd-bitmap"]["measured"]
    assert total["plan_bytes"] == matrix["bytes"][matrix["best_format"]]
    measured = [kernel for kernel, times in matrix["kernels"].items() if times["measured"]]
    exact = [kernel for kernel in measured if KERNELS[kernel].format.lossless]
    assert matrix["best_kernel"] == min(exact, key=lambda kernel: matrix["kernels"][kernel]["time_us"])


def test_formats_that_would_drop_more_weights_are_no_sizes_of_a_checkpoint(
    model: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What rounds is; what prunes to a pattern as well is only where the weights already have it."""
    half = model.with_name("half.safetensors")
    assert run(capsys, "prune", model, half, "--method", "nm", "--n", "2", "--m", "4")[0] == 0
    plain, pattern = (
        json.loads(run(capsys, "inspect", path, "--gpu", "h100", "--json")[1])["total"] for path in (pruned, half)
    )
    patterned = {name for name, fmt in FORMATS.items() if fmt.change == "pruned and rounded"}
    patterned -= {"lscd-bitmap-8", "lscd-bitmap-4"}  # of these zeros, counted
    assert patterned.isdisjoint(plain["bytes_by_format"])
    assert {"2:4-fp8", "2:4-int8", "int4-2:4"} == patterned & set(pattern["bytes_by_format"])
    rounded = {name for name, fmt in FORMATS.items() if fmt.change == "rounded"}
    assert rounded < set(plain["bytes_by_format"])
    assert {"two-four", "two-four-int8", "two-four-fp8", "six-eight"}.isdisjoint(plain["us_by_kernel"])
    assert {"two-four", "two-four-int8", "two-four-fp8"} < set(pattern["us_by_kernel"])
    assert "bsr" not in plain["bytes_by_format"]


def test_prune_states_the_exact_sparsity(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = model.with_name("out.safetensors")
    code, text, _ = run(capsys, "prune", model, out, "--method", "nm", "--n", "1", "--m", "4")
    assert code == 0
    assert text.startswith(
        "786,432 of 1,048,576 weights in 4 matrices are zero now: sparsity 0.750000 (before 0.000000)"
    )
    found = json.loads(run(capsys, "prune", model, out, "--sparsity", "0.3", "--include", "*.0.up.*", "--json")[1])
    assert (found["size"], found["zeros"], list(found["matrices"])) == (262144, 78643, ["layers.0.up.weight"])


def test_convert_verifies_and_decodes(pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded, decoded = pruned.with_name("e.safetensors"), pruned.with_name("d.safetensors")
    for name in ("tiled-csl", "bitmap", "bitmap-pairs", "condensed", "condensed-pairs", "csr", "two-four", "dense"):
        code, text, _ = run(capsys, "convert", pruned, encoded, "--format", name, "--verify")
        assert code == 0
        assert re.search(r"Rounding to float16 changed 20\d,\d{3} of 209,7\d\d non-zeros; 0 became zero", text)
        assert "Verified: all 5 tensors" in text
        code, text, _ = run(capsys, "convert", "--decode", encoded, decoded, "--verify")
        assert code == 0
        assert "all checksums agree" in text
        original, back = open_checkpoint(pruned), open_checkpoint(decoded)
        for matrix in SHAPES:
            np.testing.assert_array_equal(back.read(matrix), original.read(matrix).astype(np.float16))
        assert back.read("embed.weight").dtype == np.float32
    code, text, _ = run(capsys, "convert", pruned, encoded, "--format", "bitmap-e4m3", "--verify")
    assert code == 0
    assert re.search(r"Codes and scales change the weights of a matrix by 2\.\d\d% at most", text)
    assert "Verified: all 5 tensors" in text
    code, text, _ = run(capsys, "convert", "--decode", encoded, decoded, "--verify")
    assert "all checksums agree" in text
    code, text, _ = run(capsys, "convert", pruned, encoded, "--format", "csr", "--dtype", "keep", "--json")
    assert json.loads(text)["changed"] == 0


PRUNE = ["prune", "model.safetensors", "out.safetensors"]


CONVERT = ["convert", "model.safetensors", "out.safetensors"]


ERRORS = [
    (["inspect", "none.safetensors"], "none.safetensors: no such file"),
    (["inspect", "model.safetensors", "--gpu", "h10"], "did you mean h100"),
    (["inspect", "model.safetensors", "--gpu", "h100", "--batch", "0"], "--batch is 0, allowed is at least 1"),
    (["inspect", "model.safetensors", "--include", "x*"], "of its 4 weight matrices none is left: include x*"),
    (["inspect", "bad.safetensors"], "bad.safetensors: tensor 'b' overlaps"),
    (["inspect", "encoded.safetensors"], "encoded already; decode it first"),
    ([*PRUNE], "missing --sparsity; for example --sparsity 0.6"),
    ([*PRUNE, "--sparsity", "60"], "sparsity: 60; allowed: a fraction"),
    ([*PRUNE, "--method", "wandb"], "unknown method 'wandb': did you mean wanda"),
    ([*PRUNE, "--sparsity", "0.5", "--n", "2"], "--n and --m belong to --method nm"),
    ([*PRUNE, "--method", "nm", "--n", "5"], "--n 5 --m 4: allowed is 0 <= n <= m"),
    ([*PRUNE, "--method", "nm", "--m", "3"], "a multiple of 3"),
    ([*PRUNE, "--method", "wanda", "--sparsity", "0.5"], "a file of input norms"),
    (
        ["prune", "model.safetensors", "model.safetensors", "--sparsity", "0.5"],
        "OUT: model.safetensors is the input itself",
    ),
    (["prune", "model.safetensors", "no/out.safetensors", "--sparsity", "0.5"], "no such directory"),
    (["prune", "model.safetensors", ".", "--sparsity", "0.5"], ".: exists and is not empty; allowed: a new folder"),
    (["prune", "encoded.safetensors", "out.safetensors", "--sparsity", "0.5"], "encoded already"),
    ([*CONVERT, "--format", "elf"], "format: elf; allowed: tiled-csl"),
    ([*CONVERT, "--dtype", "int8"], "--dtype is 'int8', allowed are float16 and keep"),
    ([*CONVERT, "--dtype", "keep"], "F16 or BF16, or conversion to float16, for tiled-csl"),
    (["convert", "encoded.safetensors", "out.safetensors"], "encoded already; decode it first"),
    (["convert", "--decode", "model.safetensors", "out.safetensors"], "holds no encoded weights"),
    (["convert", "--decode", "corrupt.safetensors", "out.safetensors"], "is corrupt: its checksum differs"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good, a broken, an encoded and a corrupt file."""
    where = tmp_path_factory.mktemp("errors")
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal((16, 32)).astype(np.float32) for name in SHAPES}
    model = save(where / "model.safetensors", tensors, dict.fromkeys(tensors, "F32"))
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    write_raw(where / "bad.safetensors", {"a": entry, "b": entry}, bytes(4))
    convert_checkpoint(open_checkpoint(model), where / "encoded.safetensors", "csr", list(SHAPES))
    data = bytearray((where / "encoded.safetensors").read_bytes())
    data[-100] ^= 1
    (where / "corrupt.safetensors").write_bytes(data)
    return where


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda value: str(value)[:60])
def test_errors_are_one_sentence_and_leave_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, stdout, stderr = run(capsys, *arguments)
    assert code == 2
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert message in lines[0]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
