"""The command line of the Flash-LLM lab."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Read ``__version__`` from the installed package on first use, so that the command line starts fast."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lscd.version import installed

    return installed()
