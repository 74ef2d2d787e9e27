"""Every notebook follows the rules of the house: question, answer, inputs to change, no logic, exercises, limits."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from perfmodel import load_model
from perfmodel.catalog import gpu_names, model_names
from tests.notebooks.books import (
    FOLDER,
    NAMES,
    PATHS,
    beside,
    cells,
    changed,
    changes,
    inputs,
    load,
    solutions,
    sources,
)
from tests.notebooks.books import tags as tags_of

MAX_CODE_LINES, MAX_CELL_LINES, MAX_DEFINITIONS = 150, 10, 1
MAX_BYTES = 900_000  # a dozen figures of 150 dpi, and two sliders, each a table and its picture
GPUS = {"h200", "b200", "t4", "mi300x", "rtx-4090", "v100"}  # the newest, the oldest, another maker's, one at home
TOKENS = {1, 7, 48, 4096}
PARTS = {"SelfAttention", "LatentAttention", "Experts", "Recurrent"}  # of a model


def code_lines(source: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in source.splitlines())


def inputs_cell(path: Path) -> str:
    """Source of the cell "change this": the only one, and the first after what is only plumbing."""
    code = [cell for cell in cells(load(path), "code") if "plumbing" not in tags_of(cell)]
    marked = [cell.source for cell in code if "change-this" in tags_of(cell)]
    assert marked == [code[0].source], "one cell is tagged change-this, the first after plumbing"
    return marked[0]


def test_the_story_is_complete_and_in_order() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02d}" for number in range(1, len(NAMES) + 1)]
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((\w+\.ipynb)\)", index) == [path.name for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_notebook_keeps_the_house_rules(path: Path) -> None:
    notebook = load(path)
    code, prose = sources(notebook, "code"), sources(notebook, "markdown")
    lines = [code_lines(source) for source in code]
    trees = [ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)) for source in code]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert sum(lines) <= MAX_CODE_LINES
    assert max(lines) <= MAX_CELL_LINES
    assert sum(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes) <= MAX_DEFINITIONS
    assert not [node for node in nodes if isinstance(node, ast.Assert)], "what protects prose is in claims/"
    assert re.match(r"# \d\d · .*\?$", prose[0].splitlines()[0]), "the first line asks the question"
    assert prose[-1].split("## ")[-1].startswith("What this does not show")
    words = [sum(len(source.split()) for source in part) for part in (prose, code)]
    assert words[0] > 0.6 * words[1], "about half should be prose"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_one_cell_asks_to_be_changed(path: Path) -> None:
    source = inputs_cell(path)
    assert source.startswith("# Change this: ")
    stored = inputs(source)
    assert len(changes(path)) == 3
    for values in changes(path):
        assert set(values) <= set(stored), f"{path.name} has no input {set(values) - set(stored)}"
        assert inputs(changed(source, values)) == stored | values != stored


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_claims_say_which_sentence_they_hold(path: Path) -> None:
    text = beside(path, "claims").read_text(encoding="utf-8")
    lines = text.splitlines()
    claims = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
    assert len(claims) >= 5
    dumb = [node.lineno for node in claims if not (node.msg or lines[node.lineno - 2].lstrip().startswith("#"))]
    assert not dumb, f"asserts of lines {dumb} say nothing"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_two_exercises_have_solutions(path: Path) -> None:
    assert [bool(blocks) for blocks in solutions(load(path))] == [True, True]


def test_changed_inputs_reach_what_is_unlike_the_stored_ones() -> None:
    found = [value for path in PATHS for values in changes(path) for value in _flat(list(values.values()))]
    names = {value for value in found if isinstance(value, str)}
    models = [load_model(name) for name in names & set(model_names())]
    parts = {type(part).__name__ for model in models for block in model.shape.blocks for part in block.parts}
    assert names & set(gpu_names()) >= GPUS
    assert {value for value in found if isinstance(value, int)} >= TOKENS
    assert parts >= PARTS
    assert {"deepseek-v3", "gpt2"} <= names, "the largest model and a tiny one"


def _flat(values: list[Any]) -> list[Any]:
    return [each for value in values for each in (_flat(value) if isinstance(value, list) else [value])]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_stored_outputs_are_small_whole_and_portable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert not re.search(r"/work/|/home/|/root/|/tmp/\w", text)
    code = cells(load(path), "code")
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "run `make notebooks`"
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    bold = [out for cell in code for out in cell.outputs if "text/markdown" in out.get("data", {})]
    assert bold[0]["data"]["text/markdown"].startswith("**"), "the answer comes first, in bold"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_links_lead_to_notebooks(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", "\n".join(sources(load(path), "markdown"))):
        assert link.startswith("http") or (FOLDER / link).is_file(), link
