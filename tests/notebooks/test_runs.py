"""Every notebook runs, keeps what it says, solves its exercises, and stands three other inputs: all in one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.notebooks.books import FOLDER, NAMES, PATHS, beside, cells, changed, changes, load, solutions, tags

FRESH = "%reset -f"  # forgets names, keeps imported modules: a further run takes seconds
LOOK = f"exec({Path(__file__).with_name('look.py').read_text(encoding='utf-8')!r}, {{}})"


class Kernel:
    """Executes code as cells of one notebook, started as a reader starts it: in its folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        place = {"metadata": {"path": str(FOLDER)}}
        self.client = NotebookClient(nbformat.v4.new_notebook(), timeout=180, kernel_name="python3", resources=place)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.client.setup_kernel():
            yield

    def does(self, source: str, what: str) -> list[nbformat.NotebookNode]:
        """Outputs of a cell, part of ``what``, that raises nothing and warns of nothing."""
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells = [cell]
        try:
            self.client.execute_cell(cell, 0)
        except CellExecutionError as error:
            pytest.fail(f"{self.name}, {what}: {error.ename}: {error.evalue}\n{source}", pytrace=False)
        wrong = [out for out in cell.outputs if out.get("name") == "stderr" or out.output_type == "error"]
        assert not wrong, f"{self.name}, {what}: {wrong[0].get('text') or wrong[0].get('evalue')}\n{source}"
        return cell.outputs

    def keeps(self, path: Path, what: str) -> None:
        """What a file beside the notebook claims, in the notebook's own names."""
        if path.is_file():
            self.does(path.read_text(encoding="utf-8"), what)


def run(kernel: Kernel, path: Path, values: dict[str, Any], what: str) -> None:
    """All cells from the top, with other inputs; the first that is said is the answer, in bold."""
    said: list[str] = []
    for cell in cells(load(path), "code"):
        source = changed(cell.source, values) if values and "change-this" in tags(cell) else cell.source
        said += [out.get("data", {}).get("text/markdown") for out in kernel.does(source, what)]
    answer = next(filter(None, said))
    assert answer.startswith("**"), f"{path.name}, {what}: the answer comes first, in bold, not {answer[:60]}"
    kernel.keeps(beside(path, "always"), what)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_notebook_runs(path: Path) -> None:
    kernel = Kernel(path.name)
    with kernel.running():
        run(kernel, path, {}, "as stored")
        kernel.keeps(beside(path, "claims"), "its claims")
        for i, blocks in enumerate(solutions(load(path)), 1):
            for block in blocks:
                kernel.does(block, f"solution {i}")
        kernel.does(LOOK, "looking at figures")
        for values in changes(path):
            kernel.does(FRESH, "other inputs")
            run(kernel, path, values, f"with {values}")
