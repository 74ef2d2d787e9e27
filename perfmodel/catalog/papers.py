"""Papers of the field: what each claims and shows (``data/papers/NAME.toml``), number by number (``NAME.csv``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.catalog.arguments import text
from perfmodel.catalog.files import data_directory, load_record, named, read_texts, stems, text_of
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.records import Record, Text
from perfmodel.catalog.specs import Cache, Launch

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "papers"
LARGEST = 1e30  # beyond any published number; keeps out infinity
NUMBER_COLUMNS = (
    "claim", "exhibit", "quantity", "statistic", "gpu", "kernel", "baseline", "shapes", "m", "k", "n", "sparsity",
    "model", "gpus", "system", "baseline_system", "batch", "input_len", "output_len", "published", "err", "fitted",
    "source", "note",
)  # fmt: skip


class PaperExhibit(Record, frozen=True, kw_only=True):
    """One figure or table of a paper.

    ``ours`` names exhibits of our report that show the same, ``notebook`` one of ours that explains it, ``table`` and
    ``rows`` the evidence that holds its numbers (`perfmodel.papers.evidence`), ``command`` what prints them;
    ``why_not`` says what is missing where nothing of ours answers it.
    """

    name: Text
    shows: Text
    ours: tuple[Text, ...] = ()
    notebook: Text | None = None
    table: Text | None = None
    rows: Text | None = None
    command: Text | None = None
    why_not: Text | None = None

    def __post_init__(self) -> None:
        """Refuse rows of no table."""
        if (self.table is None) != (self.rows is None):
            raise ValueError(f"exhibit {self.name!r}: table and rows go together")


class Claim(Record, frozen=True, kw_only=True):
    """One sentence that a paper is known for; ``why_not`` names the setting that cannot be modelled."""

    key: Text
    says: Text
    why_not: Text | None = None


class Paper(Record, frozen=True, kw_only=True):
    """One paper: where to read it, in which setting it measured, what stands for it here, its exhibits and claims.

    ``cache`` and ``launch`` say how its benchmark calls kernels, ``ours`` which models of ours answer for it.
    """

    key: Text
    title: Text
    short: Text
    authors: Text
    venue: Text
    url: Text
    code: Text | None = None
    sources: tuple[Text, ...]
    setting: Text
    ours: Text
    cache: Cache = Cache.WARM
    launch: Launch = Launch.STREAM
    exhibit: tuple[PaperExhibit, ...]
    claim: tuple[Claim, ...]

    def __post_init__(self) -> None:
        """Refuse two exhibits or two claims of one name."""
        for kind, names in (("exhibit", [e.name for e in self.exhibit]), ("claim", [c.key for c in self.claim])):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{kind} {twice[0]!r} stands twice")


def paper_names() -> tuple[str, ...]:
    """Keys of the papers, sorted."""
    return stems(FOLDER)


def load_paper(name: str) -> Paper:
    """Record of a paper.

    Raises
    ------
    ValueError
        If there is no such paper; the message suggests the nearest.
    """
    name = text("paper", name)
    if name not in paper_names():
        raise ValueError(unknown_name("paper", name, paper_names()))
    return load_record(data_directory() / FOLDER / f"{name}.toml", Paper)


def load_paper_numbers(name: str) -> pd.DataFrame:
    """Published numbers of a paper, every cell as its text: `NUMBER_COLUMNS`.

    Raises
    ------
    ValueError
        If columns are missing or unknown, or a row names a claim that the paper does not list.
    """
    import pandas as pd

    paper, path = load_paper(name), data_directory() / FOLDER / f"{name}.csv"
    table = pd.DataFrame(read_texts(text_of(path), path), dtype="str")
    with named(path):
        if tuple(table.columns) != NUMBER_COLUMNS:
            raise ValueError(f"columns are {', '.join(table.columns)}, needed are {', '.join(NUMBER_COLUMNS)}")
        if foreign := set(table["claim"]) - {"", *(claim.key for claim in paper.claim)}:
            raise ValueError(f"claim {min(foreign)!r} is none of the paper's: {', '.join(c.key for c in paper.claim)}")
        _check_cells(table)
    return table


def _check_cells(table: pd.DataFrame) -> None:
    """Refuse rows without a published number above 0, an error below 0, or no word on whether a fit has seen them."""
    import pandas as pd

    published = pd.to_numeric(table["published"], errors="coerce")
    err = pd.to_numeric(table["err"].replace("", "0"), errors="coerce")
    allowed = {
        "published": (published.between(0, LARGEST, inclusive="neither"), "a number above 0"),
        "err": (err.between(0, published.abs()), "a number from 0 to what is published, or nothing"),
        "fitted": (table["fitted"].isin(("true", "false")), "true or false"),
    }
    for name, (good, what) in allowed.items():
        if not good.all():
            line = int((~good).to_numpy().argmax())
            raise ValueError(f"line {line + 2}: {name} is {table[name].iloc[line]!r}, allowed is {what}")
