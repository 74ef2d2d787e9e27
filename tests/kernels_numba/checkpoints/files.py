"""Safetensors files that tests write, whole and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kernels_numba.checkpoints.safetensors_writer import header_room, written


def write_raw(path: Path, header: object, data: bytes = bytes(16), length: int | None = None) -> Path:
    """A file with any header, or any bytes in its place, whatever it says about ``data``."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def save(path: Path, tensors: dict[str, np.ndarray], dtypes: dict[str, str], **options) -> Path:
    """A sound file of ``tensors``."""
    with written(path, header_room((name, x.ndim) for name, x in tensors.items()), **options) as out:
        for name, values in tensors.items():
            out.add(name, dtypes[name], values.shape, [values])
    return path
