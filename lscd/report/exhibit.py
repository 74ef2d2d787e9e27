"""What the report is made of: exhibits in chapters, each a figure or a table with its finding and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from perfmodel.catalog import load_gpu, load_kernel_times, load_sources
from perfmodel.evidence.accuracy import Limit, reach
from perfmodel.evidence.runs import joined_parts, joined_runs
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels.fits import kernel_fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lscd.report.provenance import Provenance
    from perfmodel.catalog.specs import FittedKernel, Source


@dataclass(frozen=True)
class Exhibit:
    """One figure, or one table, of the report.

    Attributes
    ----------
    name : str
        Stem of its files in ``figures/`` and its anchor on the page.
    title : str
        Heading.
    finding : str
        One sentence, its numbers computed from ``table``.
    evidence : str
        What was fitted, what was held out, how large the error is.
    sources : tuple of str
        Keys of ``data/sources.toml``.
    table : DataFrame
        The numbers behind the picture, saved as CSV with units in the column names.
    figure : Figure or None
        The picture; without one the table itself is shown.
    shown : DataFrame or None
        Table for the page, formatted, if it differs from ``table``.
    number : int
        Its place among the report's figures, or tables, from 1; the report gives it.
    """

    name: str
    title: str
    finding: str
    evidence: str
    sources: tuple[str, ...]
    table: pd.DataFrame
    figure: Figure | None = None
    shown: pd.DataFrame | None = None
    number: int = 0

    @property
    def kind(self) -> str:
        """What it is called: a figure or a table."""
        return "Table" if self.figure is None else "Figure"

    @property
    def label(self) -> str:
        """What the whole report calls it: ``Figure 7``."""
        return f"{self.kind} {self.number}"

    @property
    def inches(self) -> float:
        """Width of the picture."""
        assert self.figure is not None  # a table has none
        return float(self.figure.get_size_inches()[0])

    @property
    def rows(self) -> pd.DataFrame:
        """The table as a reader sees it."""
        return self.table if self.shown is None else self.shown


class Context:
    """Evidence and calibration, read once for all exhibits."""

    @cached_property
    def calibration(self) -> dict[str, FittedKernel]:
        """Fitted parameters of the kernel models."""
        return kernel_fits()

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Provenance by key."""
        return load_sources()

    @cached_property
    def joined(self) -> pd.DataFrame:
        """Every kernel time with its prediction."""
        return join_predictions(calibration=self.calibration)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Every published run of a whole model that fits, with its prediction."""
        return joined_runs()

    @cached_property
    def parts(self) -> pd.DataFrame:
        """GPU-seconds of published runs by part, with their prediction."""
        return joined_parts()

    @cached_property
    def benchmark(self) -> pd.DataFrame:
        """Fig 9: all bars, dense ones repeated at each sparsity, with the model's rate beside the published one."""
        table = load_kernel_times("published/kernel_a100.csv")
        sparsities = sorted(table.loc[table["kernel"] == "flash-llm", "sparsity"].unique())
        dense = table[table["kernel"] == "cublas"].drop(columns="sparsity")
        dense = dense.merge(pd.DataFrame({"sparsity": sparsities}), how="cross")
        table = pd.concat([table[table["kernel"] != "cublas"], dense[table.columns]], ignore_index=True)
        table["status"] = table["status"].replace("lower_bound", "value")  # bars to draw, whatever they prove
        joined = join_predictions(table, self.calibration)
        flops = 2.0 * joined["m"] * joined["k"] * joined["n"]
        joined["tflops"] = flops / joined["time_us"] / 1e6
        joined["predicted_tflops"] = flops / joined["predicted_us"] / 1e6
        return joined


Maker = Callable[[Context], Exhibit]


@dataclass(frozen=True)
class Chapter:
    """A heading of the page and the functions that make its exhibits.

    The finding of the exhibit ``headline`` (the name of its maker) answers ``question`` at the top of the page.
    """

    title: str
    lead: str
    makers: tuple[Maker, ...]
    question: str = ""
    headline: str = ""


@dataclass(frozen=True)
class Report:
    """All that the page and the document say: chapters with their exhibits made and numbered, and what they rest on."""

    title: str
    lead: str
    chapters: list[tuple[Chapter, list[Exhibit]]]
    sources: dict[str, Source]
    provenance: Provenance

    @property
    def numbers(self) -> dict[str, int]:
        """What each source is cited as."""
        return {key: number for number, key in enumerate(self.sources, start=1)}

    @property
    def exhibits(self) -> list[Exhibit]:
        """Every figure and table in the order of the page."""
        return [exhibit for _, exhibits in self.chapters for exhibit in exhibits]

    @property
    def answers(self) -> list[tuple[str, Exhibit]]:
        """Each chapter's question and the exhibit that answers it."""
        return [
            (chapter.question, exhibit)
            for chapter, exhibits in self.chapters
            for maker, exhibit in zip(chapter.makers, exhibits, strict=True)
            if maker.__name__ == chapter.headline
        ]


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent, for prose: ``2.3 %``."""
    return f"{100 * value:.{digits}f} %"


def gpu_title(gpu: str) -> str:
    """Short name of a catalogue GPU, for a panel or a sentence: ``A100``, ``RTX 4090``."""
    return load_gpu(gpu).name.removeprefix("NVIDIA ").removeprefix("GeForce ").split("-SXM")[0].split(" SXM")[0]


def mean_errors(rows: pd.DataFrame, by: str) -> pd.Series:
    """Mean size of the column ``error`` for each value of the column ``by``, in the order in which they come."""
    return rows["error"].abs().groupby(rows[by], sort=False).mean()


def pruned_to(*models: str) -> dict[str, Limit]:
    """How far published one-shot pruning goes with each model that it is known of."""
    return {model: limit for model in models if (limit := reach(model, retrained=False)) is not None}


def rests_on(limits: Mapping[str, Limit]) -> str:
    """What marks of `pruned_to` rest on, model by model, as the end of a caption."""
    listed = "; ".join(f"{model} {limit.words}" for model, limit in limits.items())
    return f"how far published one-shot pruning goes: {listed or 'nothing is published'}."
