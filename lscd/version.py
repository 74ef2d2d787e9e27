"""Which version is this? What the installed package says, and the commit of the checkout that runs."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

DISTRIBUTION = "lscd-lab"
ROOT = Path(__file__).resolve().parents[1]  # of a checkout
PATIENCE_S = 10
SHORT = 9  # characters of a commit's hash


def installed() -> str:
    """Version of the installed package, made from Git's tags and commits when it was built; "0" of bare sources."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"


def commit(root: Path = ROOT) -> str:
    """Short hash of the commit that runs, with a ``+`` where files were changed since; empty where nothing tells.

    In a checkout it is what is checked out now, which an editable installation's version may be older than; else what
    the version carries.
    """
    if not (root / ".git").exists():
        return installed().partition("+g")[2].partition(".")[0]
    found = _git(root, "rev-parse", f"--short={SHORT}", "HEAD")
    return found + "+" * bool(found and _git(root, "status", "--porcelain", "--untracked-files=no"))


def _git(root: Path, *arguments: str) -> str:
    """What a Git command prints; nothing where it fails or there is no Git."""
    try:
        run = subprocess.run(
            ("git", "-C", str(root), *arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return run.stdout.strip()


def print_and_leave(asked: bool) -> None:
    """Answer ``lscd --version``."""
    if asked:
        typer.echo(f"lscd {installed()}, commit {commit() or 'unknown'}")
        raise typer.Exit
