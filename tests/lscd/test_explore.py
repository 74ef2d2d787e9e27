"""`lscd explore`: bad presets, taken ports and a missing package are explained."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lscd.cli import app


def test_bad_presets_and_taken_ports_are_explained() -> None:
    result = CliRunner().invoke(app, ["explore", "--preset", "gpu=h10"])
    assert "did you mean h100" in str(result.exception)
    result = CliRunner().invoke(app, ["explore", "--preset", "sparsity=nan"])
    assert "sparsity must lie in [0, 1], got nan" in str(result.exception)
    pytest.importorskip("marimo", reason="marimo is not installed; see make explorer-test")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["explore", "--no-browser", "--port", str(taken.getsockname()[1])])
    assert "is not free" in str(result.exception)


def test_without_marimo_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['marimo'] = None; from lscd.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "explore", "--no-browser"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "pip install 'lscd-lab[explore]'" in result.stderr
