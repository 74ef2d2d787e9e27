"""What the commands of `lscd weights` ask alike: a checkpoint in, a file out, which matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError

if TYPE_CHECKING:
    from kernels_numba.checkpoints.safetensors_reader import Checkpoint

Source = Annotated[Path, typer.Argument(help="A .safetensors file, a .safetensors.index.json, or a checkpoint folder.")]
Target = Annotated[
    Path, typer.Argument(writable=True, dir_okay=False, help="File to write; it appears only when it is complete.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Only matrices whose name matches, e.g. '*.mlp.*'; by default all but embeddings, norms, heads."),
]
Exclude = Annotated[list[str] | None, typer.Option(help="Leave matrices alone whose name matches.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]


def plain_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint, refusing one that is encoded already."""
    from kernels_numba.checkpoints.container import is_encoded
    from kernels_numba.checkpoints.safetensors_reader import open_checkpoint

    source = open_checkpoint(path)
    if is_encoded(source):
        raise InputError(f"{path} is encoded already; decode it first: lscd weights convert --decode {path} OUT")
    return source
