"""Sparse against the rivals that keep all weights: where it overtakes them, who is fastest, 2:4 as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, label

from perfmodel.plotting.marks import label_ends, outside_cells, outside_key, ticks
from perfmodel.plotting.style import BLACK, GREY, KERNEL_COLOURS, KERNEL_MARKERS, PAGE, in_order

SMALL = 6  # points: the least that paper takes
ROW = 0.125  # inches of a GPU's row
NOWHERE = 104.0  # where "never" stands on an axis in percent
LEAST = 50  # percent at which the axis starts, unless something is overtaken earlier
LAST = 98.5  # between the highest sparsity shown and "never"
MAPS_A_LINE = 3
HATCH = {"hatchcolor": "#FFFFFFB0"}
# A map is `TALL` times as high as wide, a letter and a line of text have these shares of its width.
TALL, LETTER, LINE = 0.66, 0.026, 0.065
FINE = 120  # points a side where room for a name is looked for


def overtaking(table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str]) -> Figure:
    """Sparsity from which the best sparse kernel overtakes each rival, a panel a rival, a row a GPU.

    ``table``: ``gpu, rival, sparsity, low, high, extrapolated``, missing where nowhere; GPUs in the order of the rows.
    Whiskers: the 90 % interval; one that reaches the last column has no upper end. Hollow: outside the evidence.
    """
    gpus, rivals = (list(dict.fromkeys(table[column])) for column in ("gpu", "rival"))
    size = (PAGE, 0.75 + ROW * len(gpus))
    figure, panels = plt.subplots(1, len(rivals), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, rival in zip(panels[0], rivals, strict=True):
        _overtaken(axes, table[table["rival"] == rival], gpus, rival)
        axes.set_title(f"faster than {titles[rival]}")
    first = panels[0, 0]
    first.set_yticks(range(len(gpus)), [labels[gpu] for gpu in gpus])
    first.set_ylim(len(gpus) - 0.5, -0.5)
    first.annotate(
        "GPU (bytes per SM and clock)", (0, 1), xycoords="axes fraction", xytext=(-4, 3), textcoords="offset points",
        ha="right",
    )  # fmt: skip
    shown = [at for at in range(10, 100, 10) if at >= min(LEAST, 100 * table[["sparsity", "low"]].min(axis=None))]
    first.set_xlim(shown[0] - 8, 108)
    first.set_xticks([*shown, NOWHERE], [*map(str, shown), "never"])
    figure.supxlabel("sparsity from which the best sparse kernel is faster [%]; hollow: outside the evidence")
    return figure


def _overtaken(axes: Axes, rows: pd.DataFrame, gpus: Sequence[str], rival: str) -> None:
    """Marks and whiskers of one rival over bands of GPUs."""
    for row in range(1, len(gpus), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.12, lw=0)
    axes.axvline(LAST, color=BLACK, lw=0.6)
    y = rows["gpu"].map({gpu: i for i, gpu in enumerate(gpus)}).to_numpy()
    at, low, high = (np.where(rows[end].isna(), NOWHERE, rows[end] * 100) for end in ("sparsity", "low", "high"))
    colour = KERNEL_COLOURS[rival]
    axes.hlines(y, low, high, color=colour, lw=1)
    faces = np.where(rows["extrapolated"], "white", colour)
    axes.scatter(at, y, marker=KERNEL_MARKERS[rival], s=16, facecolors=faces, edgecolors=colour, lw=0.8, zorder=3)
    for row in sorted(set(range(len(gpus))) - set(y)):
        axes.text(70, row, "does not run it", ha="center", va="center", color=GREY, fontsize=SMALL)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def winner_map(table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str]) -> Figure:
    """The fastest kernel by sparsity and tokens, a panel per GPU; hatched where it is outside its evidence.

    ``table``: ``gpu, n, sparsity, kernel, extrapolated``, a full grid for each GPU. A region has its kernel's name
    within; the legend names those of regions that are too small for it.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    lines = -(-len(gpus) // MAPS_A_LINE)
    size = (PAGE, 0.55 + 1.6 * lines)
    figure, panels = plt.subplots(lines, MAPS_A_LINE, figsize=size, sharex=True, sharey=True, squeeze=False)
    unnamed: set[str] = set()
    for axes, gpu in zip(panels.flat, gpus, strict=False):
        unnamed |= _won(axes, table[table["gpu"] == gpu], titles)
        axes.set_title(labels[gpu])
    for axes in panels.flat[len(gpus) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens N")
    small = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in in_order(unnamed)]
    handles = [*small, outside_key("winner outside its evidence", facecolor=GREY, **HATCH)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _won(axes: Axes, rows: pd.DataFrame, titles: Mapping[str, str]) -> set[str]:
    """Colour the cells of one GPU by who wins, hatch and name them; kernels of regions without room for a name."""
    kernels = in_order(rows["kernel"])
    grid = rows.assign(code=rows["kernel"].map({name: i for i, name in enumerate(kernels)}))
    codes, outside = (
        grid.pivot_table(index="n", columns="sparsity", values=value, aggfunc="first")
        for value in ("code", "extrapolated")
    )
    x = _edges(100 * codes.columns.to_numpy(dtype=float))
    y = 2 ** _edges(np.log2(codes.index.to_numpy(dtype=float)))
    colours = ListedColormap([KERNEL_COLOURS[name] for name in kernels])
    # As pixels within the vector picture: thousands of cells are large, and paper shines through between them.
    axes.pcolormesh(x, y, codes, cmap=colours, vmin=-0.5, vmax=len(kernels) - 0.5, rasterized=True)
    outside_cells(axes, outside.to_numpy(dtype=bool), x, y, **HATCH)
    axes.set(yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ticks(axes.yaxis, (1, 4, 16, 64, 256))
    axes.grid(visible=False)
    unnamed = set()
    for code, place, turned in _regions(codes.to_numpy(), x, np.log2(y), [titles[name] for name in kernels]):
        if place is None:
            unnamed.add(kernels[code])
            continue
        axes.text(
            place[0], 2 ** place[1], titles[kernels[code]], rotation=90 * turned, ha="center", va="center",
            fontsize=SMALL, bbox={"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 0.8},
        )  # fmt: skip
    return unnamed


def _regions(
    codes: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]
) -> Iterator[tuple[int, tuple[float, float] | None, bool]]:
    """Each connected region of a map: its code, where in ``x`` and ``y`` its name fits, and whether only turned."""
    at = [np.linspace(edges[0], edges[-1], 2 * FINE + 1)[1::2] for edges in (y, x)]
    fine = codes[np.ix_(*(np.searchsorted(edges, points) - 1 for edges, points in zip((y, x), at, strict=True)))]
    for code in np.unique(fine).astype(int):
        long, high = (len(names[code]) + 2) * LETTER, LINE  # of a map's width and height, as `TALL` has them
        regions, count = label(fine == code)
        for number in range(1, count + 1):
            for turned in (False, True):
                wide, tall = (high, long / TALL) if turned else (long, high / TALL)
                room = np.ones((max(1, round(tall * FINE)), max(1, round(wide * FINE))), dtype=bool)
                rows, columns = np.nonzero(binary_erosion(regions == number, room))
                if len(rows):
                    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
                    yield code, (float(at[1][columns[middle]]), float(at[0][rows[middle]])), turned
                    break
            else:
                yield code, None, False


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of the cells around ``centres``: halfway between neighbours, the outer ones as far on the other side."""
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


def two_four_measured(
    table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str], kernels: Sequence[str]
) -> Figure:
    """Speed-up of 2:4 over dense of its own precision by tokens: markers as measured, lines as predicted.

    ``table``: ``gpu, kernel, n, measured, predicted``, medians over matrices.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(PAGE, 2.1), sharex=True, sharey=True, squeeze=False)
    for axes, gpu in zip(panels[0], gpus, strict=True):
        for kernel in kernels:
            rows = table[(table["gpu"] == gpu) & (table["kernel"] == kernel)].sort_values("n")
            if rows.empty:
                continue
            colour = KERNEL_COLOURS[kernel]
            axes.plot(rows["n"], rows["predicted"], color=colour, label=titles[kernel])
            axes.plot(rows["n"], rows["measured"], KERNEL_MARKERS[kernel], color=colour, mec=BLACK, ms=4.5)
        axes.axhline(1, color=BLACK, lw=0.8)
        axes.set(title=labels[gpu], xlabel="tokens N", xscale="log")
        ticks(axes.xaxis, (64, 256, 1024, 4096, 16384))
        label_ends(axes)
    panels[0, 0].set_ylabel("speed-up over dense")
    handles = [
        Line2D([], [], color=GREY, label="model"),
        Line2D([], [], color=GREY, marker="o", ls="", label="measured"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
