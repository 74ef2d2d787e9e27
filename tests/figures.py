"""What every figure has to keep to be printed: checked for all of the report, and of use to a test of any one."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.text import Text

from perfmodel.plotting.style import COLUMN, PAGE

BODY, SMALLEST, LARGEST = 7.0, 6.0, 8.0  # pt
SLACK = 0.02  # inches by which a line's own width may reach over the edge


def faults(figure: Figure) -> list[str]:
    """What a paper would send back: another width, letters too small or too large, something cut off at an edge."""
    return [*_width(figure), *_letters(figure), *_cut(figure)]


def _width(figure: Figure) -> list[str]:
    width = figure.get_size_inches()[0]
    return [] if width in (COLUMN, PAGE) else [f"{width:g} in wide"]


def _letters(figure: Figure) -> list[str]:
    seen = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    sizes = {text.get_fontsize(): text.get_text() for text in seen}
    wrong = [f"{words!r} of {size:g} pt" for size, words in sizes.items() if not SMALLEST <= size <= LARGEST]
    return wrong if BODY in sizes else [*wrong, f"no text of {BODY:g} pt"]


def _cut(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    beyond = {"left": -drawn.x0, "right": drawn.x1 - width, "bottom": -drawn.y0, "top": drawn.y1 - height}
    return [f"{inches:.2f} in cut off at the {side}" for side, inches in beyond.items() if inches > SLACK]
