"""How the command line fails: one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import typer

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # what typer raises for options that it cannot read
BAD_INPUT = 2
LONGEST_WORD, SHORTENED = 120, 60  # characters that messages repeat of a value, and of a longer one
READER_GONE = 1  # as click and rich end when whoever read their output has left


class InputError(ValueError):
    """Bad input from the user; the message says what to type instead."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn bad options, a `ValueError`, an unusable file or a lost reader into one line on stderr, or none, and a code.

    LSCD_DEBUG=1 in the environment shows the traceback instead.
    """
    try:
        try:
            yield
        finally:
            _flush()
    except BrokenPipeError:
        raise SystemExit(READER_GONE) from None
    except (UsageError, ValueError, OSError, OverflowError) as error:
        if os.environ.get("LSCD_DEBUG"):
            raise
        if sentence := _sentence(error):  # none where typer has printed its help instead
            print(f"lscd: {sentence}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; of a file its name and the system's words, without the number."""
    if isinstance(error, OSError) and error.strerror:
        words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        words = " ".join((_usage(error) if isinstance(error, UsageError) else str(error)).split())
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda long: f"{long[0][:SHORTENED]}…", words)


def _usage(error: Any) -> str:
    """What typer found wrong with an option; it names the option, and not always the value that was typed."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, following in reversed([*zip(sys.argv, [*sys.argv[1:], ""], strict=True)]):
            name, equals, value = word.partition("=")
            if name == option:
                return f"{option} is {(value if equals else following)!r}: {error.message}"
    return str(error.format_message())


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
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError(f"{target} is a link that leads back to itself")
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
        and _on_command_line(context, parameter.name)
    ]
    if given:
        raise InputError(f"--input takes everything from the file; drop {', '.join(given)}")
    return source, target


def refuse_missing(context: typer.Context, example: str, *options: str) -> None:
    """Refuse options that were not given; the message names them and shows an ``example``."""
    given = {name for name in options if _on_command_line(context, name)}
    missing = [f"--{name}" for name in options if name not in given]
    if missing:
        raise InputError(f"missing {', '.join(missing)}; for example {example}")


def _on_command_line(context: typer.Context, name: str) -> bool:
    origin = context.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def split_names(option: str, text: str | None) -> list[str]:
    """Names of ``fp8,int4``, each once; none where the option was not given.

    Raises
    ------
    InputError
        If a name is empty.
    """
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option} is {text!r}, allowed are names joined by commas")
    return list(dict.fromkeys(names))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
