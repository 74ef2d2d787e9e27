"""LaTeX for the vector figures: each in a float of its width, with its caption, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterable

from lscd.report.exhibit import Exhibit
from perfmodel.plotting.style import COLUMN

SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
NAMED = {"×": r"$\times$", "–": "--", "—": "---", "µ": r"$\mu$", "≥": r"$\geq$", "≤": r"$\leq$", "·": r"$\cdot$"}
FLOAT = r"""% {label}: {name}.pdf, {inches:g} in wide
\begin{{{float}}}
  \centering
  \includegraphics[width={inches:g}in]{{{name}.pdf}}
  \caption{{\textbf{{{title}}} {finding} {evidence}}}
  \label{{fig:{name}}}
\end{{{float}}}
"""


def captions(exhibits: Iterable[Exhibit], provenance: str) -> str:
    """A file for a paper to ``input``: every figure of ``exhibits``, one after the other."""
    floats = [_float(exhibit) for exhibit in exhibits if exhibit.figure is not None]
    return "\n".join([f"% lscd report --style paper, {provenance}; needs graphicx\n", *floats])


def _float(exhibit: Exhibit) -> str:
    words = {name: latex(getattr(exhibit, name).rstrip()) for name in ("title", "finding", "evidence")}
    words["title"] += "" if exhibit.title.endswith("?") else "."
    wide = exhibit.inches > COLUMN
    return FLOAT.format(
        label=exhibit.label,
        name=exhibit.name,
        inches=exhibit.inches,
        float="figure*" if wide else "figure",
        **words,
    )


def latex(text: str) -> str:
    """``text`` with every character that LaTeX would read as something else written out."""
    return "".join({**SPECIAL, **NAMED}.get(character, character) for character in text)
