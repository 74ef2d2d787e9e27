"""A user's own measurements: the CSV of ``--with``, checked, and parted by whether a kernel has a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError, note

if TYPE_CHECKING:
    import pandas as pd

Own = Annotated[
    Path | None,
    typer.Option("--with", help="CSV of your own measurements, columns as data/measured (see data/README.md)."),
]


def read_own(path: Path) -> pd.DataFrame:
    """A user's measurements: the schema of the evidence, GPUs of the catalogue, kernels with a model or without."""
    from perfmodel.catalog import load_sources, read_kernel_times
    from perfmodel.kernels import KERNELS, kernel_model
    from perfmodel.prediction import check_tokens

    table = read_kernel_times(path)
    table = table[table["status"] == "value"].reset_index(drop=True)
    if table.empty or table["time_us"].isna().any():
        raise InputError(f"{path}: needs rows of status 'value', each with a time")
    published = set(table["source"]) & set(load_sources())
    if published:
        raise InputError(f"{path}: source {', '.join(sorted(published))} is a published one; name your own")
    try:
        keys = {gpu: _name_of(gpu) for gpu in table["gpu"].unique()}
        for kernel, rows in table[table["kernel"].isin(KERNELS)].groupby("kernel"):
            check_tokens(kernel_model(str(kernel)), rows["n"])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return table.assign(gpu=table["gpu"].map(keys))


def judged(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of kernels that have a model, of which some must count if there are any."""
    from perfmodel.evidence.rows import shapes_of
    from perfmodel.kernels import KERNELS

    modelled = table[table["kernel"].isin(KERNELS)].reset_index(drop=True)
    bounded = [KERNELS[str(name)].at_least(shapes_of(rows)).all() for name, rows in modelled.groupby("kernel")]
    if bounded and all(bounded) and len(modelled) == len(table):
        names = ", ".join(modelled["kernel"].unique())
        raise InputError(f"{path}: of {names} no more than a bound is modelled at these tokens, so no row counts")
    return modelled


def fittable(path: Path, hold_out: Sequence[int]) -> pd.DataFrame:
    """The rows of a user's file that fits may use, and those to judge by, of each kernel some to fit."""
    table = read_own(path)
    mine = judged(path, table)
    if without := without_model(table):
        words = f"{path}: {without_words(without)}"
        if mine.empty:
            raise InputError(words)
        note(words)
    there = sorted(set(mine["n"]))
    for tokens in hold_out:
        if tokens not in there:
            raise InputError(f"--hold-out is {tokens}, allowed are tokens N of {path}: {', '.join(map(str, there))}")
    if idle := sorted(set(mine["kernel"]) - set(mine.loc[~mine["n"].isin(hold_out), "kernel"])):
        held = ", ".join(map(str, hold_out))
        raise InputError(f"--hold-out {held} leaves no row of {', '.join(idle)} in {path} to fit")
    return mine


def without_model(table: pd.DataFrame) -> list[str]:
    """Kernels of a user's rows that have no model."""
    from perfmodel.kernels import KERNELS

    return [name for name in table["kernel"].unique() if name not in KERNELS]


def without_words(kernels: Sequence[str]) -> str:
    """That these kernels have no model, what that means and what to do; or which name was meant."""
    from difflib import get_close_matches

    from perfmodel.kernels import KERNELS
    from perfmodel.kernels.own import SETTING

    named = ", ".join(kernels)
    have = "has no model" if len(kernels) == 1 else "have no model"
    meant = sorted({near for name in kernels for near in get_close_matches(name, KERNELS, n=1, cutoff=0.8)})
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return (
        f"{named} {have}{hint}: measured only, nothing is predicted or fitted; name a file with its class in {SETTING}"
    )


def _name_of(gpu: str) -> str:
    """Name under which a row's device can be loaded: of the catalogue, or the file of a CPU that was measured."""
    from perfmodel.catalog import cpu_names, gpu_names, load_device
    from perfmodel.catalog.cpu import THREADS_MARK, Cpu

    device, name = load_device(gpu), gpu.partition(THREADS_MARK)[0]
    if isinstance(device, Cpu) and name.endswith(".toml"):
        return gpu if THREADS_MARK in gpu else f"{gpu}{THREADS_MARK}{device.in_use}"
    if device.key.partition(THREADS_MARK)[0] not in (*gpu_names(), *cpu_names()):
        raise InputError(f"gpu is {gpu}, allowed are GPUs and CPUs of the catalogue, and files of `lscd measure`")
    return device.key
