"""`lscd weights import`: what it writes and says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from tests.kernels_numba.checkpoints.ggufs import write_gguf
from tests.kernels_numba.checkpoints.layouts.files import DECODED
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG
from tests.kernels_numba.decoder.models import weights_of
from tests.lscd.commands import run


def test_a_gguf_file_becomes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_gguf(tmp_path / "x.gguf", CONFIG, weights_of(CONFIG), quantised=True)
    code, out, _ = run(monkeypatch, capsys, "weights", "import", str(source), str(tmp_path / "out"))
    assert code == 0
    size = sum(info.nbytes for info in open_checkpoint(tmp_path / "out").tensors.values())
    assert f"21 tensors, {size:,} bytes of float16.\nx.gguf has 16 Q8_0 (8-bit quantised), 5 F32.\n" in out
    again = run(monkeypatch, capsys, "weights", "import", str(source), str(tmp_path / "out"))
    assert again[0] == 2
    assert again[2].endswith("out: exists and is not empty; allowed: a new folder\n")


def test_a_quantised_checkpoint_becomes_whole_matrices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way out that `prune` names."""
    source = str(DECODED["GPTQ 4"]().write(tmp_path))
    out = str(tmp_path / "out")
    code, text, _ = run(monkeypatch, capsys, "weights", "import", source, out)
    assert code == 0
    assert f"1 matrices are one float16 tensor each now; all other tensors are unchanged.\n{source} has 1 GPTQ" in text
    pruned = str(tmp_path / "pruned.safetensors")
    assert run(monkeypatch, capsys, "weights", "prune", source, pruned, "--sparsity", "0.5")[0] == 2
    code, text, _ = run(monkeypatch, capsys, "weights", "prune", out, pruned, "--sparsity", "0.5")
    assert code == 0
    assert "16,384 of 32,768 weights in 1 matrices are zero now" in text


def test_files_of_other_kinds_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed = write_gguf(tmp_path / "x.gguf", CONFIG, weights_of(CONFIG)).rename(tmp_path / "blob")
    assert run(monkeypatch, capsys, "weights", "import", str(unnamed), str(tmp_path / "out"))[0] == 0
    (tmp_path / "model.bin").write_bytes(b"\x80\x02}q\x00." + bytes(99))
    code, _, error = run(monkeypatch, capsys, "weights", "import", str(tmp_path / "model.bin"), str(tmp_path / "new"))
    assert code == 2
    assert "is a pickle" in error
    assert not (tmp_path / "new").exists()
