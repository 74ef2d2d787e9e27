"""`lscd weights import`: a GGUF file as a Hugging Face folder, which everything else here reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lscd.printing import progress


def import_weights(
    source: Annotated[str, typer.Argument(help="A GGUF file of a Llama-like model, or smollm2.")],
    folder: Annotated[
        Path, typer.Argument(writable=True, file_okay=False, help="New folder; it appears only when it is complete.")
    ],
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
) -> None:
    """Write a GGUF file as safetensors, config.json and tokenizer.json, its codes multiplied out."""
    from kernels_numba.checkpoints.gguf_import import import_gguf
    from kernels_numba.checkpoints.gguf_reader import open_gguf

    model = open_gguf(source)
    with progress("importing", len(model.stored)) as step:
        size = import_gguf(model, folder, dtype, step)
    print(f"Wrote {folder}: {len(model.stored)} tensors, {size:,} bytes of {dtype}.")
    print(f"{model.path.name} has {model.types}.")
