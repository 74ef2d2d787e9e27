"""Which state of the lab made a report: its version, and its commit where it lies in a checkout."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "lscd-lab"
ROOT = Path(__file__).resolve().parents[2]
MADE_OF = ("lscd", "perfmodel", "kernels_numba", "data")  # what a report depends on; a change elsewhere is none of it
UNKNOWN_DATE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Provenance:
    """Version, and commit with its own date: of today's date nothing is told, so the same commit gives the same bytes.

    ``commit`` is None where the package is installed, or copied without its history; ``changed`` says that files
    differ from it.
    """

    version: str | None
    commit: str | None = None
    made: datetime = UNKNOWN_DATE
    changed: bool = False

    @property
    def words(self) -> str:
        """All of it in a line: ``version 0.1.0, commit 1a2b3c4d5e of 2026-11-29``."""
        parts = [f"version {self.version}"] if self.version else []
        if self.commit:
            parts.append(f"commit {self.commit[:10]} of {self.made:%Y-%m-%d}{', with changes' if self.changed else ''}")
        return ", ".join(parts) or "of unknown version"


def provenance(root: Path = ROOT) -> Provenance:
    """Provenance of the package that lies in ``root``; asks git only of files that it has under version control."""
    try:
        number = version(PACKAGE)
    except PackageNotFoundError:
        number = None
    if not _git(root, "ls-files", "lscd/report/provenance.py"):
        return Provenance(number)
    commit, _, made = (_git(root, "log", "-1", "--format=%H %cI") or "").partition(" ")
    if not made:
        return Provenance(number)
    changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *MADE_OF))
    return Provenance(number, commit, datetime.fromisoformat(made).astimezone(UTC), changed)


def _git(root: Path, *arguments: str) -> str | None:
    """What a git command prints, or None where it fails or is not there; a hook's own repository is not asked."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, env=own, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
