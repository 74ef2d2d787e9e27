"""`lscd report`: the main job, all figures and tables on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def report(
    out: Annotated[
        Path, typer.Option(writable=True, file_okay=False, help="Folder to write to: index.html and figures/.")
    ] = Path("reports"),
    style: Annotated[
        Literal["screen", "paper"],
        typer.Option(help="paper: each figure as a vector PDF too, 3.33 or 7 inches wide, and figures/captions.tex."),
    ] = "screen",
) -> None:
    """Build the report: every figure as PNG, SVG and CSV, a self-contained page, and a PDF to print."""
    from lscd.report.build import Style, build, refuse_foreign

    refuse_foreign(out)
    page = build(out, style=Style(style))
    print(f"open {page}")
