"""How the commands speak: the answer in bold, sentences wrapped between words, tables aligned by spaces.

Nothing is cut. A table wider than the terminal is left to the terminal, so that a line stays a line for scripts.
"""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd


def headline(words: str) -> None:
    """Print the sentence the user came for, bold on a terminal."""
    typer.secho(_wrapped(words), bold=True)


def say(words: str) -> None:
    """Print a sentence, wrapped on a terminal and on one line elsewhere."""
    typer.echo(_wrapped(words))


def _wrapped(words: str) -> str:
    if not sys.stdout.isatty():
        return words
    width = shutil.get_terminal_size().columns
    return textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[str] = ()) -> None:
    """Print rows of cells in columns, numbers to the right.

    Parameters
    ----------
    header : sequence of str
        Titles, with units; none for a bare list of words.
    rows : sequence of sequence of str
        As long as ``header``.
    text : collection of str
        Titles of the columns that hold words.
    """
    lines = [header, *rows] if header else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [title in text for title in header] if header else [True] * len(widths)
    for number, line in enumerate(lines):
        cells = zip(line, widths, left, strict=True)
        padded = "  ".join(cell.ljust(width) if words else cell.rjust(width) for cell, width, words in cells)
        typer.echo(typer.style(padded.rstrip(), bold=True) if header and number == 0 else padded.rstrip())


def side_by_side(left: Mapping[str, str], right: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Rows of two lists of names and numbers that stand beside each other in one table."""
    return [(*a, *b) for a, b in zip_longest(left.items(), right.items(), fillvalue=("", ""))]


def digits(value: float, count: int = 3) -> str:
    """``value`` with at least ``count`` digits, never with an exponent."""
    decimals = count - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(decimals, 0)}f}"


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, each as `json_row`."""
    return [json_row(row) for row in table.to_dict("records")]


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: null for what is no number or has no end."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Bar on stderr, on a terminal alone; what is yielded is called once a step."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda name: bar.advance(task)
