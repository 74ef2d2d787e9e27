"""Version and commit: of a checkout, of an installed package, of bare sources."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lscd
import perfmodel
from lscd import version
from lscd.cli import app

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    run = subprocess.run(("git", "-C", str(folder), *who, *arguments), capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_checkout_names_its_commit_and_whether_it_was_changed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert head.startswith(version.commit(checkout))
    assert len(version.commit(checkout)) == version.SHORT
    (checkout / "new").write_text("no part of it")
    assert version.commit(checkout) == head[: version.SHORT]
    (checkout / "file").write_text("2")
    assert version.commit(checkout) == head[: version.SHORT] + "+"


def test_an_installed_package_carries_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkout / "site-packages"  # of a repository that is not ours
    inside.mkdir()
    for installed, commit in (
        ("0.1.0.dev588+gd0fa904ab", "d0fa904ab"), ("0.1.0.dev588+gd0fa904ab.d20261129", "d0fa904ab"), ("1.0", "")
    ):  # fmt: skip
        monkeypatch.setattr(version, "installed", lambda installed=installed: installed)
        assert version.commit(inside) == commit


def test_without_git_or_an_installation_nothing_is_made_up(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version.subprocess, "run", missing)
    assert version.commit(checkout) == ""
    monkeypatch.setattr(version, "version", not_installed)
    assert version.installed() == "0"


def test_the_option_prints_both() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.stdout.strip() == f"lscd {version.installed()}, commit {version.commit() or 'unknown'}"
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
