"""How files are read: found by name, parsed, made into records, and refused with their name and the key at fault.

The only reader of ``data/``, with `load` and `models` on top. The data directory is ``$LSCD_DATA`` if set, else the
copy inside an installed package, else ``data/`` beside the package.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from perfmodel.catalog.arguments import path_text
from perfmodel.catalog.arguments import shown as brief
from perfmodel.catalog.checks import NAME_COLUMNS
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.records import Record

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "_data"  # the data of an installed package, which stay as they came
LARGEST_BYTES = 1 << 28  # of a user's file: beyond any, and what a mistake may read
LONGEST_MESSAGE = 2000  # characters, as the command line shows; a hostile file has values of any length
DEEPEST_KEY = 100  # parts of a dotted key; the reader's time grows with their square
_DEEP_KEY = re.compile(rf"""(?m)(?:^|[\[{{,])[ \t]*+(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{DEEPEST_KEY}}}""")
LONGEST_NAME = 200  # characters of what may be a name of ours; a path may be longer

_RecordT = TypeVar("_RecordT", bound=Record)
_ReadT = TypeVar("_ReadT", bound=Callable[..., Any])


def once_a_version(read: _ReadT) -> _ReadT:
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
    places = [Path(override)] if override else [INSTALLED, PACKAGE.parent / "data"]
    for place in places:
        if (place / "hardware").is_dir():
            return place
    raise ValueError(f"no data directory with a folder 'hardware' at {' or '.join(map(str, places))}; set LSCD_DATA")


def stems(folder: str) -> tuple[str, ...]:
    """Names of the TOML files of a folder of ``data/``, sorted."""
    return tuple(sorted(path.stem for path in (data_directory() / folder).glob("*.toml")))


def has(folder: str, name: str) -> bool:
    """Whether a folder of ``data/`` has a TOML file of exactly this name, as fast as a page needs it."""
    path = data_directory() / folder / f"{name}.toml"
    return len(name) <= LONGEST_NAME and path.stem == name and path.parent.name == folder and path.is_file()


def find(name_or_path: str | Path, kind: str, folder: str, names: Callable[[], Iterable[str]] | None = None) -> Path:
    """File of that name in a folder of ``data/``, or the path itself; unknown names suggest the nearest.

    ``names`` are those to suggest, of all files there by default.
    """
    path = Path(path_text(kind, name_or_path))
    name = str(name_or_path).strip().lower().replace("_", "-").replace(" ", "-")
    known = data_directory() / folder / f"{name}.toml"
    if len(name) <= LONGEST_NAME and known.name == f"{name}.toml" and known.is_file():
        return known
    if name and (path.suffix in (".toml", ".json") or _is_folder(path)):
        return path
    raise ValueError(unknown_name(kind, str(name_or_path), names() if names else stems(folder)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that the system does not take
        return False


def load_record(path: Path, kind: type[_RecordT]) -> _RecordT:
    """Record of a TOML file, read again only when the file has changed."""
    if not path.exists():
        raise ValueError(f"{shown(path)}: no such file")
    return _record(path, kind)


@once_a_version
def _record(path: Path, kind: type[_RecordT]) -> _RecordT:
    return convert(own_key(parse(path), path), kind, path)


def own_key(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """``fields`` of a file whose name is the key."""
    if "key" in fields:
        raise ValueError(f"{shown(path)}: unknown key 'key': the file's name is the key")
    return fields | {"key": path.stem}


def text_of(path: Path) -> str:
    """Text of a plain file in UTF-8, with or without its mark.

    Raises
    ------
    ValueError
        If it is missing, no plain file (a device or pipe may never end), larger than `LARGEST_BYTES` or of another
        encoding; names the file.
    """
    with named(path):
        _check_plain(path)
        with path.open("rb") as file:
            return _decoded(file.read(LARGEST_BYTES))


def given_text(text: str | bytes, path: Path) -> str:
    """``text`` that was uploaded as ``path``, which is not looked at; refused as `text_of` refuses."""
    with named(path):
        if not isinstance(text, str | bytes):
            raise ValueError(f"what it holds is {brief(text)}, allowed is text")
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        _check_size(len(data))
        return _decoded(data)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text: byte {error.start} is {data[error.start]:#x}") from error


def _check_size(size: int) -> None:
    if size > LARGEST_BYTES:
        raise ValueError(f"{size:,} bytes, allowed are at most {LARGEST_BYTES:,}")


def _check_plain(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or os.path.realpath(path).startswith(("/proc/", "/sys/")):
        raise ValueError(f"no plain file but a {'directory' if path.is_dir() else 'device, pipe or stream'}")
    _check_size(status.st_size)


def parse(path: Path) -> dict[str, Any]:
    """Keys of a TOML or JSON file."""
    return (parse_json if path.suffix == ".json" else parse_toml)(text_of(path), path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Keys of what a TOML file holds."""
    with named(path):
        if _DEEP_KEY.search(text):
            raise RecursionError
        return tomllib.loads(text)


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Keys of what a JSON file holds."""
    with named(path):
        parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise ValueError(f"{shown(path)}: expected an object of keys, got {type(parsed).__name__}")
    return parsed


def convert(fields: Any, kind: type[_RecordT], path: Path, within: str = "") -> _RecordT:
    """``fields`` as a record; a message about them names the file and the key, below ``within``."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        where = ".".join(part for part in (within, place.strip("`.")) if part)
        message = message.replace("Object missing required field", "missing key")
        message = message.replace("Object contains unknown field", "unknown key").replace("`", "'")
        if (given := _at(fields, place.strip("`."))) is not None and repr(given) not in message:
            where += f" is {brief(given)}"
        raise ValueError(_cut(": ".join(part for part in (shown(path), where, message) if part))) from error


def _at(fields: Any, place: str) -> str | float | None:
    """The value that stands at ``peak.fp8_tensor``, if it is a number or a text."""
    for name in place.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields if isinstance(fields, str | int | float) else None


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{shown(path)}: {error.strerror or error}") from error
    except ValueError as error:
        words = " ".join(str(error).split())  # pandas ends some of its own with a new line
        raise ValueError(_cut(f"{shown(path)}: {words}")) from error
    except RecursionError as error:
        raise ValueError(f"{shown(path)}: its keys nest too deeply") from error


def _cut(words: str) -> str:
    """What went wrong, its middle left out where a value is longer than anybody reads."""
    half = LONGEST_MESSAGE // 2
    return words if len(words) <= LONGEST_MESSAGE else f"{words[:half]}…{words[1 - half :]}"


def shown(path: Path) -> str:
    """Path as messages show it: ``data/...`` for the catalogue's own files."""
    try:
        return str(Path("data") / Path(os.path.realpath(path)).relative_to(os.path.realpath(data_directory())))
    except ValueError:
        return str(path)


def columns_of(path: Path) -> list[str]:
    """Names of the columns of a table."""
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_schema

        return list(read_schema(path).names)
    with path.open(encoding="utf-8") as file:
        return file.readline().strip().split(",")


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as it is; columns of names are text."""
    import pandas as pd

    with named(path):
        if path.suffix == ".parquet":
            _check_plain(path)
            return pd.read_parquet(path)
    text = text_of(path)
    with named(path):
        return pd.read_csv(StringIO(text), dtype=dict.fromkeys(NAME_COLUMNS, "str"), low_memory=False)


def read_texts(text: str, path: Path) -> dict[str, list[str]]:
    """Columns of what a user's CSV file holds, every cell as its text."""
    import pandas as pd

    with named(path):
        table = pd.read_csv(StringIO(text), dtype="str", keep_default_na=False, skipinitialspace=True, low_memory=False)
    return {name: list(table[name]) for name in table}
