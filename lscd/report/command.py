"""`lscd report`: the main job, all figures and tables on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[
        Path, typer.Option(writable=True, file_okay=False, help="Folder to write to: index.html and figures/.")
    ] = Path("reports"),
) -> None:
    """Build the report: every figure as PNG, SVG and CSV, and a self-contained page."""
    from lscd.report.build import build, refuse_foreign

    refuse_foreign(out)
    page = build(out)
    print(f"open {page}")
