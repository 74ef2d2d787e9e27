"""`lscd report`: the main job, all figures and tables on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[
        Path, typer.Option(writable=True, file_okay=False, help="Folder to write to: index.html and figures/.")
    ] = Path("reports"),
    style: Annotated[
        str,
        typer.Option(
            help="screen, or paper: each figure also as a vector PDF, 3.33 or 7 inches wide, with captions in LaTeX."
        ),
    ] = "screen",
) -> None:
    """Build the report: every figure as PNG, SVG and CSV, a self-contained page, and the same as a PDF."""
    from lscd.report.build import Style, build, refuse_foreign

    if style not in tuple(Style):
        raise ValueError(f"--style is {style!r}, allowed are {', '.join(Style)}")
    refuse_foreign(out)
    page = build(out, style=Style(style))
    print(f"open {page}")
