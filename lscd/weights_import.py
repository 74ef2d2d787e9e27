"""`lscd weights import`: a GGUF file or a quantised checkpoint as a folder that everything else here reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from lscd.printing import progress
from lscd.weights_files import plain_checkpoint


def import_weights(
    source: Annotated[
        str, typer.Argument(help="A GGUF file of a Llama-like model, smollm2, or a quantised safetensors checkpoint.")
    ],
    folder: Annotated[
        Path, typer.Argument(writable=True, file_okay=False, help="New folder; it appears only when it is complete.")
    ],
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
) -> None:
    """Write weights as safetensors with config.json and tokenizer.json, their codes multiplied out."""
    path = Path(source)
    if path.exists() and not _is_gguf(path):  # a name like smollm2 is no path
        _dequantise(path, folder, dtype)
    else:
        _import_gguf(source, folder, dtype)


def _is_gguf(path: Path) -> bool:
    """By its name, or by what it begins with."""
    from kernels_numba.checkpoints.file_kinds import starts_with

    return path.suffix == ".gguf" or (path.is_file() and starts_with(path, b"GGUF"))


def _import_gguf(source: str, folder: Path, dtype: str) -> None:
    from kernels_numba.checkpoints.gguf_import import import_gguf
    from kernels_numba.checkpoints.gguf_reader import open_gguf

    model = open_gguf(source)
    with progress("importing", len(model.stored)) as step:
        size = import_gguf(model, folder, dtype, step)
    print(f"Wrote {folder}: {len(model.stored)} tensors, {size:,} bytes of {dtype}.")
    print(f"{model.path.name} has {model.types}.")


def _dequantise(path: Path, folder: Path, dtype: str) -> None:
    from kernels_numba.checkpoints.dequantise import dequantise

    checkpoint = plain_checkpoint(path)
    with progress("decoding", len(checkpoint.tensors)) as step:
        found = dequantise(checkpoint, folder, dtype, step)
    layouts = ", ".join(f"{count} {what}" for what, count in Counter(matrix.what for matrix in found).items())
    print(f"Wrote {folder}: {len(found)} matrices are one {dtype} tensor each now; all other tensors are unchanged.")
    print(f"{path} has {layouts}.")
