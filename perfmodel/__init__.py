"""Performance models of skinny, sparse matrix products and of LLM inference built on them.

`predict` is the front door for one product; `load_gpu` and `load_model` read the catalogue.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from perfmodel.moved import keep_old_names

if TYPE_CHECKING:
    from perfmodel.catalog import load_gpu, load_model
    from perfmodel.prediction import Prediction, predict

    __version__: str

__all__ = ["Prediction", "__version__", "load_gpu", "load_model", "predict"]
keep_old_names()
_HOME = {
    "load_gpu": "perfmodel.catalog",
    "load_model": "perfmodel.catalog",
    "predict": "perfmodel.prediction",
    "Prediction": "perfmodel.prediction",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts fast."""
    if name == "__version__":
        return import_module("importlib.metadata").version("lscd-lab")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
