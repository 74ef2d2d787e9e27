"""What was measured on this machine, kept on disk: which format and split of K was fastest for a kind of product.

One JSON file for each schema and package version, so that versions never read each other's results; in it one table for
each device (name, driver, architecture, or processor and threads). Any number of processes may write at once: a writer
takes a lock, reads the file again, adds its entry and replaces the file in one step, so a reader always sees a whole
file. A cache may vanish at any time: what cannot be read or written is a warning, never an error.

The directory is ``$LSCD_CACHE``, else ``lscd`` in ``$XDG_CACHE_HOME``, else ``~/.cache/lscd``.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kernels_numba.formats.encoded import check
from kernels_numba.gpu.cubins import cache_directory

SCHEMA = 1
MAX_SPLIT_K = 65_535
Tables = dict[str, dict[str, dict[str, Any]]]


class TuningCacheWarning(UserWarning):
    """The cache could not be used; results are right all the same."""


@dataclass(frozen=True)
class Entry:
    """Fastest of what was measured for one key: format, blocks that share K (None: not split), median time."""

    format: str
    split_k: int | None
    time_us: float


def package_version() -> str:
    """Version of the installed package; "source" in a plain checkout."""
    try:
        return version("lscd-lab")
    except PackageNotFoundError:
        return "source"


class TuningCache:
    """Entries of one device.

    Parameters
    ----------
    device : str
        Identity of what was measured on; anything that may change a ranking belongs in it.
    directory : Path, optional
        By default `cache_directory`.
    """

    def __init__(self, device: str, directory: Path | None = None) -> None:
        self.device = device
        home = cache_directory() if directory is None else directory
        self.path = home / f"tuning-{SCHEMA}-{package_version()}.json"

    def get(self, key: str) -> Entry | None:
        """Entry of ``key``, None if there is none or it cannot be read."""
        fields = self._read().get(self.device, {}).get(key)
        return None if fields is None else Entry(**fields)

    def put(self, key: str, entry: Entry) -> bool:
        """Keep an entry, beside all that other processes have written; False, with a warning, if that is impossible.

        Raises
        ------
        ValueError
            If the entry could not be read back: its time is not positive and finite, or its split out of range.
        """
        check(_is_entry(asdict(entry)), "entry", entry, f"a positive time, and split_k from 1 to {MAX_SPLIT_K} or None")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix(".lock")):
                tables = self._read()
                tables.setdefault(self.device, {})[key] = asdict(entry)
                _replace(self.path, json.dumps({"schema": SCHEMA, "devices": tables}, indent=1, sort_keys=True))
        except OSError as error:
            _warn(f"tuning result not kept: {error}")
            return False
        return True

    def _read(self) -> Tables:
        """All tables of the file; empty if there is no file, or with a warning if it is not what was written."""
        try:
            return _checked(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _warn(f"tuning cache {self.path} ignored: {reason}; it will be measured and written anew")
            return {}


def _warn(message: str) -> None:
    warnings.warn(message, TuningCacheWarning, stacklevel=4)


def _checked(content: Any) -> Tables:
    """Tables of a parsed file, or ValueError that says what is wrong."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"no schema {SCHEMA}")
    tables = content.get("devices")
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError("devices are no tables")
    for device, table in tables.items():
        for key, fields in table.items():
            if not _is_entry(fields):
                raise ValueError(f"device {device!r} has a broken entry {key!r}")
    return tables


def _is_entry(fields: Any) -> bool:
    """Whether a parsed value has exactly the fields of an `Entry`, each of its type and range."""
    if not isinstance(fields, dict) or fields.keys() != Entry.__dataclass_fields__.keys():
        return False
    split_k, time_us = fields["split_k"], fields["time_us"]
    split_fits = split_k is None or (type(split_k) is int and 1 <= split_k <= MAX_SPLIT_K)
    time_fits = type(time_us) in (int, float) and math.isfinite(time_us) and time_us > 0
    return isinstance(fields["format"], str) and split_fits and time_fits


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, which stays behind; other processes wait.

    Where the system has no ``fcntl`` (Windows), writers are not kept apart: the file stays whole, and of two entries
    written at the same instant one may be lost.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also if the process dies
        yield


def _replace(path: Path, text: str) -> None:
    """Write ``path`` in one step: whoever reads sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
