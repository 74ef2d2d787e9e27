"""How the command line fails: one sentence on stderr, an exit code that is not 0, nothing half-written."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from kernels_numba.files import writable as writable
from kernels_numba.files import written_whole as written_whole  # all that commands need of failing comes from here

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # what typer raises for options that it cannot read
EXPECTED = (UsageError, ValueError, OSError, OverflowError, MemoryError)  # what users can cause
BAD_INPUT, FAULT_OF_OURS = 2, 70  # the latter as in sysexits.h
READER_GONE = 1  # as click and rich end when whoever read their output has left
BY_SIGNAL, INTERRUPTED = 128, 130  # as a shell reports them
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
SHORTENED, LONGEST_LINE = 60, 2000  # characters that messages repeat of a longer value, and of all
LONG_WORD = re.compile(r"\S{121,}")
LONG_QUOTED = re.compile(r"(?<!\w)(?:'[^']{121,}'|\"[^\"]{121,}\")(?!\w)")


class InputError(ValueError):
    """Bad input from the user; the message says what to type instead."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever ends a command into one line on stderr, or none, and a code: 2 for bad input, 70 for our faults.

    LSCD_DEBUG=1 in the environment shows the traceback instead, and Python's warnings.
    """
    debugging = bool(os.environ.get("LSCD_DEBUG"))
    try:
        with _quiet(debugging), _ended_by_signals():
            try:
                yield
            finally:
                _flush()
    except BrokenPipeError:
        raise SystemExit(READER_GONE) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if debugging:
            raise
        if sentence := _sentence(error):  # none where typer has printed its help instead
            _tell(sentence)
        raise SystemExit(BAD_INPUT if isinstance(error, EXPECTED) else FAULT_OF_OURS) from None


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; of a file its name and the system's words, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return shown(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, MemoryError):
        return shown(f"not enough memory for this; {error}".rstrip("; "))
    if isinstance(error, EXPECTED):
        return shown(_usage(error) if isinstance(error, UsageError) else str(error))
    what = shown(f"{type(error).__name__}: {error}".rstrip(": "))
    return f"a fault of lscd, not of what was typed: {what}; LSCD_DEBUG=1 shows where"


def note(words: str) -> None:
    """Tell on stderr, in a line, what a user may want to know and no script should stumble on."""
    _tell(shown(words))


def _tell(line: str) -> None:
    """Print a line on stderr, if anything can be written there."""
    with suppress(OSError):
        print(f"lscd: {line}", file=sys.stderr, flush=True)


def shown(words: str) -> str:
    """``words`` on one line as a terminal may show them: no control characters, and nothing of a user's at length."""
    line = "".join(map(_visible, words.strip()))
    for long in (LONG_QUOTED, LONG_WORD):
        line = long.sub(lambda found: f"{found[0][:SHORTENED]}…", line)
    if len(line) > LONGEST_LINE:
        return f"{line[:SHORTENED]} … {line[-LONGEST_LINE // 2 :]}"
    return line


def _visible(letter: str) -> str:
    """A letter itself, or an escape for what a terminal would obey; a byte of a name that is no UTF-8 as a byte."""
    if letter.isprintable():
        return letter
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _usage(error: Any) -> str:
    """What typer found wrong with an option; it names the option, and not always the value that was typed."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, following in reversed([*zip(sys.argv, [*sys.argv[1:], ""], strict=True)]):
            name, equals, value = word.partition("=")
            if name == option:
                return f"{option} is {(value if equals else following)!r}: {error.message}"
    return str(error.format_message())


@contextmanager
def _quiet(debugging: bool) -> Iterator[None]:
    """Show none of Python's warnings, which speak of our code; print any file name, though it be no UTF-8."""
    before = warnings.showwarning
    if not debugging:
        warnings.showwarning = lambda *_, **__: None
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # tells where it caches, and nothing of the picture
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as an exception would, so that nothing half-written stays behind."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(BY_SIGNAL + number)

    ours = threading.current_thread() is threading.main_thread()  # the only one that may set handlers
    before = {number: signal.signal(number, end) for number in ENDING if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _flush() -> None:
    """Write what is buffered now: a closed pipe or a full disk must not surface after the last handler is gone."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


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


def refuse_idle(context: typer.Context, why: str, *names: str) -> None:
    """Refuse options that were given and would change nothing; ``why`` completes "--seed does nothing"."""
    given = [typed(context.command, name) for name in names if _on_command_line(context, name)]
    if given:
        raise InputError(f"{', '.join(given)} {'does' if len(given) == 1 else 'do'} nothing {why}; leave out")


def typed(command: Any, name: str) -> str:
    """How a parameter of a command is typed: its option, or the name of an argument as the help shows it."""
    option = next(parameter.opts[0] for parameter in command.params if parameter.name == name)
    return option if option.startswith("-") else str(option).upper()


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
