"""Which resource bounds a kernel, as a chart of cells: kernels by sparsity, a panel a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from perfmodel.plotting.style import COLUMN_WIDTH, GREEN, LILAC, ORANGE, SKY, YELLOW

# In pale shades, so that black figures read on them.
COLOURS = {
    "memory": SKY, "shared memory": YELLOW, "instructions": ORANGE, "population counts": LILAC, "Tensor Cores": GREEN,
}  # fmt: skip


def roofs(table: pd.DataFrame, kernels: Mapping[str, str], gpus: Mapping[str, str]) -> Figure:
    """Microseconds simulated and, below, the share of them that the bound is; colours name the bound.

    ``table``: ``gpu, kernel, sparsity, roof, simulated_us, reached``, without what cannot run; ``kernels`` and ``gpus``
    give order and titles.
    """
    sparsities = sorted(table["sparsity"].unique())
    figure, panels = plt.subplots(2, 2, figsize=(COLUMN_WIDTH, 7.4), sharex=True, sharey=True)
    for axes, (gpu, title) in zip(panels.ravel(), gpus.items(), strict=True):
        rows = table[table["gpu"] == gpu].set_index(["kernel", "sparsity"])
        for y, kernel in enumerate(kernels):
            for x, sparsity in enumerate(sparsities):
                if (kernel, sparsity) not in rows.index:
                    axes.text(x + 0.5, y + 0.5, "-", ha="center", va="center", fontsize=7.5)
                    continue
                row = rows.loc[(kernel, sparsity)]
                axes.add_patch(Rectangle((x, y), 1, 1, facecolor=COLOURS[row["roof"]], edgecolor="w", lw=1.5))
                axes.text(x + 0.5, y + 0.36, f"{row['simulated_us']:.0f}", ha="center", va="center", fontsize=7.5)
                axes.text(x + 0.5, y + 0.74, f"{row['reached']:.0%}", ha="center", va="center", fontsize=6)
        axes.set(xlim=(0, len(sparsities)), ylim=(len(kernels), 0))
        axes.set_xticks([x + 0.5 for x in range(len(sparsities))], [f"{100 * s:.0f}" for s in sparsities])
        axes.set_yticks([y + 0.5 for y in range(len(kernels))], list(kernels.values()))
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_title(title, fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    used = [name for name in COLOURS if name in set(table["roof"])]
    handles = [Patch(facecolor=COLOURS[name], label=f"bound by {name}") for name in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(used), fontsize=7)
    figure.suptitle("microseconds, simulated; below, the share that the bound alone would take", fontsize=8)
    return figure
