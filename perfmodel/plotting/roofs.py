"""Which resource bounds a kernel, as a chart of cells: kernels by sparsity, a panel a GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from perfmodel.plotting.style import PAGE

# Pale, so that black figures read on them, and none a kernel's.
RESOURCE_COLOURS = {
    "memory": "#7FB0DC",
    "L2": "#C9DEF2",
    "shared memory": "#F2C879",
    "instructions": "#EDE3D0",
    "population counts": "#C5B3D9",
    "Tensor Cores": "#6FA06E",
}


def roofs(
    table: pd.DataFrame, kernels: Mapping[str, str], gpus: Mapping[str, str], never_run: Collection[str] = ()
) -> Figure:
    """Microseconds simulated and, below, the share of them that the bound is; colours name the bound.

    ``table``: ``gpu, kernel, sparsity, roof, simulated_us, reached``, without what cannot run; ``kernels`` and ``gpus``
    give order and titles; the names of kernels ``never_run`` on a GPU are slanted.
    """
    size = PAGE, 0.9 + 0.27 * len(kernels)
    figure, panels = plt.subplots(1, len(gpus), figsize=size, sharey=True, squeeze=False)
    for axes, (gpu, title) in zip(panels[0], gpus.items(), strict=True):
        _cells(axes, table[table["gpu"] == gpu], list(kernels), sorted(table["sparsity"].unique()))
        axes.set(title=title, xlabel="sparsity [%]")
    panels[0, 0].set_yticks([y + 0.5 for y in range(len(kernels))], list(kernels.values()))
    for label, kernel in zip(panels[0, 0].get_yticklabels(), kernels, strict=True):
        label.set_fontstyle("italic" if kernel in never_run else "normal")
    used = [name for name in RESOURCE_COLOURS if name in set(table["roof"])]
    handles = [Patch(color=RESOURCE_COLOURS[name], label=f"bound by {name}") for name in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(used))
    return figure


def _cells(axes: Axes, rows: pd.DataFrame, kernels: list[str], sparsities: list[float]) -> None:
    cells = rows.set_index(["kernel", "sparsity"])
    for y, kernel in enumerate(kernels):
        for x, sparsity in enumerate(sparsities):
            if (kernel, sparsity) not in cells.index:
                axes.text(x + 0.5, y + 0.5, "-", ha="center", va="center")
                continue
            cell = cells.loc[(kernel, sparsity)]
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=RESOURCE_COLOURS[cell["roof"]], edgecolor="w", lw=1))
            axes.text(x + 0.5, y + 0.32, f"{cell['simulated_us']:.0f}", ha="center", va="center")
            axes.text(x + 0.5, y + 0.74, f"{cell['reached']:.0%}", ha="center", va="center", fontsize=6)
    axes.set(xlim=(0, len(sparsities)), ylim=(len(kernels), 0))
    axes.set_xticks([x + 0.5 for x in range(len(sparsities))], [f"{100 * s:.0f}" for s in sparsities])
    axes.tick_params(length=0)
    axes.grid(visible=False)
