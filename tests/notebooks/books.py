"""The notebooks, taken apart: cells, inputs to change, exercises, and what tests keep beside each."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n(.*?)</details>", flags=re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def load(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(notebook: nbformat.NotebookNode, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def sources(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    return [cell.source for cell in cells(notebook, kind)]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def inputs(source: str) -> dict[str, Any]:
    """Names and values of a cell "change this", which has nothing but comments and ``name = value``.

    Raises
    ------
    ValueError
        If there is anything else in it, or a value is computed.
    """
    found = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ValueError(f"no assignment to one name: {ast.unparse(node)}")
        found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def changed(source: str, values: dict[str, Any]) -> str:
    """The cell "change this" with other values, as a reader types them."""
    return "\n".join(f"{name} = {value!r}" for name, value in (inputs(source) | values).items())


def changes(path: Path) -> list[dict[str, Any]]:
    """Other values for the cell "change this": one dictionary for each further run."""
    return tomllib.loads(beside(path, "changes", "toml").read_text(encoding="utf-8"))["change"]


def beside(path: Path, what: str, suffix: str = "py") -> Path:
    """The file that tests keep for a notebook: its claims, what always holds, its changes."""
    return Path(__file__).with_name(what) / f"{path.stem[:2]}.{suffix}"


def solutions(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Code of each solution, block by block."""
    text = "\n\n".join(sources(notebook, "markdown"))
    exercises = text.partition("## Exercises")[2].partition("## What this does not show")[0]
    return [BLOCK.findall(solution) for solution in SOLUTION.findall(exercises)]
