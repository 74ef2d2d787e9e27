"""How the command line fails: one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

BAD_INPUT = 2
READER_GONE = 1  # as click and rich end when whoever read their output has left


class InputError(ValueError):
    """Bad input from the user; the message says what to type instead."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn a `ValueError`, an unusable file or a lost reader into one line on stderr, or none, and an exit code.

    LSCD_DEBUG=1 in the environment shows the traceback instead.
    """
    try:
        try:
            yield
        finally:
            _flush()
    except BrokenPipeError:
        raise SystemExit(READER_GONE) from None
    except (ValueError, OSError, OverflowError) as error:
        if os.environ.get("LSCD_DEBUG"):
            raise
        print(f"lscd: {_sentence(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; of a file its name and the system's words, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _flush() -> None:
    """Write what is buffered now: a closed pipe or a full disk must not surface after the last handler is gone."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place only if the block succeeds."""
    target = writable(path)
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix, delete=False) as file:
        partial = Path(file.name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def writable(path: str | Path) -> Path:
    """``path``, resolved, refused if no file can be written there: worth asking before long work."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise InputError(f"{target}: no such directory {target.parent}")
    if target.is_dir():
        raise InputError(f"{target} is a directory; give a file name")
    if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
        raise InputError(f"{target} is no file that can be written")
    return target


def refuse_overwriting(source: Path, target: Path) -> None:
    """Refuse an output of another kind that would replace the very file it is made from."""
    if source.exists() and target.exists() and source.samefile(target):
        raise InputError(f"{target} is the input itself; write to another file")


def batch_files(context: typer.Context, source: Path | None, target: Path | None) -> tuple[Path, Path] | None:
    """The files of ``--input`` and ``--output``, None if neither is given; refuses one alone, and options beside them.

    The input file says it all: any other option would be ignored without a word.
    """
    if source is None and target is None:
        return None
    if source is None or target is None:
        raise InputError("--input and --output belong together: give both, or neither")
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.opts[0] not in ("--input", "--output")
        and parameter.name is not None
        and (origin := context.get_parameter_source(parameter.name)) is not None
        and origin.name == "COMMANDLINE"
    ]
    if given:
        raise InputError(f"--input takes everything from the file; drop {', '.join(given)}")
    return source, target


def refuse_missing(example: str, **options: str | int) -> None:
    """Refuse options that were not given; the message names them and shows an ``example``."""
    missing = [f"--{name}" for name, value in options.items() if not value]
    if missing:
        raise InputError(f"missing {', '.join(missing)}; for example {example}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
