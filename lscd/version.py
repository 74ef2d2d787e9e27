"""`lscd --version`: what is installed, and the commit of the checkout that runs."""

from __future__ import annotations

import typer

from lscd.report.provenance import provenance


def installed() -> str:
    """Version of the installed package, made from Git's tags and commits when it was built; "0" of bare sources."""
    return provenance().version or "0"


def print_and_leave(asked: bool) -> None:
    """Answer ``lscd --version``."""
    if asked:
        typer.echo(f"lscd {provenance().words}")
        raise typer.Exit
