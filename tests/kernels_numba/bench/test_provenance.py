"""What a table of times says about the GPU, its state and the code; other code's tables are not continued."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kernels_numba.bench import provenance
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.provenance import Row, code_version, gpu_key, gpu_state, read_table, write_table
from kernels_numba.bench.timing import Run, Timing
from kernels_numba.gpu import device
from tests.kernels_numba.bench.emulated import Emulated


def test_a_table_of_other_code_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("h200", "cublas", 1, 2, 8, 0.0, 1.5, 0.25, "value", "cold", "lscd-bench-gpu", "note, with comma")
    given = {"gpu": "NVIDIA H200", **code_version(), "steps": []}
    write_table([row], given, tmp_path)
    assert read_table(tmp_path, given) == ([row], given)
    told = replace(row, split_k=3, blocks_per_sm=6, clock_mhz=1980, power_w=412, throttle=4)
    write_table([told, row], given, tmp_path)
    assert read_table(tmp_path, given) == ([told, row], given)
    assert read_table(tmp_path / "elsewhere", given) == ([], {})
    with pytest.raises(ValueError, match="cannot be continued: its sources_sha256 is another"):
        read_table(tmp_path, given | {"sources_sha256": "0"})


def test_names_of_gpus() -> None:
    assert gpu_key("NVIDIA H200") == "h200"
    assert gpu_key("NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert gpu_key("NVIDIA GeForce GTX 9999 Ti") == "geforce-gtx-9999-ti"
    hardware = {path.stem for path in (Path(__file__).parents[3] / "data" / "hardware").glob("*.toml")}
    assert set(provenance.KEYS.values()) <= hardware


def test_state_of_the_gpu_with_old_and_new_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver refuses the whole question if it does not know one name in it."""
    known = {*provenance.STATE, "clocks_throttle_reasons.active"}

    def smi(*command: str) -> str | None:
        assert command[:2] == ("nvidia-smi", "--id=GPU-7")
        names = command[2].removeprefix("--query-gpu=").split(",")
        return ", ".join(f"<{name}>" for name in names) if set(names) <= known else None

    monkeypatch.setattr(provenance, "_output", smi)
    state = gpu_state("GPU-7")
    assert state is not None
    assert state["clocks.sm"] == "<clocks.sm>"
    assert list(state) == [*provenance.STATE, "clocks_throttle_reasons.active"]
    known.remove("clocks_throttle_reasons.active")
    assert gpu_state("GPU-7") == {name: f"<{name}>" for name in provenance.STATE}
    monkeypatch.setattr(provenance, "_output", lambda *command: None)
    assert gpu_state("GPU-7") is None


def test_commands_that_fail_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance._output(sys.executable, "-c", "print(' done ')") == "done"
    assert provenance._output("no-such-command") is None
    assert provenance._output(sys.executable, "-c", "print(1); raise SystemExit(3)") is None
    monkeypatch.setattr(provenance, "COMMAND_S", 0.05)
    assert provenance._output(sys.executable, "-c", "import time; time.sleep(60)") is None


def test_the_gpu_and_the_code_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Emulated):
        def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
            products[0]()
            return Timing(1000.0, 1.0)

    monkeypatch.setattr(provenance, "COPY_BYTES", 2**20)
    monkeypatch.setattr(provenance, "gpu_state", lambda uuid: {"uuid": uuid})
    monkeypatch.setattr(device, "current_arch", lambda: "sm_90")
    monkeypatch.setattr(device, "sm_count", lambda: 132)
    monkeypatch.setattr(device, "current_ordinal", lambda: 0)
    monkeypatch.setattr(device, "name_and_uuid", lambda ordinal: ("NVIDIA H200", "GPU-7"))
    monkeypatch.setattr(device, "attribute", lambda name, ordinal: {"l2_bytes": 60 * 2**20}[name])
    gpu, story = provenance.describe_gpu(Small(), "method")
    assert gpu == Gpu("h200", "sm_90", 132, 60 * 2**20, 2 * 2**20 / 1e-3)
    assert story["state_before"] == {"uuid": "GPU-7"}
    assert story["versions"]["numba-cuda"]
    assert len(story["sources_sha256"]) == 64
