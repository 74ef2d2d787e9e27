"""Every notebook runs, and follows the rules of the house: question, answer, no logic, limits."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
MAX_CODE_LINES, MAX_CELL_LINES, MAX_DEFINITIONS, MAX_BYTES = 150, 10, 1, 640_000


def load(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def sources(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def code_lines(source: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in source.splitlines())


def test_the_story_is_complete_and_in_order() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02d}" for number in range(1, len(NAMES) + 1)]
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((\w+\.ipynb)\)", index) == [path.name for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_notebook_runs(path: Path) -> None:
    """In a kernel of its own, from its own folder, as a reader starts it; a cell that fails raises."""
    resources = {"metadata": {"path": str(FOLDER)}}
    run = NotebookClient(load(path), timeout=180, kernel_name="python3", resources=resources).execute()
    warnings = [out["text"] for cell in run.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    assert not warnings, f"{path.name} writes to stderr: {warnings[0]}"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_notebook_keeps_the_house_rules(path: Path) -> None:
    notebook = load(path)
    code, prose = sources(notebook, "code"), sources(notebook, "markdown")
    lines = [code_lines(source) for source in code]
    trees = [ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)) for source in code]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    definitions = sum(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)
    assert sum(lines) <= MAX_CODE_LINES
    assert max(lines) <= MAX_CELL_LINES
    assert definitions <= MAX_DEFINITIONS
    assert sum(isinstance(node, ast.Assert) for node in nodes) >= 5
    assert re.match(r"# \d\d · .*\?$", prose[0].splitlines()[0]), "the first line asks the question"
    assert prose[-1].split("## ")[-1].startswith("What this does not show")
    words = [sum(len(source.split()) for source in part) for part in (prose, code)]
    assert words[0] > 0.6 * words[1], "about half should be prose"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_stored_outputs_are_small_whole_and_portable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert not re.search(r"/work/|/home/|/root/|/tmp/\w", text)
    code = [cell for cell in load(path).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "run `make notebooks`"
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    bold = [out for cell in code for out in cell.outputs if "text/markdown" in out.get("data", {})]
    assert bold[0]["data"]["text/markdown"].startswith("**"), "the answer comes first, in bold"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_links_lead_to_notebooks(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", "\n".join(sources(load(path), "markdown"))):
        assert link.startswith("http") or (FOLDER / link).is_file(), link
