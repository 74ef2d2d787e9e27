"""CITATION.cff: what Citation File Format 1.2.0 demands, and the project's own words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CITED: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of its schema.json, "required" at the top and in the definitions of references, entities and persons.
REQUIRED, OF_REFERENCE = {"authors", "cff-version", "message", "title"}, {"authors", "title", "type"}
KNOWN = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip


def test_it_has_the_keys_that_the_format_demands_and_no_unknown_one() -> None:
    assert REQUIRED <= set(CITED) <= KNOWN
    assert CITED["cff-version"] == "1.2.0"
    assert CITED["type"] == "software"
    assert all(set(each) >= OF_REFERENCE for each in CITED["references"])
    named = [*CITED["authors"], *(author for each in CITED["references"] for author in each["authors"])]
    assert all({"name"} == set(author) or {"family-names", "given-names"} == set(author) for author in named)


def test_it_says_what_the_project_says() -> None:
    assert CITED["license"] == PROJECT["license"]
    assert CITED["authors"][0]["name"].lower() == PROJECT["authors"][0]["name"].lower()
    assert CITED["keywords"] == PROJECT["keywords"]
    assert PROJECT["description"].lower() in CITED["title"].lower()
    assert CITED["references"][0]["url"] == PROJECT["urls"]["Paper"]
    assert "version" not in CITED, "the version is Git's: lscd --version"
