"""A report names the commit that made it, and none that did not."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lscd.report.provenance import UNKNOWN_DATE, Provenance, provenance

DATE = "2026-02-03T04:05:06+02:00"
WHO = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


def git(root: Path, *arguments: str) -> str:
    dated = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    dated |= {"GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE}
    return subprocess.run(
        ["git", *WHO, *arguments], cwd=root, env=dated, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the file by which the lab knows itself, and one beside it."""
    file = tmp_path / "lscd" / "report" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\n")
    (tmp_path / "README.md").write_text("text\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_checkout_has_its_commit_and_that_commits_date(checkout: Path) -> None:
    found = provenance(checkout)
    assert found.commit == git(checkout, "rev-parse", "HEAD")
    assert found.made == datetime.fromisoformat(DATE)
    assert not found.changed
    assert found.words.endswith(f"commit {found.commit[:10]} of 2026-02-03")


def test_changes_of_the_code_are_told_and_of_other_files_are_not(checkout: Path) -> None:
    (checkout / "README.md").write_text("other text\n")
    (checkout / "lscd" / "notes.txt").write_text("untracked\n")
    assert not provenance(checkout).changed
    (checkout / "lscd" / "report" / "provenance.py").write_text("x = 2\n")
    assert provenance(checkout).changed
    assert provenance(checkout).words.endswith(", with changes")


def test_an_installation_within_somebodys_repository_has_no_commit(checkout: Path) -> None:
    installed = checkout / "venv" / "site-packages"
    (installed / "lscd" / "report").mkdir(parents=True)
    (installed / "lscd" / "report" / "provenance.py").write_text("x = 1\n")
    found = provenance(installed)
    assert (found.commit, found.made) == (None, UNKNOWN_DATE)


def test_without_git_or_history_the_version_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance(tmp_path).commit is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance().commit is None


def test_a_hooks_repository_is_not_asked(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance(checkout).commit is not None


def test_in_words() -> None:
    made = datetime(2026, 11, 29, tzinfo=UTC)
    assert Provenance("1.2", "0123456789abcdef", made).words == "version 1.2, commit 0123456789 of 2026-11-29"
    assert Provenance("1.2").words == "version 1.2"
    assert Provenance(None).words == "of unknown version"
