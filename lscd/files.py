"""The files of a command, before it runs: an output must be writable, and no input, nor another output.

Options and arguments declared with ``writable=True`` are outputs, and with ``file_okay=False`` folders. Whatever else
was typed and names something that is there counts as an input, with all that a model's folder holds, and so does the
calibration in use. Every command of a `Lab` is checked, those to come as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from inspect import unwrap
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from kernels_numba.files import folder_writable, identity, nearest, writable
from lscd.errors import InputError, typed

SETTINGS = ("LSCD_CALIBRATION", "LSCD_KERNELS")  # files that commands read without an option
INDEX = ".index.json"  # ends the names of files that stand for all shards beside them
THREADS = re.compile(r"@\d+$")  # of a CPU, after the name of its file


class Lab(typer.Typer):
    """A typer application whose commands have their files checked before they run."""

    def command(self, name: str | None = None, **how: Any) -> Any:
        """As typer's own."""
        return super().command(name, **{"cls": Checked} | how)


class Checked(TyperCommand):
    """A command that refuses outputs which cannot be written, or would destroy what it reads or writes."""

    def invoke(self, ctx: Any) -> Any:
        """Check, then run."""
        declared = outputs_of(self)
        given = {name: ctx.params[name] for name in declared if ctx.params[name] is not None}
        for name, path in given.items():
            _check_place(typed(self, name), path, declared[name])
        inputs = [value for name, value in ctx.params.items() if name not in declared]
        refuse_inputs({typed(self, name): path for name, path in given.items()}, inputs)
        return super().invoke(ctx)


def refuse_inputs(outputs: dict[str, Path], values: Iterable[Any]) -> None:
    """Refuse ``outputs``, by the option that names them, if one is another of them or a file that ``values`` name.

    Raises
    ------
    InputError
        Names the option, the file, and what it is already.
    """
    taken: dict[tuple[int, int] | str, str] = {}
    for value in [*values, *map(os.environ.get, SETTINGS)]:
        for path in _files(value):
            if (known := identity(path)) is not None:
                taken[known] = f"the input itself, as {path}" if str(path) != str(value) else "the input itself"
    for name, path in outputs.items():
        key = identity(path) or os.path.realpath(path)
        if key in taken:
            raise InputError(f"{name}: {path} is {taken[key]}; write to another file")
        taken[key] = f"what {name} writes already"


def outputs_of(command: Any) -> dict[str, Any]:
    """Parameters of a command that are declared as outputs, and how each is declared."""
    hints = get_type_hints(unwrap(command.callback), include_extras=True)
    told = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: info for name, infos in told.items() for info in infos if getattr(info, "writable", False)}


def _check_place(option: str, path: Path, declared: Any) -> None:
    """Refuse a place that cannot be written: a file, or a folder with all that is missing above it."""
    try:
        if declared.file_okay and not path.is_dir():
            writable(path)
        else:
            folder_writable(nearest(path), path)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _files(value: Any) -> Iterator[Path]:
    """Files that a value of an option may stand for, if it is the name of something."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _files(part)
    elif isinstance(value, str | Path) and str(value):
        path = Path(THREADS.sub("", str(value)))
        yield path
        if identity(path) is not None:
            folder = path.parent if path.name.endswith(INDEX) else path
            yield from sorted(folder.iterdir()) if folder.is_dir() else ()
