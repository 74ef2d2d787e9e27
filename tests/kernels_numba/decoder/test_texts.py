"""Texts: two halves without a paragraph in common, cut into sequences of one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from kernels_numba.decoder.texts import TOPICS, Text, read_text, sequences, topics


@pytest.fixture
def tokenizer() -> Tokenizer:
    """A token a word: the number it says."""
    found = Tokenizer(models.WordLevel({str(number): number for number in range(40)}, unk_token="0"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return found


def test_the_halves_of_pythons_topics_share_nothing() -> None:
    calibration, evaluation = topics()
    parts = [
        {" ".join(paragraph.split()) for paragraph in text.words.split("\n\n")} for text in (calibration, evaluation)
    ]
    assert not parts[0] & parts[1]
    assert all(len(part) > 500 for part in parts)
    assert len(calibration.words) == pytest.approx(len(evaluation.words), rel=0.05)
    assert "calibration half" in calibration.origin
    assert "evaluation half" in evaluation.origin


def test_a_file_or_the_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_text(None, calibrating=False) is topics()[1]
    assert read_text(TOPICS, calibrating=True) is topics()[0]
    (tmp_path / TOPICS).write_text("mine: ä", encoding="utf-8")
    assert read_text(TOPICS, calibrating=True) == Text("mine: ä", TOPICS)
    (tmp_path / "x").write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="x: no UTF-8 text: byte 3 is 0xff"):
        read_text(tmp_path / "x", calibrating=True)


def test_sequences_are_neighbours_or_evenly_spread(tokenizer: Tokenizer) -> None:
    text = Text(" ".join(map(str, range(1, 36))), "numbers")
    found = sequences(text, tokenizer, 5)
    np.testing.assert_array_equal(found, np.arange(1, 36).reshape(7, 5))
    assert sequences(text, tokenizer, 6).shape == (5, 6)
    assert sequences(text, tokenizer, 5, 3)[:, 0].tolist() == [1, 11, 21]
    assert sequences(text, tokenizer, 5, 99).shape == (7, 5)
    for length, most, message in (
        (36, None, "numbers: 35 tokens; allowed: at least the 36 of one sequence"),
        (1, None, "tokens of a sequence: 1; allowed: at least 2"),
        (5, 0, "sequences: 0; allowed: at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            sequences(text, tokenizer, length, most)
