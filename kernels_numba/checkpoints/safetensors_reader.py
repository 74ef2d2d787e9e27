"""Safetensors files of any size, read tensor by tensor or row by row.

A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes. Its header is treated as
hostile: everything in it is checked before a single byte of data is read, and every error names the file. Memory in
use is what the caller asks for, one tensor or one block of rows, never the file. Written here rather than taken from
the ``safetensors`` package, because its NumPy side returns whole tensors, knows no bfloat16 and no float below 16 bits
without ``ml_dtypes``, says of a bad header neither file nor tensor, and writes a file from tensors which are all in
memory; what is left of it, the header, is short. What bytes of 8 bits and less stand for is in `small_floats`.

bfloat16 travels as uint16 bit patterns, 8-bit floats and booleans as uint8, floats of 4 and 6 bits as the bytes that
hold them, in one dimension.

References
----------
Hugging Face, "Safetensors", README, section "Format".
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.file_kinds import others_in, refuse_other_kind
from kernels_numba.files import read_small, readable

MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
MAX_DIMENSIONS = 16
CHUNK_BYTES = 1 << 26  # what a block of rows or a copy holds at a time
METADATA = "__metadata__"
STORAGE: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(("BOOL", "U8", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0"), np.dtype(np.uint8)),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), np.dtype(np.uint8)), "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"), "I16": np.dtype("<i2"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "F64": np.dtype("<f8"), "C64": np.dtype("<c8"),
}  # fmt: skip
# Bits of one value; types of less than a byte fill whole bytes tensor by tensor.
BITS = {dtype: 8 * stored.itemsize for dtype, stored in STORAGE.items()} | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor is.

    path : file that holds it.
    dtype : safetensors name, a key of ``STORAGE``.
    start, stop : bytes from the file's beginning.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.stop - self.start


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of one file, or of all files a sharded checkpoint's index names.

    tensors : by name, in the order they lie in the files.
    metadata : text by key; of a sharded checkpoint, its first file's.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    def info(self, name: str) -> TensorInfo:
        """Where tensor ``name`` is; ValueError if there is none."""
        if name not in self.tensors:
            raise ValueError(f"{self.path}: no tensor {name!r} among its {len(self.tensors)}")
        return self.tensors[name]

    def read(self, name: str) -> NDArray[Any]:
        """Tensor ``name`` in its storage dtype; ValueError if the file has become shorter."""
        info = self.info(name)
        stored = STORAGE[info.dtype]
        whole = BITS[info.dtype] == 8 * stored.itemsize
        out = np.empty(info.shape if whole else (info.nbytes,), stored)
        if out.size:
            _fill(info, info.start, out)
        return out

    def row_blocks(self, name: str, multiple: int, limit_bytes: int = CHUNK_BYTES) -> Iterator[NDArray[Any]]:
        """Consecutive rows of matrix ``name``: blocks of ``multiple`` rows, as many as fit into ``limit_bytes``."""
        info = self.info(name)
        rows, columns = info.shape
        row_bytes = columns * STORAGE[info.dtype].itemsize
        height = multiple * max(1, limit_bytes // (multiple * row_bytes))
        for first in range(0, rows, height):
            block = np.empty((min(height, rows - first), columns), STORAGE[info.dtype])
            _fill(info, info.start + first * row_bytes, block)
            yield block

    def chunks(self, name: str) -> Iterator[NDArray[np.uint8]]:
        """Bytes of tensor ``name``, ``CHUNK_BYTES`` at a time."""
        info = self.info(name)
        for first in range(info.start, info.stop, CHUNK_BYTES):
            chunk = np.empty(min(CHUNK_BYTES, info.stop - first), np.uint8)
            _fill(info, first, chunk)
            yield chunk


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read the header of a safetensors file, or all headers of a sharded checkpoint.

    Parameters
    ----------
    path : a ``.safetensors`` file, a ``.safetensors.index.json``, or a folder that holds one of them
        (``model.safetensors`` or ``model.safetensors.index.json``).

    Raises
    ------
    ValueError
        If a file is missing, truncated or inconsistent; the message names the file, the tensor and what is wrong.
    """
    path = Path(path)
    if path.is_dir():
        choices = [path / "model.safetensors.index.json", path / "model.safetensors"]
        found = [choice for choice in choices if choice.is_file()]
        if not found:
            wanted = " or ".join(choice.name for choice in choices)
            raise ValueError(f"{path}: a folder without {wanted}{others_in(path)}")
        path = found[0]
    if not path.is_file():
        raise ValueError(f"{path}: {'no regular file' if path.exists() else 'no such file'}")
    return _open_shards(path) if path.suffix == ".json" else _open_file(path)


def parse_json(text: str | bytes, what: object) -> dict[str, Any]:
    """JSON object in which no key comes twice; ValueError naming ``what`` for anything else."""
    try:
        parsed = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{what}: header nests too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what}: header is no valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what}: header is {type(parsed).__name__}; allowed: an object")
    return parsed


def _fill(info: TensorInfo, start: int, out: NDArray[Any]) -> None:
    """Read ``out`` from byte ``start`` of the file."""
    view = out.reshape(-1).view(np.uint8).data
    with info.path.open("rb", buffering=0) as file:
        file.seek(start)
        done = 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise ValueError(f"{info.path}: truncated within tensor {info.name!r}")
            done += count


def _open_file(path: Path) -> Checkpoint:
    size = readable(path).stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            refuse_other_kind(path)
            allowed = min(max(size - 8, 0), MAX_HEADER_BYTES)
            raise ValueError(f"{path}: header length is {length} bytes; allowed: at most {allowed}")
        text = file.read(length)
    if not text.startswith(b"{"):
        refuse_other_kind(path)
        raise ValueError(f"{path}: not a safetensors file: its header does not begin with '{{'")
    header = parse_json(text, path)
    metadata = _checked_metadata(header.pop(METADATA, {}), path)
    tensors = {name: _checked_entry(name, entry, path, 8 + length) for name, entry in header.items()}
    return Checkpoint(path, _checked_layout(tensors, path, 8 + length, size), metadata)


def _checked_metadata(metadata: Any, path: Path) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: {METADATA} must map text to text")
    return metadata


def _checked_entry(name: str, entry: Any, path: Path, data_start: int) -> TensorInfo:
    """One header entry as a record, its byte range checked against dtype and shape."""
    if not name or not name.isprintable():
        raise ValueError(f"{path}: tensor name {name!a}; allowed: printable characters")
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where}: keys must be dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in STORAGE:
        raise ValueError(f"{where}: dtype {ascii(dtype)[:40]}; allowed: {', '.join(STORAGE)}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{where}: shape {ascii(shape)[:80]}; allowed: up to {MAX_DIMENSIONS} sizes of at least 0")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{where}: data_offsets {ascii(offsets)[:80]}; allowed: [begin, end], begin <= end")
    needed, rest = divmod(math.prod(shape) * BITS[dtype], 8)
    if rest:
        raise ValueError(f"{where}: {dtype} {shape} ends within a byte; allowed: shapes that fill whole bytes")
    if offsets[1] - offsets[0] != needed:
        raise ValueError(f"{where}: {offsets[1] - offsets[0]} bytes; {dtype} {shape} needs {needed}")
    return TensorInfo(path, name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _checked_layout(tensors: dict[str, TensorInfo], path: Path, data_start: int, size: int) -> dict[str, TensorInfo]:
    """Tensors in file order; refused unless they cover the data exactly, without overlap, gap or rest."""
    ordered = sorted(tensors.values(), key=lambda info: (info.start, info.stop))
    position = data_start
    for info in ordered:
        if info.start != position:
            fault = "overlaps its predecessor" if info.start < position else "follows a gap"
            raise ValueError(f"{path}: tensor {info.name!r} {fault}: begins at byte {info.start}, allowed: {position}")
        position = info.stop
    if position != size:
        what = "is truncated" if position > size else "has bytes no tensor owns"
        raise ValueError(f"{path}: {what}: {size} bytes, its header says {position}")
    return {info.name: info for info in ordered}


def _open_shards(path: Path) -> Checkpoint:
    """Every tensor of a sharded checkpoint; the index may name files of its own folder only."""
    weight_map = parse_json(read_small(path), path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path}: no weight_map; allowed: an object of tensor names and files")
    for file in weight_map.values():
        plain = isinstance(file, str) and file.isprintable() and not set(file) & set("/\\:")
        if not plain or not file.endswith(".safetensors"):
            raise ValueError(f"{path}: file {ascii(file)[:80]}; allowed: plain names ending in .safetensors")
    shards = [open_checkpoint(path.parent / file) for file in sorted(set(weight_map.values()))]
    tensors = {name: info for shard in shards for name, info in shard.tensors.items()}
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].path.name != file:
            raise ValueError(f"{path}: tensor {ascii(name)[:80]} is not in {file}")
    if sum(len(shard.tensors) for shard in shards) != len(weight_map):
        raise ValueError(f"{path}: names {len(weight_map)} tensors; its files hold more, or one twice")
    return Checkpoint(path, tensors, shards[0].metadata)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {ascii(twice)[:80]} comes twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
