"""Folders of models: written whole or not at all, with the small files that belong to the weights."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernels_numba.checkpoints.safetensors_reader import Checkpoint
from kernels_numba.files import folder_writable
from kernels_numba.formats.encoded import check

WEIGHTS = "model.safetensors"
# What Hugging Face folders keep beside the weights; pruning changes none of it.
COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Hand out a temporary folder that becomes ``folder`` only if the block succeeds.

    Raises
    ------
    ValueError
        If ``folder`` is there and no empty folder, or the one to hold it is not there or read-only.
    """
    given, folder = str(folder), Path(os.path.realpath(folder))
    free = not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))
    check(free, given, "exists and is not empty", "a new folder")
    folder_writable(folder.parent, given)
    partial = Path(tempfile.mkdtemp(prefix=".lscd-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def weights_file(source: Checkpoint, out: str | Path) -> Iterator[Path]:
    """Where to write weights made from ``source``: the file ``out``, or the file of weights in a new folder ``out``.

    A folder, asked for by any name that does not end in .safetensors, also gets what lies beside the source's weights.
    """
    out = Path(out)
    if out.suffix == ".safetensors":
        yield out
        return
    with new_folder(out) as folder:
        yield folder / WEIGHTS
        copy_companions(source, folder)


def copy_companions(source: Checkpoint, folder: Path) -> None:
    """Put into ``folder`` what lies beside the weights of ``source``."""
    for name in COMPANIONS:
        if (source.path.parent / name).is_file():
            shutil.copyfile(source.path.parent / name, folder / name)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of JSON as people read it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
