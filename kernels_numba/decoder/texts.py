"""Texts to calibrate and to evaluate language models on, and their tokens in sequences of one length.

Without a text of one's own there are the help topics of Python itself, in two halves that share no paragraph: one to
calibrate on, one to evaluate on.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.tokenizer import tokens_of
from kernels_numba.files import LARGEST_TEXT_BYTES, readable
from kernels_numba.formats.encoded import check

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOPICS = "topics"  # name of Python's help topics where a file is expected


@dataclass(frozen=True)
class Text:
    """A text and what it is, in words."""

    words: str
    origin: str


@cache
def topics() -> tuple[Text, Text]:
    """Calibration and evaluation half of ``pydoc_data.topics``.

    Topics repeat each other's parts. The longest come first, each without the paragraphs that a longer one has, so
    that most others vanish; what is left of each goes to the half that is shorter so far.
    """
    from pydoc_data.topics import topics as by_name

    halves: tuple[list[str], list[str]] = ([], [])
    seen: set[str] = set()
    for text in sorted(by_name.values(), key=lambda text: (-len(text), text)):
        fresh = []
        for paragraph in text.split("\n\n"):
            content = " ".join(paragraph.split())
            if content and content not in seen:
                seen.add(content)
                fresh.append(paragraph)
        min(halves, key=lambda half: sum(map(len, half))).append("\n\n".join(fresh))
    of = f"of the help topics of Python {platform.python_version()} (pydoc_data.topics)"
    texts = ["\n\n".join(part for part in half if part) for half in halves]
    return Text(texts[0], f"calibration half {of}"), Text(texts[1], f"evaluation half {of}")


def read_text(path: str | Path | None, *, calibrating: bool) -> Text:
    """Text of a UTF-8 file; of Python's help topics if there is no file, or ``topics`` is no file.

    Parameters
    ----------
    calibrating : which half of the topics; a file is read whole.

    Raises
    ------
    ValueError
        If the file is no plain file, too large, or no UTF-8 text; names it. A missing file raises OSError.
    """
    if path is None or (str(path) == TOPICS and not Path(path).exists()):
        return topics()[0 if calibrating else 1]
    try:
        return Text(readable(path, LARGEST_TEXT_BYTES).read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 text: byte {error.start} is {error.object[error.start]:#x}") from None


def sequences(text: Text, tokenizer: Tokenizer, length: int, most: int | None = None) -> NDArray[np.int64]:
    """Tokens (sequences, length) of a text: neighbouring pieces of it, the rest at its end left out.

    Parameters
    ----------
    most : sequences; of a longer text so many are taken, evenly spread.

    Raises
    ------
    ValueError
        If the text is shorter than one sequence; names it.
    """
    check(length >= 2, "tokens of a sequence", length, "at least 2")
    check(most is None or most >= 1, "sequences", most, "at least 1")
    tokens = np.array(tokens_of(tokenizer, text.words), np.int64)
    check(len(tokens) >= length, text.origin, f"{len(tokens)} tokens", f"at least the {length} of one sequence")
    pieces = tokens[: len(tokens) // length * length].reshape(-1, length)
    if most is None or most >= len(pieces):
        return pieces
    return pieces[np.arange(most) * len(pieces) // most]
