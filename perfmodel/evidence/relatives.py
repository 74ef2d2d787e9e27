"""Which model may stand for another, by their names: one of its family, at most `NEAREST` times larger or smaller."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

NEAREST = 2.0
APART = 1e-3  # by which a relative of the same size stands behind the model itself
SAME = 0.005  # of the logarithm of sizes, by which a name rounds them
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
_TUNED = re.compile(r"^meta-|-(instruct|chat|base|hf|it|v0\.\d)(-\d{4})?(?=-|$)")
_RELATIVES = {r"^llama-3\.\d": "llama-3"}  # one pretraining, several releases


def plain_name(model: str) -> str:
    """A model's name without what says how it was tuned, or by whom it was uploaded.

    Examples
    --------
    >>> plain_name("Llama-3.1-8B-Instruct")
    'llama-3.1-8b'
    """
    return _TUNED.sub("", model.lower())


def family_and_size(model: str) -> tuple[str, float | None]:
    """Family of a model's name, and its billions of parameters if the name tells.

    Examples
    --------
    >>> family_and_size("llama-3.1-70b"), family_and_size("opt-350m"), family_and_size("qwen3-30b-a3b")
    (('llama-3', 70.0), ('opt', 0.35), ('qwen3-a3b', 30.0))
    """
    name = plain_name(model)
    found = _SIZE.search(name)
    family = re.sub("-{2,}", "-", _SIZE.sub("", name, count=1)).strip("-")
    for pattern, common in _RELATIVES.items():
        family = re.sub(pattern, common, family)
    if found is None or float(found[2]) == 0:
        return family, None
    copies, number, letter = found.groups()
    return family, float(copies[:-1] if copies else 1) * float(number) / (1 if letter == "b" else 1000)


@lru_cache
def near_models(models: tuple[str, ...], model: str) -> dict[str, float]:
    """How far each of ``models`` may stand for ``model``: 0 for itself, else by size, within its family."""
    itself = model.lower() if model.lower() in models else plain_name(model)
    family, size = family_and_size(model)
    near = {itself: 0.0}
    for other in models:
        its_family, its_size = family_and_size(other)
        if other != itself and its_family == family and size and its_size:
            distance = abs(float(np.log(its_size / size)))
            near |= {other: distance + APART} if distance <= np.log(NEAREST) + SAME else {}
    return near


def smaller(name: str, model: str) -> bool:
    """Whether ``name`` is of the family of ``model`` and smaller."""
    (family, size), (own_family, own_size) = family_and_size(name), family_and_size(model)
    return family == own_family and size is not None and own_size is not None and size < own_size
