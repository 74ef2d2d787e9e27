"""A user's own kernels: what the Python file named by LSCD_KERNELS defines, checked before it joins the others.

Each subclass of `KernelModel` and each `WeightFormat` that the file itself defines enters. Until rows of the kernel are
fitted (`lscd calibrate --with`) its parameters are assumed. The file is its owner's code: it runs only where named.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from perfmodel.catalog import cpu_names, gpu_names, load_device
from perfmodel.catalog.cpu import Device
from perfmodel.catalog.files import named, text_of
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Bound
from perfmodel.formats import FORMATS, WeightFormat
from perfmodel.kernels.base import KernelModel, KernelTime, Machine, Shape

SETTING = "LSCD_KERNELS"
MODULE = "lscd_own_kernels"
MOST_PARAMETERS = 5
DECLARED = {"low", "high", "meaning", "fast"}
TRIED_TOKENS, TRIED_SPARSITIES = (1, 8, 16, 64), (0.5, 0.8)


@dataclass(frozen=True)
class OwnKernels:
    """Models of a user's file, and its text, from which all that they predict follows."""

    models: tuple[KernelModel, ...] = ()
    text: str = ""


def own_kernels(known: set[str]) -> OwnKernels:
    """The kernels of the file that LSCD_KERNELS names, whose formats join `FORMATS`; none where it names none.

    Parameters
    ----------
    known
        Names of the kernels there are.

    Raises
    ------
    ValueError
        If the file is missing, fails, or holds no kernel that can be used; one sentence with file, class and reason.
    """
    place = os.environ.get(SETTING)
    if not place:
        return OwnKernels()
    path = Path(place)
    text = text_of(path)
    with named(Path(f"{SETTING}: {path}")):
        module = _run(text)
        formats = _own_formats(module)
        FORMATS.update(formats)
        try:
            models = [_checked(kind) for kind in _kernel_classes(module)]
            if not models:
                raise ValueError("no subclass of KernelModel with a method 'time' is defined there")
            _refuse_taken("kernel", [model.name for model in models], known)
        except ValueError:
            for name in formats:
                del FORMATS[name]
            raise
    return OwnKernels(tuple(models), text)


def _run(text: str) -> ModuleType:
    """The file as a module; nothing is written beside it."""
    module = sys.modules[MODULE] = ModuleType(MODULE)  # dataclasses look their module up by its name
    with _explained():
        exec(compile(text, os.environ[SETTING], "exec"), module.__dict__)
    return module


@contextmanager
def _explained(what: str = "") -> Iterator[None]:
    """Turn whatever a user's code raises into a sentence with the line of the file where it happened."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames, here = traceback.extract_tb(error.__traceback__), os.environ[SETTING]
        lines = [frame.lineno for frame in frames if frame.filename == here]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = "" if line is None else f"line {line}: "
        words = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"{where}{what}{type(error).__name__}: {words}".rstrip(": ")) from error


def _own_formats(module: ModuleType) -> dict[str, WeightFormat]:
    """Formats that the file makes, by name: those of the catalogue that it uses are none."""
    found = [each for each in vars(module).values() if isinstance(each, WeightFormat)]
    found = [each for each in dict.fromkeys(found) if each not in FORMATS.values()]
    _refuse_taken("format", [each.name for each in found], set(FORMATS))
    for each in found:
        with _explained(f"format {each.name!r}: "):
            sizes = np.asarray(each.bytes(4096.0, 4096.0, np.array(TRIED_SPARSITIES)))
        if sizes.shape != (len(TRIED_SPARSITIES),) or not (np.isfinite(sizes) & (sizes > 0)).all():
            raise ValueError(f"format {each.name!r} gives {sizes} bytes of 4096 x 4096, allowed are positive ones")
    return {each.name: each for each in found}


def _kernel_classes(module: ModuleType) -> list[type[KernelModel]]:
    """Kernels that the file itself defines; a class whose ``time`` is still abstract is a base of others."""
    classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, KernelModel)]
    return [each for each in dict.fromkeys(classes) if each.__module__ == MODULE and not inspect.isabstract(each)]


def _refuse_taken(kind: str, names: list[str], known: set[str]) -> None:
    for name in names:
        if name in known or names.count(name) > 1:
            raise ValueError(f"{kind} {name!r} is there already; give yours another name")


def _checked(kind: type[KernelModel]) -> KernelModel:
    """An instance of a user's class, assumed until it is fitted, after a trial of all that commands ask of it."""
    for attribute in ("name", "title", "format_name", "Parameters"):
        if not hasattr(kind, attribute):
            raise ValueError(f"class {kind.__name__} has no attribute {attribute!r}")
    for attribute in ("name", "title", "format_name"):
        given = getattr(kind, attribute)
        if not (isinstance(given, str) and given.strip() == given and given.isprintable() and given):
            raise ValueError(f"{kind.__name__}.{attribute} is {given!r}, allowed is a text")
    if kind.name.startswith("-") or set(kind.name) & set(" ,+@/\\"):
        raise ValueError(f"{kind.__name__}.name is {kind.name!r}, allowed are letters, digits, '-', '_' and '.'")
    if kind.format_name not in FORMATS:
        raise ValueError(f"{kind.__name__}: {unknown_name('format', kind.format_name, FORMATS)}")
    _check_parameters(kind)
    kind.assumed = True
    model = kind()
    _try(model)
    return model


def _check_parameters(kind: type[KernelModel]) -> None:
    """Refuse parameters that cannot be fitted, or whose ranges span no interval."""
    if not is_dataclass(kind.Parameters):
        raise ValueError(f"{kind.__name__}.Parameters is no dataclass")
    declared = fields(kind.Parameters)
    if len(declared) > MOST_PARAMETERS:
        raise ValueError(f"{kind.__name__} has {len(declared)} free parameters, allowed are {MOST_PARAMETERS}")
    for field in declared:
        if set(field.metadata) != DECLARED:
            raise ValueError(f"{kind.__name__}: parameter {field.name} is not declared by free(...)")
        low, high = field.metadata["low"], field.metadata["high"]
        if not low <= field.default <= high:
            raise ValueError(f"{kind.__name__}: {field.name} starts at {field.default}, allowed is {low} to {high}")


def _try(model: KernelModel) -> None:
    """Predict a few products at both ends of the parameters' ranges; refuses what is no positive time of each."""
    device = _device_of(model)
    tokens = np.asarray(model.padded_n(np.array(TRIED_TOKENS, dtype=float)))
    tokens = tokens[~np.isnan(tokens)]
    shares = np.asarray(model.own_sparsity(np.array(TRIED_SPARSITIES)))[:, None]
    shape = Shape.of(8192, 4096, tokens, shares)
    for parameters in (model.Parameters(), *model.at_ends()):
        with _explained(f"{type(model).__name__}.time: "):
            found = model.time(Machine.of(device), shape, parameters)
        if not isinstance(found, KernelTime) or Bound.LATENCY not in found.terms:
            raise ValueError(f"{type(model).__name__}.time gives no KernelTime whose terms hold Bound.LATENCY")
        seconds = np.asarray(found.time_s)
        if seconds.shape != (len(shares), len(tokens)) or not (np.isfinite(seconds) & (seconds > 0)).all():
            raise ValueError(
                f"{type(model).__name__}.time gives {seconds.tolist()} seconds on {device.key} for {len(shares)} "
                f"sparsities x {len(tokens)} tokens, allowed is a positive time of each"
            )


def _device_of(model: KernelModel) -> Device:
    """The first device of the catalogue that runs it."""
    for name in ("a100-80gb", *gpu_names(), *cpu_names()):
        if model.refusal(load_device(name)) is None:
            return load_device(name)
    raise ValueError(f"{type(model).__name__} runs on no GPU or CPU of the catalogue")
