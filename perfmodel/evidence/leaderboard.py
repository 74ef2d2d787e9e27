"""Which kernel is fastest as measured, by GPU, shapes, sparsity and tokens? No prediction ranks here.

Kernels are compared only within one source, state of the caches and way to launch, on the products that all of them
were measured on; what one source says stands beside another's, never in it. Each is told as a speed-up over the dense
product of its own comparison, the geometric mean over products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.catalog import gpu_names, load_gpu, load_kernel_times
from perfmodel.catalog.specs import Activations
from perfmodel.evidence.kernel_fit import predictor
from perfmodel.kernels import BASELINE, GPU_KERNELS, KERNELS
from perfmodel.kernels.fits import calibrated
from perfmodel.units import FP16_BYTES

if TYPE_CHECKING:
    import pandas as pd

Times = dict[tuple[int, int], float]  # microseconds by m and k

STATUSES = ("value", "assumed-gpu")  # rows that state a time, well enough to rank
COMPARED = ("gpu", "source", "cache", "launch", "copies")  # alike in all of these, or not compared
CELL = ("gpu", "shapes", "sparsity", "n", "source", "cache", "launch", "copies")
SHAPES = {
    "small": "dense FP16 weights that the L2 holds",
    "square": "as the output of attention: neither side twice the other",
    "tall": "as queries, keys and values, or into the MLP: at least two rows for a column",
    "wide": "as out of the MLP: at least two columns for a row",
}
TIE = 0.05  # of the time, below which two kernels are as fast as each other
ENOUGH = 0.5  # of the products of a comparison, on which a kernel must have been measured to be ranked
MEASURED, MODEL = "measured", "model"
DECIMALS = 3  # of a sparsity, to which a third is one
ENDS = {"from": "min", "to": "max"}


def measured_times(own: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every time of a GPU that may be ranked, one row a kernel and product of each source and way to call it.

    Of several times (BF16 and FP16, ways to split K) the shortest. Rows of a user's ``own`` measurements join them.
    """
    import pandas as pd

    table = pd.concat([load_kernel_times(), *([] if own is None else [own])], ignore_index=True)
    table = table[table["status"].isin(STATUSES) & table["time_us"].notna() & table["gpu"].isin(gpu_names())]
    table = table[table["sparsity"] < 1]  # of no weights at all nothing can be said
    table = table.assign(sparsity=table["sparsity"].round(DECIMALS), shapes=shape_classes(table))
    fastest = table.groupby([*COMPARED, "kernel", "m", "k", "n", "sparsity"], dropna=False)["time_us"].idxmin()
    return table.loc[fastest].reset_index(drop=True)


def shape_classes(rows: pd.DataFrame) -> np.ndarray:
    """Name in `SHAPES` of each row's matrix."""
    l2_bytes = rows["gpu"].map({gpu: load_gpu(gpu).l2.size_bytes for gpu in rows["gpu"].unique()})
    m, k = rows["m"], rows["k"]
    cases = [FP16_BYTES * m * k <= l2_bytes, m >= 2 * k, k >= 2 * m]
    return np.select(cases, ["small", "tall", "wide"], "square")


def leaderboard(own: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every kernel's place in every comparison.

    Parameters
    ----------
    own
        A user's measurements in the schema of the evidence. Where they have no dense product, its model takes the place
        of it; published sources without one are left out.

    Returns
    -------
    pandas.DataFrame
        `CELL`, ``products`` they were all measured on, ``dense`` (`MEASURED` or `MODEL`), ``kernel``, ``speedup`` over
        dense, ``behind`` (time over the fastest's, minus one) and ``place``, 1 for all within `TIE` of the fastest.
        Fastest first in each comparison.
    """
    import pandas as pd

    rows = measured_times(own)
    mine = set() if own is None else set(own["source"])
    several = rows.groupby(list(COMPARED))["kernel"].transform("nunique") > 1
    rows = rows[several | rows["source"].isin(mine)]
    found = [line for _, group in rows.groupby(list(COMPARED), sort=False) for line in _ranked(group, mine)]
    table = pd.DataFrame(found, columns=[*CELL, "products", "dense", "kernel", "speedup", "behind", "place"])
    return table.sort_values([*CELL, "behind"], kind="stable", ignore_index=True)


def _ranked(group: pd.DataFrame, mine: set[str]) -> Iterator[dict[str, object]]:
    """The places within rows that were measured alike, for each class of shapes, N and sparsity."""
    alike = {name: group[name].iloc[0] for name in COMPARED}
    whole = {name for name, model in KERNELS.items() if not model.format.prunes}  # compete at every sparsity
    for (shapes, n), rows in group.groupby(["shapes", "n"]):
        dense, kind = _dense_us(rows, str(alike["source"]) in mine)
        times = {key: _by_product(of) for key, of in rows.groupby(["kernel", "sparsity"])}
        for sparsity in sorted({share for kernel, share in times if kernel not in whole} | {0.0}):
            at = {name: us for (name, share), us in times.items() if share == sparsity or name in whole}
            ranked = _places(at, dense)
            if len(ranked) > (kind == MEASURED):  # dense alone is no comparison
                cell = alike | {"shapes": shapes, "n": n, "sparsity": sparsity, "dense": kind}
                yield from (cell | place for place in ranked)


def _by_product(rows: pd.DataFrame) -> Times:
    return dict(zip(zip(rows["m"], rows["k"], strict=True), rows["time_us"], strict=True))


def _dense_us(rows: pd.DataFrame, mine: bool) -> tuple[Times, str]:
    """Times of the dense product, measured; of a user's rows that have none by its model."""
    dense = rows[rows["kernel"] == BASELINE]
    if len(dense) or not mine:
        return _by_product(dense), MEASURED
    products = rows.drop_duplicates(["m", "k"]).assign(kernel=BASELINE, sparsity=0.0)
    seconds = predictor(KERNELS[BASELINE], products)(calibrated(BASELINE))
    return _by_product(products.assign(time_us=seconds * 1e6)), MODEL


def _places(times: dict[str, Times], dense: Times) -> list[dict[str, object]]:
    """Kernels by their mean speed-up over ``dense``, fastest first, on products that all of them were measured on."""
    gains = {name: {at: dense[at] / us for at, us in of.items() if at in dense} for name, of in times.items()}
    most = max(map(len, gains.values()), default=0)
    gains = {name: of for name, of in gains.items() if len(of) >= max(ENOUGH * most, 1)}
    common: set[tuple[int, int]] = set()
    while gains and not (common := set.intersection(*map(set, gains.values()))):
        gains.pop(min(gains, key=lambda name: len(gains[name])))
    means = {name: float(np.exp(np.mean([np.log(of[at]) for at in common]))) for name, of in gains.items()}
    order = sorted(means, key=lambda name: -means[name])
    found = []
    for place, name in enumerate(order, start=1):
        behind = means[order[0]] / means[name] - 1
        tied = 1 if behind < TIE else place
        found.append({"kernel": name, "speedup": means[name], "behind": behind, "place": tied, "products": len(common)})
    return found


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """One row a comparison of `leaderboard`: who is fastest, all that tie with it, and who comes next.

    Returns
    -------
    pandas.DataFrame
        `CELL`, ``products``, ``dense``, ``fastest`` (names, the first the fastest), ``speedup`` of the first, ``next``
        (name, or empty) and ``behind``, how much longer that one takes.
    """
    import pandas as pd

    def row(cell: tuple[object, ...], places: pd.DataFrame) -> dict[str, object]:
        first, rest = places[places["place"] == 1], places[places["place"] > 1]
        return dict(zip(CELL, cell, strict=True)) | {
            "products": first["products"].iloc[0],
            "dense": first["dense"].iloc[0],
            "fastest": tuple(first["kernel"]),
            "speedup": first["speedup"].iloc[0],
            "next": rest["kernel"].iloc[0] if len(rest) else "",
            "behind": rest["behind"].iloc[0] if len(rest) else np.nan,
        }

    return pd.DataFrame([row(cell, places) for cell, places in table.groupby(list(CELL), sort=False)])


def over_tokens(won: pd.DataFrame) -> pd.DataFrame:
    """Rows of `winners` with neighbouring N joined where the same kernels are fastest and the same comes next.

    Returns
    -------
    pandas.DataFrame
        As `winners`, but with ``n_from``, ``n_to``, and the smallest and largest of the others: ``speedup_from``,
        ``speedup_to``, ``behind_from``, ``behind_to``, ``products``.
    """
    rest = [name for name in CELL if name != "n"]
    won = won.sort_values([*rest, "n"], kind="stable")
    who = won["fastest"].map(sorted).map(tuple)
    changed = (who != who.shift()) | (won["next"] != won["next"].shift()) | (won["dense"] != won["dense"].shift())
    new = changed | (won[rest] != won[rest].shift()).any(axis=1)
    kept = {name: (name, "first") for name in (*rest, "dense", "fastest", "next")}
    ends = {f"{of}_{end}": (of, how) for of in ("n", "speedup", "behind") for end, how in ENDS.items()}
    found = won.groupby(new.cumsum()).agg(**kept, **ends, products=("products", "min"))
    return found.sort_values(["gpu", "shapes", "sparsity", "n_from"], kind="stable", ignore_index=True)


def unranked(table: pd.DataFrame) -> list[str]:
    """Published sources with times on GPUs of which `leaderboard` ranks nothing: no dense product beside another."""
    import pandas as pd

    times = load_kernel_times()
    named = pd.unique(times.loc[times["kernel"].isin(GPU_KERNELS), "source"])
    return sorted(set(named) - set(table["source"]))


def come_quantised() -> list[str]:
    """Sources that time 8-bit and 4-bit kernels on activations that were quantised before."""
    times = load_kernel_times()
    return sorted(set(times.loc[times["activations"] == Activations.QUANTISED, "source"]))
