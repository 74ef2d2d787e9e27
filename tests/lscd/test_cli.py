"""The command line as a whole: it starts fast."""

from __future__ import annotations

import subprocess
import sys


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "scipy", "numba", "matplotlib", "pyarrow")
    code = f"import sys; from lscd.cli import app; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
