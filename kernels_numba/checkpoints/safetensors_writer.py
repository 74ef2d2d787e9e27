"""Safetensors files written tensor by tensor: memory holds one chunk, and the file appears whole or not at all.

The header stands first but is known last, so room is left for it and filled up with spaces, which the format allows.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.safetensors_reader import BITS, MAX_HEADER_BYTES, METADATA, STORAGE
from kernels_numba.files import written_whole

ALIGNMENT = 8  # of padded files, so that other readers may map their tensors
PADDING = "__pad__."  # the format allows no gaps: tensors of this name fill them


class TensorWriter:
    """Writes one file, tensor after tensor; made by ``written``.

    ``metadata`` may be set until the end. ``digests`` holds the SHA-256 of each tensor's bytes.
    """

    def __init__(self, file: BinaryIO, path: Path, room_bytes: int, padded: bool) -> None:
        self.metadata: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self._file, self._path, self._padded = file, path, padded
        self._room = -(-room_bytes // ALIGNMENT) * ALIGNMENT
        self._position = 0
        file.seek(8 + self._room)

    def add(self, name: str, dtype: str, shape: Sequence[int], chunks: Iterable[NDArray[Any]]) -> None:
        """Append a tensor whose bytes come in ``chunks``; ValueError if they do not fill ``shape``."""
        gap = -self._position % ALIGNMENT
        if gap and self._padded:
            self._append(f"{PADDING}{len(self.entries)}", "U8", (gap,), [np.zeros(gap, np.uint8)])
        self._append(name, dtype, shape, chunks)

    def _append(self, name: str, dtype: str, shape: Sequence[int], chunks: Iterable[NDArray[Any]]) -> None:
        if name in self.entries or name == METADATA:
            raise ValueError(f"{self._path}: tensor {name!r} is there already; allowed: each name once")
        start, digest = self._position, hashlib.sha256()
        for chunk in chunks:
            data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
            digest.update(data)
            self._file.write(data)
            self._position += len(data)
        wanted, rest = divmod(math.prod(shape) * BITS[dtype], 8)
        if rest:
            raise ValueError(f"{self._path}: {name}: {dtype} {shape} ends within a byte; allowed: whole bytes")
        if self._position - start != wanted:
            raise ValueError(f"{self._path}: {name} has {self._position - start} bytes; {dtype} {shape} needs {wanted}")
        offsets = [start, self._position]
        self.entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        self.digests[name] = digest.hexdigest()

    def finish(self) -> None:
        """Write the header into the room left for it, padded with spaces as the format allows."""
        header = {METADATA: self.metadata, **self.entries} if self.metadata else self.entries
        text = json.dumps(header, separators=(",", ":")).encode()
        if len(text) > min(self._room, MAX_HEADER_BYTES):
            raise ValueError(f"{self._path}: header of {len(text)} bytes; allowed: {min(self._room, MAX_HEADER_BYTES)}")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + text.ljust(self._room))


@contextmanager
def written(path: str | Path, room_bytes: int, *, padded: bool = False) -> Iterator[TensorWriter]:
    """Writer of a safetensors file that appears, whole, only if the block succeeds.

    Parameters
    ----------
    room_bytes : space kept for the header; ``header_room`` bounds it.
    padded : start every tensor at a multiple of 8 bytes, with ``__pad__.`` tensors in the gaps. Without it, tensors
        are aligned to their own width if they come in ``aligned_order``.
    """
    with written_whole(path) as partial, partial.open("wb") as file:
        writer = TensorWriter(file, Path(path), room_bytes, padded)
        yield writer
        writer.finish()
        file.flush()
        os.fsync(file.fileno())


def aligned_order(tensors: Mapping[str, str]) -> list[str]:
    """Names of ``tensors`` (name to dtype), widest values first, so that each starts at a multiple of its width."""
    return sorted(tensors, key=lambda name: -STORAGE[tensors[name]].itemsize)


def header_room(tensors: Iterable[tuple[str, int]], metadata: Mapping[str, str] | None = None) -> int:
    """Bytes no header of ``tensors`` (name, number of dimensions) exceeds, alignment padding included."""
    number = 20  # digits of 2**64 and a comma
    fixed = len(json.dumps({"dtype": max(BITS, key=len), "shape": [], "data_offsets": []})) + 2 * number + 4
    padding = len(PADDING) + number + fixed + number
    total = sum(len(json.dumps(name)) + fixed + padding + number * rank for name, rank in tensors)
    return total + len(json.dumps({METADATA: dict(metadata or {})})) + ALIGNMENT
