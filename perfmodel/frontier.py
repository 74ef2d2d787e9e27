"""How fast is a model at equal quality? Every published way to compress it, its loss beside its predicted speed.

Losses are those of `perfmodel.evidence.accuracy`, speeds those of a decoding step as `perfmodel.worth` builds it, by
the fastest measured kernel that reads such weights, on the fewest GPUs that hold them. A loss without such a kernel
stays a gap in speed, a kernel without a published loss a gap in quality: neither is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from perfmodel.catalog import load_gpu, load_model, model_names
from perfmodel.catalog.arguments import text, whole_number
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.specs import Gpu
from perfmodel.evidence import accuracy
from perfmodel.evidence.accuracy import DENSE, VARIANT
from perfmodel.evidence.quality_words import POINTS
from perfmodel.evidence.ways import WAYS, ZEROS_ANYWHERE, Way
from perfmodel.kernels import KERNELS
from perfmodel.serving.planning import GPUS_PER_MACHINE, intervals_overlap
from perfmodel.serving.run import usd_per_million
from perfmodel.serving.transformer import splits
from perfmodel.worth import AtBatch, Rival, at_batch

if TYPE_CHECKING:
    import pandas as pd

SIBLING, LAYERS = "smaller dense model", "layers dropped"
DROPPED = "layers"  # pattern of models that lack layers
PRUNING = tuple(way.title for way in WAYS if way.prunes)  # ways that leave zeros among the weights
UNASKED_ZEROS = 0.5  # at which the speed of zeros anywhere is given where no loss is published

_DENSE_FORMAT = ("dense",)
_COLUMNS = [
    "way", *VARIANT, "model", "sources", "loss", "loss_low", "loss_high", "results", "kernel", "gpus",
    "tokens_per_gpu_s", "low", "high", "extrapolated", "usd_low", "usd_high", "gap",
]  # fmt: skip


@dataclass(frozen=True)
class Best:
    """The fastest of a frontier within a budget of quality, and who ties with it.

    Attributes
    ----------
    row : dict
        Of `frontier`.
    ties : tuple of str
        Other ways within the budget whose interval of speed overlaps.
    sure : bool
        Whether more than one source has it keep the budget, and no result has it break it.
    """

    row: dict[str, Any]
    ties: tuple[str, ...]
    sure: bool

    @property
    def title(self) -> str:
        """Its way, with the zeros where the way does not tell them."""
        return title_of(self.row)


def title_of(row: dict[str, Any]) -> str:
    """A row of `frontier` in a few words: its way, how many zeros or layers, whether retrained; a sibling's name."""
    if row["way"] == SIBLING:
        return str(row["model"])
    zeros = f" {row['sparsity']:.0%}" if row["way"] in {ZEROS_ANYWHERE.title, LAYERS} else ""
    return f"{row['way']}{zeros}{' retrained' * (row['retrained'] is True)}"


def over_dense(row: dict[str, Any], table: pd.DataFrame) -> tuple[float, float, float] | None:
    """How many times as fast as dense a row of ``table`` is, with its interval; None where dense does not fit."""
    dense = float(table.loc[table["way"] == DENSE, "tokens_per_gpu_s"].iloc[0])
    if np.isnan(dense):
        return None
    value, low, high = (float(row[name]) / dense for name in ("tokens_per_gpu_s", "low", "high"))
    return value, low, high


def frontier(
    model: str | LanguageModel, gpu: str | Gpu, *, batch: int = 16, input_len: int = 64, output_len: int = 512,
    metric: str = POINTS, gpus: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Quality lost and tokens per GPU-second of every way to compress a model.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records.
    batch, input_len, output_len : int
        Sequences decoded together; tokens of each prompt, tokens generated for it.
    metric : str
        What losses are counted in, as in `accuracy.results`.
    gpus : int
        GPUs that share the model; by default the fewest that hold it.

    Returns
    -------
    pandas.DataFrame
        ``way`` (a title of `WAYS`, or dense, a smaller dense model, layers dropped), the columns of
        `accuracy.variants`; ``kernel``, ``gpus``, ``tokens_per_gpu_s`` with the ``low`` and ``high`` end of the 90 %
        interval of its speed over dense; ``extrapolated``; ``usd_low, usd_high`` per million tokens; ``gap``, why a
        loss or a speed is missing, or else empty.

    Raises
    ------
    ValueError
        As `worth` and `accuracy.results`.
    """
    import pandas as pd

    record = (model if isinstance(model, LanguageModel) else load_model(model)).unquantised
    card = load_gpu(gpu)
    batch, gpus = whole_number("batch", batch), None if gpus is None else whole_number("gpus", gpus)
    text("metric", metric)
    steps = _Steps(card, record, batch, gpus, {"input_len": input_len, "output_len": output_len})
    dense = {"way": DENSE, "method": DENSE, "model": record.key, "loss": 0.0, "loss_low": 0.0, "loss_high": 0.0}
    rows = [dense | steps.of(record, _DENSE_FORMAT, 0.0)]
    known = accuracy.variants(record.key, metric)
    for way in WAYS:
        same = (known["pattern"] == way.pattern) & (known["weights"] == way.weights)
        of_way = known[same & (known["activation_bits"] == way.activation_bits)].to_dict("records")
        for row in of_way or [_unpublished(way)]:
            rows.append({"way": way.title} | row | steps.of(record, way.formats, row["sparsity"]))
    for row in known[known["pattern"] == DROPPED].to_dict("records"):
        rows.append({"way": LAYERS} | row | steps.of(with_fewer_layers(record, row["sparsity"]), _DENSE_FORMAT, 0.0))
    for row in accuracy.siblings(record.key, metric).to_dict("records"):
        if row["model"] in model_names():
            named = {"way": SIBLING, "method": DENSE}
            rows.append(named | row | steps.of(load_model(row["model"]), _DENSE_FORMAT, 0.0))
    return pd.DataFrame(rows).reindex(columns=_COLUMNS).assign(**_gaps(pd.DataFrame(rows), metric))


def _unpublished(way: Way) -> dict[str, Any]:
    """A way of which nobody has published what it costs this model; zeros anywhere as many as 2:4 has."""
    zeros = UNASKED_ZEROS if way is ZEROS_ANYWHERE else way.sparsity
    return {"sparsity": zeros, "pattern": way.pattern, "weights": way.weights, "activation_bits": way.activation_bits}


def _gaps(rows: pd.DataFrame, metric: str) -> dict[str, Any]:
    return {"gap": rows["gap"].where(rows["loss"].notna() | (rows["gap"] != ""), unpublished(metric))}


def unpublished(metric: str) -> str:
    """The gap of a way of which nobody has published what it costs the model, counted so."""
    return f"not published in {metric}"


def with_fewer_layers(model: LanguageModel, share: float) -> LanguageModel:
    """``model`` without a ``share`` of the layers of each kind, rounded to whole ones, at least one left."""
    kept = (msgspec.structs.replace(b, count=max(1, round(b.count * (1 - share)))) for b in model.shape.blocks)
    return msgspec.structs.replace(model, shape=msgspec.structs.replace(model.shape, blocks=tuple(kept)))


def best(table: pd.DataFrame, budget: float, ways: tuple[str, ...] = ()) -> Best | None:
    """Fastest row of `frontier` whose median loss is at most ``budget``; of ``ways`` alone, where there are some."""
    able = table[(table["loss"] <= budget) & table["tokens_per_gpu_s"].notna()]
    able = able[able["way"].isin(ways)] if ways else able
    if able.empty:
        return None
    able = able.sort_values(["tokens_per_gpu_s", "loss"], ascending=[False, True])  # of equally fast ones, the better
    row = able.iloc[0].to_dict()
    own = (row["low"], row["high"])
    tied = [
        title_of(other) if other["way"] == SIBLING else str(other["way"])
        for other in able.to_dict("records")
        if other["way"] != row["way"] and intervals_overlap(own, (other["low"], other["high"]))
    ]
    return Best(
        row,
        tuple(dict.fromkeys(tied)),
        row["way"] == DENSE or bool(row["loss_high"] <= budget and len(str(row["sources"]).split()) > 1),
    )


def by_budget(table: pd.DataFrame, budgets: Sequence[float]) -> pd.DataFrame:
    """The fastest of `frontier` within each budget of quality.

    Returns
    -------
    pandas.DataFrame
        A row a budget, named by it: ``fastest``, the way with its zeros (`title_of`), or why nothing runs; the columns
        of the row of ``table``; ``speedup`` over dense, missing where dense does not fit.
    """
    import pandas as pd

    rows = []
    for budget in budgets:
        found = best(table, budget)
        if found is None:
            rows.append({"fastest": table.loc[table["way"] == DENSE, "gap"].iloc[0]})
        else:
            gain = over_dense(found.row, table)
            rows.append({"fastest": found.title, "speedup": gain[0] if gain else np.nan} | found.row)
    columns = ["fastest", "speedup", *table.columns]
    return pd.DataFrame(rows, index=pd.Index(budgets, name="budget")).reindex(columns=columns)


def efficient(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other beats in both: by loss, each faster than all that lose less."""
    able = table.dropna(subset=["loss", "tokens_per_gpu_s"]).sort_values(
        ["loss", "tokens_per_gpu_s"], ascending=[True, False]
    )
    speed = able["tokens_per_gpu_s"].to_numpy()
    ahead = np.append(True, speed[1:] > np.maximum.accumulate(speed)[:-1]) if len(speed) else np.zeros(0, bool)
    return able[ahead]


@dataclass(frozen=True)
class _Steps:
    """Decoding steps on one kind of GPU at one batch, each computed once."""

    gpu: Gpu
    model: LanguageModel  # beside which others stand
    batch: int
    gpus: int | None
    lengths: dict[str, Any]
    known: dict[tuple[Any, ...], AtBatch] = field(default_factory=dict)

    def of(self, model: LanguageModel, formats: tuple[str, ...], sparsity: float) -> dict[str, Any]:
        """Columns of the fastest measured kernel of ``formats`` on the fewest GPUs, or why there is none."""
        found, counts = False, splits(model, GPUS_PER_MACHINE)
        if self.gpus is not None:
            if model.key != self.model.key and self.gpus not in splits(model, self.gpus):
                return {"gap": f"cannot be shared by {self.gpus} GPUs"}
            counts = [self.gpus]
        for gpus in counts:
            at = self._at(model, gpus, sparsity)
            able = [rival for rival in at.rivals if _reads(rival, formats)]
            found = found or bool(able)
            if fitting := [rival for rival in able if rival.fits]:
                return self._columns(model, min(fitting, key=lambda rival: rival.step_s), at, gpus) | {"gap": ""}
        most = counts[-1]
        return {"gap": f"too large for {most} GPU{'s' * (most > 1)}" if found else "no measured kernel on this GPU"}

    def _at(self, model: LanguageModel, gpus: int, sparsity: float) -> AtBatch:
        asked = (model.key, model.parameters, gpus, sparsity)
        if asked not in self.known:
            self.known[asked] = at_batch(model, self.gpu, self.batch, sparsity, gpus=gpus, kernels=(), **self.lengths)
        return self.known[asked]

    def _columns(self, model: LanguageModel, rival: Rival, at: AtBatch, gpus: int) -> dict[str, Any]:
        dense = self.batch / (at.dense.step_s * gpus)
        alike = model.key == self.model.key  # with fewer layers too: the products and their errors are the same
        ratios = rival.speedup_over(at.dense) if alike else _of_another_shape(rival)
        value, low, high = (dense * ratio for ratio in ratios)
        found = {"kernel": rival.kernel, "gpus": gpus, "tokens_per_gpu_s": value, "low": low, "high": high}
        price = self.gpu.price
        if price is not None:
            dollars = usd_per_million((price.low_usd_per_hour, price.high_usd_per_hour), value)
            found |= dict(zip(("usd_low", "usd_high"), dollars, strict=True))
        return found | {"extrapolated": rival.extrapolated}


def _of_another_shape(dense: Rival) -> tuple[float, float, float]:
    """Ends of the interval of a dense step beside that of another model, both errors taken as independent."""
    products, rest_s = dense.products, dense.rest_s
    return 1.0, dense.step_s / (products.hi_s + rest_s), dense.step_s / (products.lo_s + rest_s)


def _reads(rival: Rival, formats: tuple[str, ...]) -> bool:
    """Whether the kernel multiplies weights of one of the formats, or zeros anywhere where none is named."""
    model = KERNELS[rival.kernel]
    anywhere = model.format.change == "pruned" and not model.patterns
    return model.format_name in formats if formats else anywhere
