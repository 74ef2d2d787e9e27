"""Which claims of a paper hold, as we predict them? Its numbers beside ours, and a verdict for each claim.

A claim is *reproduced* if nine in ten of its numbers, so all of fewer than ten, lie inside our 90 % interval, widened
by how well they could be read; else it is *not*. We *cannot judge* what we have no model of, what only a bound is known
of, what our fits have seen, and where our interval is so wide (`WIDEST`) that it would agree with anything.

The two sides of a ratio are taken to err independently. On 86 ratios of runs that no fit saw such intervals hold 97 %;
those of the kernels' errors alone, as if all else of an engine cancelled, would hold 56 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.papers import Claim, Paper, load_paper, load_paper_numbers, paper_names
from perfmodel.papers import operators, products, runs, weights
from perfmodel.papers.asked import EACH, Answer, Asked, UnansweredError
from perfmodel.papers.evidence import evidence_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

BREAK_EVEN, SPEEDUP = "break-even-sparsity", "speedup"
QUANTITIES: Mapping[str, Callable[[Asked], Answer]] = {
    "kernel-speedup": products.kernel_speedup,
    "kernel-time": products.kernel_time,
    "layer-speedup": products.layer_speedup,
    "layer-time": products.layer_time,
    BREAK_EVEN: products.break_even_sparsity,
    "break-even-tokens": products.break_even_tokens,
    "size-ratio": weights.size_ratio,
    "model-gb": weights.model_gb,
    "cache-ratio": weights.cache_ratio,
    "run-speedup": runs.run_speedup,
    "run-rate": runs.run_rate,
    "ttft-ms": runs.ttft_ms,
    "tpot-ms": runs.tpot_ms,
    "tpot-speedup": runs.tpot_speedup,
    "prompt-rate": runs.prompt_rate,
    "part-share": runs.part_share,
    "memory-gb": runs.memory_gb,
    "gflop": operators.gflop,
    "traffic-gb": operators.traffic_gb,
    "intensity": operators.intensity,
    "attainable-tflops": operators.attainable_tflops,
}
UNMODELLED = "none"
WIDEST_SHARE = 0.25  # of all sparsities, of the interval of a break-even that can tell something
COLUMNS = [
    "claim", "exhibit", "quantity", "note", "what", "published", "err", "fitted", "source", "ours", "low", "high",
    "error", "inside",
]  # fmt: skip
WHAT = ("kernel", "baseline", "model", "system", "baseline_system")
COUNTED = 0.02  # bytes and operations are counted, not predicted: how far two ways to count may be apart
LEVEL = 0.9  # of the intervals, so one number in ten may lie outside
WIDEST = 2.0  # high over low end of an interval that can still tell a claim from its opposite
# How the cells of a row are put into words; what stands between semicolons is listed.
MOST_LISTED = 6
WORDS = (
    ("kernel", "{}"), ("baseline", "over {}"), ("model", "{}"), ("system", "in {}"), ("baseline_system", "over {}"),
    ("gpus", "on {}"), ("gpu", "x {}"), ("shapes", "shapes of {}"), ("m", "M {}"), ("k", "K {}"), ("n", "N {}"),
    ("sparsity", "sparsity {}"), ("batch", "batch {}"), ("input_len", "{} in"), ("output_len", "{} out"),
)  # fmt: skip


class Verdict(StrEnum):
    """What we say to a claim."""

    REPRODUCED = "reproduced"
    NOT = "not reproduced"
    CANNOT = "cannot judge"


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, our verdict, in a few words what it rests on, and whether that is ``counted``, not predicted."""

    claim: Claim
    verdict: Verdict
    because: str
    counted: bool = False


@dataclass(frozen=True)
class Judged:
    """A paper beside our models.

    Attributes
    ----------
    paper : Paper
        What it says.
    numbers : DataFrame
        Every published number: ``claim, exhibit, quantity, what, published, err, ours, low, high, error, inside,
        fitted, source, note``. ``error`` is ours over published minus one; ours is missing where ``note`` says why.
    claims : tuple of JudgedClaim
        In the paper's order.
    """

    paper: Paper
    numbers: pd.DataFrame
    claims: tuple[JudgedClaim, ...]

    @property
    def answered(self) -> pd.DataFrame:
        """Numbers that we have one of our own for."""
        return self.numbers[self.numbers["ours"].notna()]

    @property
    def held_out(self) -> pd.DataFrame:
        """Of `answered` those that no fit of ours has seen."""
        return self.answered[~self.answered["fitted"].astype(bool)]

    @property
    def _evidence(self) -> pd.Series:
        """True for numbers that stand in a table of evidence, which have no interval here."""
        return self.numbers["low"].isna() & self.numbers["ours"].notna()

    @property
    def own(self) -> pd.DataFrame:
        """Numbers of the paper's own table, answered or not."""
        return self.numbers[~self._evidence]

    @property
    def evidence(self) -> pd.DataFrame:
        """Numbers that are evidence here."""
        return self.numbers[self._evidence]

    def count(self, verdict: Verdict) -> int:
        """How many claims have this verdict."""
        return sum(judged.verdict is verdict for judged in self.claims)


@cache
def judge(name: str) -> Judged:
    """Everything a paper publishes that we know of, beside our answers.

    Raises
    ------
    ValueError
        If there is no such paper, or its files contradict themselves.
    """
    paper = load_paper(name)
    own = pd.DataFrame(_own_numbers(paper, load_paper_numbers(name)), columns=COLUMNS)
    shown = [evidence_numbers(exhibit).assign(exhibit=exhibit.name) for exhibit in paper.exhibit]
    numbers = pd.concat([own, *(rows for rows in shown if len(rows))], ignore_index=True)
    numbers = numbers.fillna({"claim": "", "note": ""})
    return Judged(paper, numbers, tuple(_judged(claim, own[own["claim"] == claim.key]) for claim in paper.claim))


def predicted_numbers() -> pd.DataFrame:
    """Numbers of all papers' own tables that we predict, with an interval, and that no fit has seen: what tests us."""
    own = pd.concat([judge(name).held_out.assign(paper=name) for name in paper_names()], ignore_index=True)
    return own[own["low"] < own["high"]].reset_index(drop=True)


def _own_numbers(paper: Paper, table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for cells in table.to_dict("records"):
        yield _answered(Asked(paper, {str(name): str(cell) for name, cell in cells.items()}))


def _answered(asked: Asked) -> dict[str, Any]:
    """A row of `Judged.numbers`."""
    cells, nothing = asked.cells, float("nan")
    published, err = float(cells["published"]), float(cells["err"] or 0)
    row: dict[str, Any] = {name: cells[name] for name in ("claim", "exhibit", "quantity", "note")}
    row |= {"what": _words(cells), "published": published, "err": err, "fitted": cells["fitted"] == "true"}
    row["source"] = cells["source"] or asked.paper.sources[0]
    try:
        answer = _answer(asked)
    except ValueError as error:  # what our models refuse is no fault of the paper's: the reader learns why
        if str(error).startswith("unknown ") and not isinstance(error, UnansweredError):
            raise ValueError(f"{asked.paper.key}: {error}") from None  # a slip in our file, not a limit of our models
        return row | dict.fromkeys(("ours", "low", "high", "error"), nothing) | {"inside": None, "note": str(error)}
    slack = COUNTED * published if answer.low == answer.high else 0.0
    inside = answer.low - err - slack <= published <= answer.high + err + slack
    ours = {"ours": answer.value, "low": answer.low, "high": answer.high, "error": answer.value / published - 1}
    return row | ours | {"inside": inside}


def _answer(asked: Asked) -> Answer:
    quantity, note = asked.cells["quantity"], asked.cells["note"]
    if quantity not in QUANTITIES:
        if not note:
            raise ValueError(unknown_name("quantity", quantity, [*QUANTITIES, UNMODELLED]))
        raise UnansweredError(note)
    return QUANTITIES[quantity](asked)


def _words(cells: Mapping[str, str]) -> str:
    """A row's product or run in words: what it is, then where and how."""
    said = {name: form.format(_listed(cells[name])) for name, form in WORDS if cells[name]}
    if "gpu" in said and "gpus" not in said:
        said["gpu"] = f"on {cells['gpu']}"
    subject = " ".join(said.pop(name) for name in WHAT if name in said)
    where = " ".join(said.pop(name) for name in ("gpus", "gpu") if name in said)
    of = f"{cells['statistic']} of {subject}" if cells["statistic"] and subject else subject
    return "; ".join(filter(None, (of, where, *said.values())))


def _listed(cell: str) -> str:
    """What stands between semicolons, or how many where a line would not hold them."""
    parts = cell.split(EACH)
    return ", ".join(parts) if len(parts) <= MOST_LISTED else f"of {len(parts)} sizes"


def _judged(claim: Claim, rows: pd.DataFrame) -> JudgedClaim:
    """The verdict on the numbers of a claim; held-out ones decide where there are any."""
    known = rows[rows["ours"].notna()]
    fresh = known[~known["fitted"].astype(bool)]
    if claim.why_not is not None or rows.empty:
        return JudgedClaim(claim, Verdict.CANNOT, claim.why_not or "no number of it is known here")
    if known.empty:
        return JudgedClaim(claim, Verdict.CANNOT, rows["note"].iloc[0])
    if 2 * len(known) < len(rows):
        return JudgedClaim(claim, Verdict.CANNOT, f"of its {len(rows)} numbers only {len(known)} are modelled")
    if fresh.empty:
        return JudgedClaim(claim, Verdict.CANNOT, f"our fits have seen {_of(len(known), len(rows))}")
    inside = int(fresh["inside"].astype(bool).sum())
    off = f"mean error {fresh['error'].abs().mean():.0%}"
    holds = len(fresh) - inside <= (1 - LEVEL) * len(fresh)
    if holds and (wide := _too_wide(fresh)):
        return JudgedClaim(claim, Verdict.CANNOT, f"{wide}; {off}")
    verdict = Verdict.REPRODUCED if holds else Verdict.NOT
    rest = f" ({len(rows)} in all)" if len(fresh) < len(rows) else ""
    because = f"{inside} of {len(fresh)} held-out numbers{rest} inside our interval, {off}"
    return JudgedClaim(claim, verdict, because, counted=bool((fresh["low"] == fresh["high"]).all()))


def _of(some: int, every: int) -> str:
    if some == every:
        return "its only number" if every == 1 else f"all {every} of its numbers"
    return f"{some} of its {every} numbers, and the rest has no model"


def _too_wide(rows: pd.DataFrame) -> str:
    """Why the intervals of these numbers tell nothing, in words; empty where they do."""
    shares = rows["quantity"] == BREAK_EVEN
    if (rows.loc[shares, "low"] <= 0).any() or (rows.loc[shares, "high"] >= 1).any():
        return "our interval reaches to always or never"
    if (span := (rows["high"] - rows["low"])[shares].max()) > WIDEST_SHARE:
        return f"our interval spans {span:.0%} of zeros"
    gains = rows["quantity"].str.endswith(SPEEDUP)
    either_way = gains & (rows["low"] <= 1) & (rows["high"] >= 1)
    if (either_way & (rows["published"] - 1).abs().gt(rows["err"])).mean() > 1 - LEVEL:
        return "our interval does not tell a gain from a loss"
    factor = (rows["high"] / rows["low"])[~shares].max()
    return f"our interval spans a factor of {factor:.2f}" if factor > WIDEST else ""
