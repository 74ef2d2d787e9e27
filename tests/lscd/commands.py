"""What the tests of several commands type."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from lscd.cli import main

RUNNER = CliRunner()


ONE = ["predict", "--gpu", "a100-80gb", "--m", "36864", "--k", "9216", "--n", "8", "--sparsity", "0.8"]


HEADER = "gpu,m,k,n,sparsity,kernel"


GOOD_ROW = "a100-80gb,36864,9216,8,0.8,flash-llm"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``lscd`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["lscd", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), out, err
