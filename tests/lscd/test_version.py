"""The version is said everywhere alike; where it is from, tests of provenance say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

import lscd
import perfmodel
from lscd import version
from lscd.cli import app
from lscd.report.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]


def test_the_option_prints_both() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.stdout.strip() == f"lscd {provenance().words}"
    assert lscd.__version__ == version.installed()
    assert perfmodel.__version__ == version.installed()


def test_without_a_tag_the_version_is_the_next_of_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    unreleased = re.search(
        r"^## (\S+) \(unreleased\)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert unreleased, "without an unreleased section of the changelog there is nothing to fall back to"
    assert project["tool"]["hatch"]["version"]["fallback-version"] == f"{unreleased[1]}.dev0"
    assert project["project"]["dynamic"] == ["version"]
