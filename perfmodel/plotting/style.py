"""One look for all figures: model = line, measurement = marker, one colour per kernel or system everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

COLUMN, PAGE = 3.33, 7.0  # inches: the two widths of every figure, those of a paper's column and of its page

# Okabe and Ito's colour-blind safe palette, its yellow stronger: theirs is lost on white.
BLACK, ORANGE, SKY, GREEN = "#222222", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#F0D000", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
# Further ones that stay apart from those above, and from each other, for colour-blind readers too.
INDIGO, WINE, ROYAL, RUST, SAND = "#332288", "#882255", "#4444FF", "#8C3A00", "#CCCC77"
SALMON, SCARLET, FUCHSIA = "#FFB8A8", "#D4003C", "#FF4FD8"
# Shades for kernels of few bits (blues to greens) and of patterns (violets and browns), light and dark in turn.
NAVY, CYAN, TEAL, LIME, MINT, OLIVE = "#0B3C5D", "#7FE0F0", "#117777", "#A6D608", "#A8E6C0", "#666600"
STEEL, BERRY, RED, ORCHID = "#2D4B96", "#69004B", "#FF001E", "#E12DD2"  # near those of the kernels they stand beside
LEAF, MAUVE = "#0BB00A", "#9A5C86"
PLUM, LILAC, BROWN, PEACH = "#6A0DAD", "#C9B3FF", "#5C4033", "#FFCF7F"

# For what is no kernel: parts of a run, kinds of memory, engines, GPUs. The first six stay apart for every eye.
IRIS, TAN, FOREST, MIST, GRAPE, ROSE = "#8870E0", "#C88850", "#307830", "#88B8C8", "#604870", "#D05090"
LAGOON, GRASS, PINK = "#4098A0", "#58D058", "#E088E0"
OTHERS = (IRIS, TAN, FOREST, MIST, GRAPE, ROSE, LAGOON, GRASS, PINK)

KERNEL_COLOURS = {
    "cublas": BLACK,
    "flash-llm": VERMILION,
    "flash-llm-noreorder": SALMON,
    "sparta": BLUE,
    "sputnik": GREEN,
    "cusparse": PURPLE,
    "bitmap": ORANGE,
    "macko": SKY,
    "quant-llm-w6": YELLOW,
    "quant-llm-w5": SAND,
    "int8": GREY,
    "int4": OLIVE,
    "int8-w8a8": CYAN,
    "fp8": NAVY,
    "fp8-block": TEAL,
    "nvfp4": LIME,
    "mxfp4": MINT,
    "two-four": PLUM,
    "six-eight": LILAC,
    "two-four-int8": PEACH,
    "two-four-fp8": BROWN,
    "lscd-bitmap": INDIGO,
    "lscd-bitmap-pairs": WINE,
    "lscd-condensed": SCARLET,
    "lscd-condensed-pairs": FUCHSIA,
    "lscd-bitmap-bulk": STEEL,
    "lscd-bitmap-pairs-bulk": BERRY,
    "lscd-condensed-bulk": RED,
    "lscd-condensed-pairs-bulk": ORCHID,
    "lscd-bitmap-8": ROYAL,
    "lscd-bitmap-4": RUST,
    "lscd-condensed-pairs-8": LEAF,
    "lscd-condensed-pairs-4": MAUVE,
    # Those of CPUs, which stand in no figure with the others.
    "torch-bf16": BLACK,
    "torch-fp32": GREY,
    "numpy-fp32": SAND,
    "cpu-bitmap": VERMILION,
    "cpu-bitmap-bf16": FUCHSIA,
    "cpu-panel-csr": GREEN,
    "cpu-dense16": SKY,
    "scipy-csr": PURPLE,
}
FORMAT_COLOURS = {  # a format has the colour of the kernel that reads it
    "dense": BLACK,
    "csr": PURPLE,
    "sputnik-csr": GREEN,
    "coo": INDIGO,
    "tiled-csl": VERMILION,
    "sparta": BLUE,
    "bitmap": ORANGE,
    "macko": SKY,
    "int8": GREY,
    "int4": OLIVE,
    "int8-w8a8": CYAN,
    "fp8-row": NAVY,
    "fp8-block": TEAL,
    "nvfp4": LIME,
    "mxfp4": MINT,
    "2:4": PLUM,
    "6:8": LILAC,
    "2:4-int8": PEACH,
    "2:4-fp8": BROWN,
}
# Kernels of different formats that do the same to the weights never share one; Matplotlib has no 25 filled letters.
KERNEL_MARKERS = {
    "cublas": "s",
    "flash-llm": "o",
    "flash-llm-noreorder": "8",
    "sparta": "^",
    "sputnik": "D",
    "cusparse": "v",
    "bitmap": "P",
    "macko": "X",
    "quant-llm-w6": "p",
    "quant-llm-w5": "h",
    "int8": "*",
    "int4": "X",
    "int8-w8a8": "D",
    "fp8": "o",
    "fp8-block": "8",
    "nvfp4": "^",
    "mxfp4": "v",
    "two-four": ">",
    "six-eight": "d",
    "two-four-int8": "P",
    "two-four-fp8": "<",
    "lscd-bitmap": "<",
    "lscd-bitmap-pairs": "H",
    "lscd-condensed": "p",
    "lscd-condensed-pairs": "h",
    "lscd-bitmap-bulk": "<",
    "lscd-bitmap-pairs-bulk": "H",
    "lscd-condensed-bulk": "p",
    "lscd-condensed-pairs-bulk": "h",
    "lscd-bitmap-8": ">",
    "lscd-bitmap-4": "d",
    "lscd-condensed-pairs-8": "H",
    "lscd-condensed-pairs-4": "p",
    "torch-bf16": "s",
    "torch-fp32": "D",
    "numpy-fp32": "v",
    "cpu-bitmap": "o",
    "cpu-bitmap-bf16": "p",
    "cpu-panel-csr": "^",
    "cpu-dense16": "8",
    "scipy-csr": "h",
}


OWN_COLOUR, OWN_MARKER = "#40F060", "P"  # of every kernel that a user brings (LSCD_KERNELS)


class _WithOwn(dict[str, str]):
    """Values by kernel, and the ``own`` one for each kernel of a user's own."""

    def __init__(self, known: dict[str, str], own: str) -> None:
        super().__init__(known)
        self.own = own

    def __missing__(self, kernel: str) -> str:
        return self.own


KERNEL_COLOURS, KERNEL_MARKERS = _WithOwn(KERNEL_COLOURS, OWN_COLOUR), _WithOwn(KERNEL_MARKERS, OWN_MARKER)


def in_order(kernels: Iterable[str]) -> list[str]:
    """``kernels``, each once, as `KERNEL_COLOURS` lists them, and a user's own last."""
    there = set(kernels)
    return [name for name in KERNEL_COLOURS if name in there] + sorted(there - set(KERNEL_COLOURS))


UNTOLD = {".png": ("Software",), ".svg": ("Date", "Creator"), ".pdf": ("CreationDate", "Creator", "Producer")}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply `style.mplstyle` inside the block, whatever the user's own settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        matplotlib.style.use(Path(__file__).with_name("style.mplstyle"))
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg``, byte for byte the same for the same figure; its layout is final then."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with house_style():
        write_picture(figure, paths[0])
        figure.set_layout_engine("none")  # laying out takes as long as drawing, and gives the same place within a pixel
        write_picture(figure, paths[1])
    return paths


def save_for_paper(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``name.pdf`` to be set in a paper: its text as TrueType, and no heading, which a caption is there."""
    path = folder / f"{name}.pdf"
    with house_style():
        if figure.get_suptitle():
            figure.suptitle("")
            figure.set_layout_engine("constrained")
        write_picture(figure, path)
    return path


def write_picture(figure: Figure, path: Path) -> None:
    """Write a PNG, SVG or PDF without its date and maker, so that the same figure gives the same bytes."""
    figure.savefig(path, metadata=dict.fromkeys(UNTOLD[path.suffix]))
