"""Files of users: which may be read, which may be written, and outputs that appear whole or not at all.

Only plain files count. Devices and pipes never end or swallow what is written, and names below /proc stand for open
streams, so all of them are refused by name before anything is read, computed or written.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGEST_TEXT_BYTES = 1 << 28  # of a configuration, a vocabulary, a text: beyond any, and what a mistake may read
MOST_LINKS = 40  # followed one after the other, as Linux does
LONGEST_SUFFIX = 16  # kept of a partial file's name: pictures are drawn by it
KINDS = {
    stat.S_ISDIR: "a directory", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}  # fmt: skip


def readable(path: str | Path, most_bytes: int | None = None) -> Path:
    """``path``, refused unless it is a plain file, of at most ``most_bytes`` if they are given; ValueError names it."""
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or _is_stream(Path(os.path.realpath(path))):
        raise ValueError(f"{path} is {kind_of(status)}; allowed: a plain file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise ValueError(f"{path}: {status.st_size:,} bytes; allowed: at most {most_bytes:,}")
    return path


def read_small(path: str | Path) -> bytes:
    """Bytes of a plain file of at most `LARGEST_TEXT_BYTES`; ValueError names it."""
    with readable(path, LARGEST_TEXT_BYTES).open("rb") as file:
        return file.read(LARGEST_TEXT_BYTES)


def writable(path: str | Path) -> Path:
    """``path`` with its links followed, refused if no plain file can be written there: worth asking before long work.

    Raises
    ------
    ValueError
        If it is a device, pipe, socket, folder, stream, or link that leads back to itself, is or lies in what may not
        be written, or its folder is missing; names it.
    """
    target = _followed(Path(path))
    status = _status(target)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is a directory; give a file name")
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is {kind_of(status)}, no file that can be written; give a file name")
    if status is not None and not _may_write(target, status):
        raise ValueError(f"{path} is no file that can be written: it is read-only")
    folder_writable(target.parent, path)
    return target


def folder_writable(folder: Path, path: str | Path) -> None:
    """Refuse a ``folder`` for ``path`` that is missing or cannot be written."""
    if not folder.is_dir():
        raise ValueError(f"{path}: no such directory {folder}")
    if not _may_write(folder, folder.stat()):
        raise ValueError(f"{path}: the directory {folder} is read-only")


def nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place, and its permissions, only if the block succeeds.

    Raises
    ------
    ValueError
        As `writable`, or if the system cannot write it, for want of space for example; names ``path``.
    """
    target = writable(path)
    partial = target.with_name(f".lscd-{secrets.token_hex(8)}{target.suffix[:LONGEST_SUFFIX]}")
    try:
        partial.open("xb").close()
        if target.exists():
            shutil.copymode(target, partial)
        yield partial
        partial.replace(target)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise ValueError(f"{path} was not written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def identity(path: str | Path) -> tuple[int, int] | None:
    """What all names of a file share, None where nothing stands; a name that cannot be one stands for nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def kind_of(status: os.stat_result) -> str:
    """What stands at a path, in words."""
    return next((words for test, words in KINDS.items() if test(status.st_mode)), "a view into the system")


def _followed(path: Path) -> Path:
    """Where a file of this name would be written; refuses streams on the way and links that lead back."""
    given = path
    for _ in range(MOST_LINKS):
        step = Path(os.path.realpath(path.parent)) / path.name
        if _is_stream(step):
            raise ValueError(f"{given} is an open stream, no file that can be written; give a file name")
        if not step.is_symlink():
            return Path(os.path.realpath(step))
        path = step.parent / os.readlink(step)
    raise ValueError(f"{given} is a link that leads back to itself")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_stream(path: Path) -> bool:
    return str(path).startswith(("/proc/", "/sys/"))


def _may_write(path: Path, status: os.stat_result) -> bool:
    """Whether this process may write there, and anybody: what its owner has locked is no output for root either."""
    return os.access(path, os.W_OK) and bool(status.st_mode & 0o222)
