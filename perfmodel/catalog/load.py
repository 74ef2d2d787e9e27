"""What the suite knows about the outside world: the only reader of ``data/``.

Files become frozen records (`perfmodel.catalog.specs`) or tables; a file that is wrong is refused with its name and the
key at fault. The data directory is ``$LSCD_DATA`` if set, else the copy inside an installed package, else ``data/``
beside the package.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from perfmodel.catalog.checks import NAME_COLUMNS, checked_kernel_times
from perfmodel.catalog.hf_config import shape_from_config
from perfmodel.catalog.hf_quantisation import stored_from_config
from perfmodel.catalog.language_model import LanguageModel, Layers
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.records import Record
from perfmodel.catalog.sparsities import Sparsities, rows_from_json, rows_from_table, sparsities
from perfmodel.catalog.specs import FittedKernel, Gpu, Source

if TYPE_CHECKING:
    import pandas as pd

TRACE_SCHEMA = 1
CALIBRATION_FILE = "calibration/kernels.json"
_TABLE_SUFFIXES = (".csv", ".parquet")
_RecordT = TypeVar("_RecordT", bound=Record)
_ReadT = TypeVar("_ReadT", bound=Callable[..., Any])
Fits = dict[str, FittedKernel]


def _once_a_version(read: _ReadT) -> _ReadT:
    """Read a path again only when the file has changed, so that one edited in a running session counts."""

    @cache
    def at(path: Path, modified_ns: int, *arguments: Any) -> Any:
        return read(path, *arguments)

    @wraps(read)
    def latest(path: Path, *arguments: Any) -> Any:
        return at(path, path.stat().st_mtime_ns, *arguments)

    return cast("_ReadT", latest)


def data_directory() -> Path:
    """Directory all files are read from.

    Raises
    ------
    ValueError
        If there is none; the message names the places tried.
    """
    return _data_directory(os.environ.get("LSCD_DATA"))


@cache  # models ask for it thousands of times a second; a failure is not kept
def _data_directory(override: str | None) -> Path:
    package = Path(__file__).resolve().parents[1]
    places = [Path(override)] if override else [package / "_data", package.parent / "data"]
    for place in places:
        if (place / "hardware").is_dir():
            return place
    raise ValueError(f"no data directory with a folder 'hardware' at {' or '.join(map(str, places))}; set LSCD_DATA")


def gpu_names() -> tuple[str, ...]:
    """Keys of the GPUs in the catalogue, sorted."""
    return _stems("hardware")


def model_names() -> tuple[str, ...]:
    """Keys of the language models in the catalogue, sorted."""
    return _stems("models")


def load_gpu(name_or_path: str | Path) -> Gpu:
    """GPU of the catalogue, or of a user's own TOML file with the same keys.

    Parameters
    ----------
    name_or_path
        A key such as ``"a100-80gb"`` (upper case and underscores are forgiven), or a path ending in ``.toml``.

    Raises
    ------
    ValueError
        If the name is unknown (the message lists all and suggests the nearest), or the file lacks a key, has an
        unknown one or a value out of range (the message names file and key).

    Examples
    --------
    >>> load_gpu("a100-80gb").clock.sm_count
    108
    """
    return _load_record(_find(name_or_path, "GPU", "hardware"), Gpu)


def load_model(name_or_path: str | Path) -> LanguageModel:
    """Language model of the catalogue, of a user's TOML file, or of a Hugging Face ``config.json``.

    Parameters
    ----------
    name_or_path
        A key such as ``"opt-30b"``, a path ending in ``.toml`` or ``.json``, or a checkpoint folder holding a
        ``config.json``.

    Raises
    ------
    ValueError
        As :func:`load_gpu` and :func:`model_from_hf_config`.

    Examples
    --------
    >>> load_model("opt-30b").shape.ffn_size
    28672
    """
    path = _find(name_or_path, "model", "models")
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        return model_from_hf_config(path)
    if not path.is_file():
        raise ValueError(f"{_shown(path)}: no such file")
    return _model(path)


@_once_a_version
def _model(path: Path) -> LanguageModel:
    """A model's TOML file: its ``[shape]`` in our words, or its ``[config]`` in those of Hugging Face."""
    fields = _own_key(path)
    if "config" in fields:
        config = fields.pop("config")
        source = fields.pop("source", "")
        described = _described(config, path, str(source))
        return _convert({"family": config["model_type"]} | fields | described, LanguageModel, path)
    shape = fields.get("shape")
    if isinstance(shape, dict) and "blocks" not in shape:
        fields["shape"] = msgspec.to_builtins(_convert(shape, Layers, path, within="shape").decoder)
    return _convert(fields, LanguageModel, path)


def _described(config: Any, path: Path, source: str) -> dict[str, Any]:
    """Shape and storage that a Hugging Face configuration describes, as fields of a model."""
    with _named(path):
        try:
            shape = shape_from_config(config, source)
            stored = stored_from_config(config, shape)
        except KeyError as error:
            raise ValueError(f"missing key {error}") from error
    return {"shape": msgspec.to_builtins(shape), "stored": msgspec.to_builtins(stored)}


def model_from_hf_config(path: str | Path) -> LanguageModel:
    """Language model that a Hugging Face ``config.json`` describes.

    Parameters
    ----------
    path
        The file; its folder's name becomes the model's key when it is called ``config.json``, else its own stem.

    Raises
    ------
    ValueError
        If the file is missing or no JSON, its ``model_type`` is unsupported, or a key is missing or out of range;
        the message names the file and the key.
    """
    path = Path(path)
    config, beside = _parse(path), path.with_name("hf_quant_config.json")
    if path.name == "config.json" and "quantization_config" not in config and beside.is_file():
        config |= {"quantization_config": _parse(beside)}  # ModelOpt's older exports
    described = _described(config, path, source=str(path))
    key = path.resolve().parent.name if path.name == "config.json" else path.stem
    fields = {"key": key, "name": config.get("_name_or_path") or key, "family": config["model_type"]}
    return _convert(fields | described, LanguageModel, path)


def load_sparsities(path: str | Path) -> Sparsities:
    """Sparsity of each matrix of a pruned checkpoint, layer by layer.

    Parameters
    ----------
    path
        A ``.json`` file with the output of ``lscd weights inspect --json``, or a ``.csv`` file with the columns
        ``layer``, ``matrix`` (our name, such as ``mlp-in``, or that of a tensor), ``sparsity`` and, if the file counts
        them, ``weights``.

    Raises
    ------
    ValueError
        If the file is missing, of another kind, or holds what is no sparsity of a decoder's matrix (`sparsities`); the
        message names file, row and value.
    """
    path = Path(path)
    if path.suffix == ".json":
        parsed = _parse(path)
        with _named(path):
            return sparsities(rows_from_json(parsed), str(path))
    if path.suffix != ".csv":
        raise ValueError(f"{_shown(path)}: suffix is {path.suffix!r}, allowed are .csv and .json")
    import pandas as pd

    with _named(path):
        table = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
        return sparsities(rows_from_table({name: list(table[name]) for name in table}), str(path))


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
    patterns = [include] if isinstance(include, str) else list(include or ["*"])
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
    path = Path(path)
    table = _read_table(path)
    with _named(path):
        return checked_kernel_times(table)


_stored_kernel_times = _once_a_version(read_kernel_times)


def load_sources() -> dict[str, Source]:
    """Provenance of the evidence: one record per table of ``data/sources.toml``, by its key."""
    return dict(_sources(data_directory() / "sources.toml"))


@_once_a_version
def _sources(path: Path) -> dict[str, Source]:
    return {key: _convert(fields, Source, path, within=key) for key, fields in _parse(path).items()}


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
    path = Path(own) if own else data_directory() / file
    if not path.is_file():
        raise ValueError(f"{_shown(path)}: no such file; make it with `lscd calibrate`")
    return _calibration(path, check)


@_once_a_version
def _calibration(path: Path, check: Callable[[Fits], None] | None) -> Fits:
    found = {name: _convert(fields, FittedKernel, path, within=name) for name, fields in _parse(path).items()}
    if check is not None:
        with _named(path):
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
    if variant not in names:
        raise ValueError(unknown_name("trace", variant, names))
    return _trace(data_directory() / "traces" / f"{variant}.json")


def trace_names() -> tuple[str, ...]:
    """Kernel variants with a trace, sorted."""
    return tuple(sorted(path.stem for path in (data_directory() / "traces").glob("*.json")))


@_once_a_version
def _trace(path: Path) -> dict[str, Any]:
    trace = _parse(path)
    if trace.get("schema") != TRACE_SCHEMA:
        raise ValueError(f"{_shown(path)}: schema is {trace.get('schema')}, allowed is {TRACE_SCHEMA}")
    return trace


def load_table(relative_path: str) -> pd.DataFrame:
    """Evidence table ``data/<relative_path>`` (CSV or Parquet) as it is.

    Raises
    ------
    ValueError
        If there is no such table; the message suggests the nearest.
    """
    path = data_directory() / relative_path
    if not path.is_file():
        raise ValueError(unknown_name("table", relative_path, list(_tables())))
    return _read_table(path)


def _stems(folder: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (data_directory() / folder).glob("*.toml")))


def _find(name_or_path: str | Path, kind: str, folder: str) -> Path:
    path = Path(name_or_path)
    name = str(name_or_path).strip().lower().replace("_", "-").replace(" ", "-")
    known = data_directory() / folder / f"{name}.toml"
    if known.name == f"{name}.toml" and known.is_file():
        return known
    if name and (path.suffix in (".toml", ".json") or path.is_dir()):
        return path
    raise ValueError(unknown_name(kind, str(name_or_path), _stems(folder)))


def _load_record(path: Path, kind: type[_RecordT]) -> _RecordT:
    if not path.is_file():
        raise ValueError(f"{_shown(path)}: no such file")
    return _record(path, kind)


@_once_a_version
def _record(path: Path, kind: type[_RecordT]) -> _RecordT:
    return _convert(_own_key(path), kind, path)


def _own_key(path: Path) -> dict[str, Any]:
    """Fields of a file whose name is the key."""
    fields = _parse(path)
    if "key" in fields:
        raise ValueError(f"{_shown(path)}: unknown key 'key': the file's name is the key")
    return fields | {"key": path.stem}


def _parse(path: Path) -> dict[str, Any]:
    with _named(path):
        text = path.read_text(encoding="utf-8-sig")
        parsed = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    if not isinstance(parsed, dict):
        raise ValueError(f"{_shown(path)}: expected an object of keys, got {type(parsed).__name__}")
    return parsed


def _convert(fields: Any, kind: type[_RecordT], path: Path, within: str = "") -> _RecordT:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        where = ".".join(part for part in (within, place.strip("`.")) if part)
        message = message.replace("Object missing required field", "missing key")
        message = message.replace("Object contains unknown field", "unknown key").replace("`", "'")
        if (given := _at(fields, place.strip("`."))) is not None and repr(given) not in message:
            where += f" is {given!r}"
        raise ValueError(": ".join(part for part in (_shown(path), where, message) if part)) from error


def _at(fields: Any, place: str) -> str | float | None:
    """The value that stands at ``peak.fp8_tensor``, if it is a number or a text."""
    for name in place.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields if isinstance(fields, str | int | float) else None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{_shown(path)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_shown(path)}: {error}") from error


def _shown(path: Path) -> str:
    """Path as messages show it: ``data/...`` for the catalogue's own files."""
    try:
        return str(Path("data") / Path(os.path.realpath(path)).relative_to(os.path.realpath(data_directory())))
    except ValueError:
        return str(path)


def _tables() -> dict[str, Path]:
    root = data_directory()
    found = sorted(path for folder in ("published", "measured") for path in (root / folder).rglob("*"))
    return {path.relative_to(root).as_posix(): path for path in found if path.suffix in _TABLE_SUFFIXES}


def _kernel_time_tables() -> dict[str, Path]:
    # Two columns tell the kind; read_kernel_times then insists on the whole schema, so no broken table is passed over.
    return {name: path for name, path in _tables().items() if {"kernel", "time_us"} <= set(_columns(path))}


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_schema

        return list(read_schema(path).names)
    with path.open(encoding="utf-8") as file:
        return file.readline().strip().split(",")


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    with _named(path):
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        try:
            return pd.read_csv(path, encoding="utf-8-sig", dtype=dict.fromkeys(NAME_COLUMNS, "str"))
        except UnicodeDecodeError as error:
            raise ValueError(f"no CSV in UTF-8: {error}") from error
