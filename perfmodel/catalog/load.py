"""GPUs, CPUs, evidence and stored fits: files of ``data/`` as frozen records (`perfmodel.catalog.specs`) or tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.catalog.arguments import path_text, text, texts
from perfmodel.catalog.checks import checked_kernel_times
from perfmodel.catalog.cpu import THREADS_MARK, Cpu, Device
from perfmodel.catalog.files import (
    columns_of,
    convert,
    data_directory,
    find,
    given_text,
    has,
    load_record,
    named,
    once_a_version,
    own_key,
    parse,
    parse_toml,
    read_table,
    shown,
    stems,
)
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import FittedKernel, Gpu, Source

if TYPE_CHECKING:
    import pandas as pd

TRACE_SCHEMA = 2
CALIBRATION_FILE = "calibration/kernels.json"
_TABLE_SUFFIXES = (".csv", ".parquet")
Fits = dict[str, FittedKernel]


def gpu_names() -> tuple[str, ...]:
    """Keys of the GPUs in the catalogue, sorted."""
    return tuple(name for name in stems("hardware") if not _is_cpu(_hardware(name)))


def has_gpu(name: str) -> bool:
    """Whether ``name`` is one of `gpu_names`."""
    return has("hardware", name) and not _is_cpu(_hardware(name))


def cpu_names() -> tuple[str, ...]:
    """Keys of the CPUs in the catalogue, sorted, without threads."""
    return tuple(name for name in stems("hardware") if _is_cpu(_hardware(name)))


def _hardware(name: str) -> Path:
    return data_directory() / "hardware" / f"{name}.toml"


@once_a_version
def _is_cpu(path: Path) -> bool:
    return parse(path).get("architecture") == "cpu"


def load_device(name_or_path: str | Path | Device) -> Device:
    """GPU or CPU of the catalogue, or of a user's own TOML file; a CPU of as many threads as stand after ``@``.

    A record comes back as it is.

    Parameters
    ----------
    name_or_path
        As `load_gpu`; ``xeon-emerald-rapids-2c@1`` or ``this.toml@1`` is one thread of a CPU, all measured ones are the
        default.

    Raises
    ------
    ValueError
        As `load_gpu`; or if the CPU was not measured with so many threads, or a GPU is asked for threads.
    """
    if isinstance(name_or_path, Gpu | Cpu):
        return name_or_path
    name, threads = _without_threads(path_text("GPU", name_or_path))
    path = find(name, "GPU", "hardware")
    if path.is_file() and _is_cpu(path):
        return load_record(path, Cpu).on(threads)
    gpu = load_gpu(name)
    if threads is not None:
        raise ValueError(f"{str(name_or_path)!r}: {THREADS_MARK} counts threads of a CPU, and {name} is none")
    return gpu


def _without_threads(name: str) -> tuple[str, int | None]:
    """Name and threads of ``name@2``; None where there is no count."""
    stem, _, count = name.rpartition(THREADS_MARK)
    return (stem, int(count)) if stem and count.isdecimal() else (name, None)


def load_gpu(name_or_path: str | Path | Gpu) -> Gpu:
    """GPU of the catalogue, or of a user's own TOML file with the same keys; a record comes back as it is.

    Parameters
    ----------
    name_or_path
        A key such as ``"a100-80gb"`` (upper case and underscores are forgiven), or a path ending in ``.toml``.

    Raises
    ------
    ValueError
        If the name is unknown (the message lists all and suggests the nearest), or the file lacks a key, has an
        unknown one or a value out of range (the message names file and key), or it is a CPU, or a file of the user's
        goes by the name of a card of the catalogue and says otherwise.

    Examples
    --------
    >>> load_gpu("a100-80gb").clock.sm_count
    108
    """
    if isinstance(name_or_path, Gpu):
        return name_or_path
    path = find(_without_threads(path_text("GPU", name_or_path))[0], "GPU", "hardware", gpu_names)
    if path.is_file() and _is_cpu(path):
        raise _no_gpu(name_or_path)
    gpu = load_record(path, Gpu)
    return gpu if path == _hardware(gpu.key) else _not_taken(gpu, path)


def gpu_from_text(text: str | bytes, name: str) -> Gpu:
    """GPU that the text of a TOML file describes, of an upload for example; no file is touched.

    Parameters
    ----------
    text
        At most `LARGEST_BYTES` of UTF-8.
    name
        What messages call it, such as ``my-gpu.toml``; without its suffix it is the card's key.

    Raises
    ------
    ValueError
        As `load_gpu`.
    """
    path = Path(path_text("name", name))
    fields = parse_toml(given_text(text, path), path)
    if fields.get("architecture") == "cpu":
        raise _no_gpu(name)
    return _not_taken(convert(own_key(fields, path), Gpu, path), path)


def _no_gpu(name: str | Path) -> ValueError:
    return ValueError(f"{name} is a CPU, and this is asked of GPUs only: see `lscd gpus`")


def _not_taken(gpu: Gpu, path: Path) -> Gpu:
    """``gpu``, refused if measurements of a card of the catalogue would count as its own, though it is another."""
    known = _hardware(gpu.key)
    if known.is_file() and not _is_cpu(known) and gpu != load_record(known, Gpu):
        raise ValueError(f"{shown(path)}: it differs from the catalogue's {gpu.key}: give the file another name")
    return gpu


def load_kernel_times(include: str | Iterable[str] | None = None) -> pd.DataFrame:
    """Every published and measured kernel time, one row each, in one table.

    Parameters
    ----------
    include
        Patterns of table paths relative to the data directory, e.g. ``"measured/*"``; all tables by default.

    Returns
    -------
    pandas.DataFrame
        Columns ``KERNEL_TIME_COLUMNS``: times in microseconds, ``sparsity`` a fraction, ``source`` a key of
        :func:`load_sources`. Tables of other kinds in the same folders are left out.

    Raises
    ------
    ValueError
        If a pattern matches no table of kernel times (named), or a table breaks the schema.
    """
    import pandas as pd

    tables = _kernel_time_tables()
    patterns = [include] if isinstance(include, str) else list(texts("include", ["*"] if include is None else include))
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in tables):
            raise ValueError(f"no table of kernel times matches {pattern!r}; there are {', '.join(tables) or 'none'}")
    chosen = [path for name, path in tables.items() if any(fnmatch(name, pattern) for pattern in patterns)]
    return pd.concat([_stored_kernel_times(path) for path in chosen], ignore_index=True)


def read_kernel_times(path: str | Path) -> pd.DataFrame:
    """One table of kernel times, from the catalogue or the user's own, checked against the schema.

    Raises
    ------
    ValueError
        If it is no table, or breaks the schema (`checks`); the message names file, row, column and value.
    """
    path = Path(path_text("path", path))
    table = read_table(path)
    with named(path):
        return checked_kernel_times(table)


_stored_kernel_times = once_a_version(read_kernel_times)


def load_sources() -> dict[str, Source]:
    """Provenance of the evidence: one record per table of ``data/sources.toml``, by its key."""
    return dict(_sources(data_directory() / "sources.toml"))


@once_a_version
def _sources(path: Path) -> dict[str, Source]:
    return {key: convert(fields, Source, path, within=key) for key, fields in parse(path).items()}


def load_calibration(file: str = CALIBRATION_FILE, check: Callable[[Fits], None] | None = None) -> Fits:
    """Fitted parameters of every kernel model (or of the systems), by name, as `lscd calibrate` wrote them.

    The file named by the environment variable LSCD_CALIBRATION, a user's own fit, replaces the kernel models' one.

    Parameters
    ----------
    file
        Path below the data directory.
    check
        What the models that use the fits ask of them beyond the schema: raises `ValueError` for fits they cannot use.

    Raises
    ------
    ValueError
        If there is no such file, it breaks the schema, or ``check`` refuses it; the message names file and key.
    """
    own = os.environ.get("LSCD_CALIBRATION") if file == CALIBRATION_FILE else None
    path = Path(own) if own else _below(data_directory(), path_text("file", file))
    try:
        return _calibration(path, check)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{shown(path)}: no such file; make it with `lscd calibrate`") from None


@cache  # models ask for their fits at every product
def _below(directory: Path, file: str) -> Path:
    return directory / file


@once_a_version
def _calibration(path: Path, check: Callable[[Fits], None] | None) -> Fits:
    found = {name: convert(fields, FittedKernel, path, within=name) for name, fields in parse(path).items()}
    if check is not None:
        with named(path):
            check(found)
    return found


def load_trace(variant: str) -> dict[str, Any]:
    """Counts of one compiled kernel variant, as `lscd kernels trace` wrote them to ``data/traces``.

    Raises
    ------
    ValueError
        If there is no such trace (the nearest is named), or it has another schema.
    """
    names = trace_names()
    text("variant", variant)
    if variant not in names:
        raise ValueError(unknown_name("trace", variant, names))
    return _trace(data_directory() / "traces" / f"{variant}.json")


def trace_names() -> tuple[str, ...]:
    """Kernel variants with a trace, sorted."""
    return tuple(sorted(path.stem for path in (data_directory() / "traces").glob("*.json")))


@once_a_version
def _trace(path: Path) -> dict[str, Any]:
    trace = parse(path)
    if trace.get("schema") != TRACE_SCHEMA:
        raise ValueError(f"{shown(path)}: schema is {trace.get('schema')}, allowed is {TRACE_SCHEMA}")
    return trace


def load_table(relative_path: str) -> pd.DataFrame:
    """Evidence table ``data/<relative_path>`` (CSV or Parquet) as it is.

    Raises
    ------
    ValueError
        If there is no such table; the message suggests the nearest.
    """
    relative_path = path_text("table", relative_path)
    path = data_directory() / relative_path
    if not path.is_file():
        raise ValueError(unknown_name("table", relative_path, list(_tables())))
    return read_table(path)


def _tables() -> dict[str, Path]:
    root = data_directory()
    found = sorted(path for folder in ("published", "measured") for path in (root / folder).rglob("*"))
    return {path.relative_to(root).as_posix(): path for path in found if path.suffix in _TABLE_SUFFIXES}


def _kernel_time_tables() -> dict[str, Path]:
    # Two columns tell the kind; read_kernel_times then insists on the whole schema, so no broken table is passed over.
    return {name: path for name, path in _tables().items() if {"kernel", "time_us"} <= set(columns_of(path))}
