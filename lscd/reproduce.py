"""`lscd reproduce`: what a paper claims, beside what our models say to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.asking import AsJson
from lscd.errors import InputError, refuse_idle, written_whole
from lscd.printing import headline, json_rows, print_table, say

if TYPE_CHECKING:
    from perfmodel.papers import Judged

SUFFIXES = (".csv", ".md")


def reproduce(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Paper, a name of --list.")] = "",
    every: Annotated[bool, typer.Option("--list", help="Print one line a paper.")] = False,
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option(writable=True, dir_okay=False, help="Write every number (.csv) or the paper's page (.md)."),
    ] = None,
) -> None:
    """Put the numbers of a paper beside ours: verdicts on its claims, errors, what we cannot judge and why."""
    if output is not None:
        refuse_idle(context, "with --output, whose suffix says what is written", "as_json")
    if every == bool(name):
        raise InputError("give the name of a paper, or --list for all of them")
    if every:
        refuse_idle(context, "with --list", "output")
        _print_list(as_json)
        return

    from perfmodel.papers import judge

    if output is not None and output.suffix not in SUFFIXES:
        raise InputError(f"--output is {output}, its name must end in {' or '.join(SUFFIXES)}")
    judged = judge(name)
    if output is not None:
        _write(judged, output)
        say(f"{output}: {len(judged.numbers):,} numbers of {judged.paper.short}")
    elif as_json:
        print(json.dumps(_as_dict(judged), indent=2))
    else:
        _print(judged)


def _print_list(as_json: bool) -> None:
    from lscd.report.papers import LIST_COLUMNS, listed

    rows = listed()
    if as_json:
        print(json.dumps([dict(zip(LIST_COLUMNS, map(_plain, row), strict=True)) for row in rows], indent=2))
    else:
        print_table(LIST_COLUMNS, rows, text=("paper", "name", "venue"))


def _plain(cell: str) -> str | float | None:
    """A cell as JSON has it: a count, a fraction for percent, null where there is nothing."""
    from lscd.report.papers import NOTHING

    digits = cell.replace(",", "")
    if digits.isdecimal():
        return int(digits)
    return None if cell == NOTHING else float(cell[:-1]) / 100 if cell.endswith("%") else cell


def _write(judged: Judged, output: Path) -> None:
    from lscd.report.papers import page

    with written_whole(output) as partial:
        if output.suffix == ".csv":
            judged.numbers.to_csv(partial, index=False)
        else:
            partial.write_text(page(judged.paper.key), encoding="utf-8")


def _as_dict(judged: Judged) -> dict[str, object]:
    """The whole answer: the paper, its claims with verdicts, its numbers."""
    import msgspec

    claims = [{"says": one.claim.says, "verdict": one.verdict, "because": one.because} for one in judged.claims]
    return {"paper": msgspec.to_builtins(judged.paper), "claims": claims, "numbers": json_rows(judged.numbers)}


def _print(judged: Judged) -> None:
    from lscd.report.papers import SUMMED_COLUMNS, answer, exhibit_rows, summed_rows

    paper = judged.paper
    headline(f"{paper.short}: {answer(judged)}")
    say(f"{paper.authors}, {paper.title}, {paper.venue}. {paper.url}")
    say(f"{paper.setting} Here: {paper.ours}")
    print()
    for one in judged.claims:
        say(f"{one.verdict.upper()}: {one.claim.says} ({one.because})")
    print()
    for row in exhibit_rows(judged):
        say(_exhibit(*row))
    print()
    _print_numbers(judged)
    if rows := summed_rows(judged):
        print()
        print_table(SUMMED_COLUMNS, rows, text=SUMMED_COLUMNS[:2])
    print()
    say(f"Every number: lscd reproduce {paper.key} --output numbers.csv. Sources: {', '.join(paper.sources)}.")


def _exhibit(theirs: str, shows: str, ours: str, count: str, error: str, held_out: str, how: str) -> str:
    """A figure or table of the paper in a line: a table of such cells is wider than any terminal."""
    from lscd.report.papers import NOTHING

    numbers = f"{count} numbers, mean error {error}, held out {held_out}"
    parts = [
        f"here: {ours}" if ours != NOTHING else "",
        numbers if count != NOTHING else "",
        how if how != NOTHING else "",
    ]
    return f"{theirs}: {shows}. {'; '.join(filter(None, parts))}"


def _print_numbers(judged: Judged) -> None:
    from lscd.report.papers import NUMBER_COLUMNS, number_rows

    rows = [(exhibit, *row) for exhibit, part in judged.own.groupby("exhibit", sort=False) for row in number_rows(part)]
    print_table(("exhibit", *NUMBER_COLUMNS), rows, text=("exhibit", "what", ""))
