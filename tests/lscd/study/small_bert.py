"""Sizes of the small BERT that the study's tests run on."""

from __future__ import annotations

from lscd.study.minilm import HEADS

PIECES = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "naive", "un", "##believ", "##able", ",", "中", "cat", "s", "##s", "don",
    "'", "t",
)  # fmt: skip


SIZE, HIDDEN, LAYERS = 2 * HEADS, 32, 2


TEXTS = ["naive cats", "unbelievable, cats", "cats don't", "naive, naive cats"]
