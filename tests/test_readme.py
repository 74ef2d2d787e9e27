"""README: its numbers are computed, its commands and files exist."""

from __future__ import annotations

import re

from lscd.cli import app
from lscd.report.exhibit import Context
from lscd.report.readme import README, TABLES, rewritten
from tests.kernels_numba.ptx_emulator.test_mutations import BUGS
from tests.kernels_numba.ptx_emulator.test_quantised_mutations import BUGS as QUANTISED_BUGS
from tests.kernels_numba.ptx_emulator.test_record_mutations import BUGS as RECORD_BUGS

TEXT = README.read_text(encoding="utf-8")


def test_computed_tables_are_up_to_date() -> None:
    for page in TABLES:
        assert rewritten(page, Context()) == page.read_text(encoding="utf-8"), f"{page.name}: run `make readme`"


def test_first_commands_are_the_two_that_matter() -> None:
    assert re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE) == ["report", "test", "explore", "lab", "help"]


def test_planted_bugs_are_counted() -> None:
    of_records = len(RECORD_BUGS) + len(QUANTISED_BUGS)
    words = (README.parent / "docs" / "explanation" / "kernels.md").read_text(encoding="utf-8")
    assert f"{len(BUGS) + of_records} planted bugs are all caught, {of_records} of them" in words


def test_named_commands_exist() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"\blscd ([a-z0-9]+)", TEXT)) <= known


def test_linked_files_exist() -> None:
    for path in re.findall(r"\]\((?!http|#)([^)#]+)", TEXT):
        assert (README.parent / path).exists(), path


def test_python_example_runs() -> None:
    example = re.search(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert example
    names: dict[str, object] = {}
    exec(example[1].replace("print(", "shown = ("), names)
    assert names["shown"]
