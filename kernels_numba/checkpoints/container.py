"""Encoded weights on disk: a safetensors file whose matrices are stored as the buffers of a sparse format.

Layout, version 1. Any safetensors reader can open the file. A weight ``w`` in format ``tiled-csl`` is stored as the
tensors ``w.words`` and ``w.tile_offsets``: the buffers of its encoding, in its own dtypes, named as the fields of
``kernels_numba.formats``. Tensors that were not encoded keep name and bytes. ``__metadata__`` holds

``format``
    ``lscd-weights``
``lscd_version``
    ``1``
``lscd_weights``
    JSON by weight name: ``format``, ``shape`` [m, k], ``element`` (number format of the values), ``source_dtype``.
``lscd_sha256``
    JSON by tensor name: SHA-256 of the tensor's bytes.
``lscd_header_sha256``
    SHA-256 of the header itself: canonical JSON of all the above and of every tensor's dtype, shape and offsets.

A weight comes back bit for bit, except that -0.0 comes back as +0.0, and that the formats named after a type of values
(``bitmap-int8``, ``bitmap-e4m3`` ...) round each weight to a code times a scale. Reading checks the header's digest
first, then each tensor's, then the encoding itself (``validate``), so no decoder ever sees a corrupt buffer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.checkpoint import check_target, whole_shapes
from kernels_numba.checkpoints.encodings import BUFFERS, code_error, encode, holds_same, rebuild
from kernels_numba.checkpoints.float_values import DTYPE_NAMES, ELEMENTS, Rounding
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, TensorInfo, open_checkpoint, parse_json
from kernels_numba.checkpoints.safetensors_writer import PADDING, TensorWriter, aligned_order, header_room, written
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import check

FORMAT, VERSION = "lscd-weights", "1"
MAX_ELEMENTS = 1 << 36  # of one weight: 128 GiB decoded; a corrupt shape must not make a reader allocate more
_DTYPES = {
    np.dtype("<u8"): "U64", np.dtype("<u4"): "U32", np.dtype("<i4"): "I32", np.dtype("<u2"): "U16",
    np.dtype("<u1"): "U8", np.dtype("<f2"): "F16",
}  # fmt: skip
_DIGEST = "lscd_header_sha256"


@dataclass(frozen=True)
class Converted:
    """Outcome for one weight: bytes before and after, non-zeros kept, and what rounding to float16 changed.

    code_error : what codes and scales changed, as `encodings.code_error`.
    """

    source_bytes: int
    encoded_bytes: int
    nnz: int
    rounding: Rounding
    code_error: float = 0.0


@dataclass(frozen=True)
class EncodedCheckpoint:
    """An opened container.

    weights : format, shape, element and source dtype of each encoded weight.
    plain : names of the tensors that are not encoded.
    """

    checkpoint: Checkpoint
    weights: dict[str, dict[str, Any]]
    plain: list[str]
    digests: dict[str, str]

    def weight(self, name: str) -> EncodedWeight:
        """Encoded weight ``name``, its checksums and its encoding verified; ValueError if anything is wrong."""
        check(name in self.weights, f"{self.checkpoint.path}: weight", repr(name), f"one of its {len(self.weights)}")
        entry = self.weights[name]
        buffers = {buffer: self.tensor(f"{name}.{buffer}") for buffer in BUFFERS[entry["format"]]}
        try:
            return rebuild(entry, buffers)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.checkpoint.path}: weight {name!r}: {error}") from None

    def tensor(self, name: str) -> NDArray[Any]:
        """Tensor ``name`` as stored, its checksum verified."""
        values = self.checkpoint.read(name)
        self._check(name, hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest())
        return values

    def check_plain(self, name: str) -> None:
        """Verify the checksum of a tensor without holding it in memory."""
        self._check(name, _digest(self.checkpoint, name))

    def _check(self, name: str, digest: str) -> None:
        if digest != self.digests[name]:
            raise ValueError(f"{self.checkpoint.path}: tensor {name!r} is corrupt: its checksum differs")


def convert_checkpoint(
    source: Checkpoint,
    target: str | Path,
    format_name: str,
    names: Sequence[str],
    *,
    keep_dtype: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Converted]:
    """Write ``source`` to ``target`` with the matrices ``names`` encoded; errors as ``encode``, naming the tensor."""
    check(format_name in BUFFERS, "format", format_name, ", ".join(BUFFERS))
    check(not is_encoded(source), str(source.path), "encoded already", "a plain checkpoint; decode it first")
    check_target(source, target)
    reserved = [name for name in source.tensors if name.startswith(PADDING)]
    check(not reserved, str(source.path), f"tensor {reserved[:1]}", f"names that do not begin with {PADDING}")
    whole_shapes(source, names)
    found: dict[str, Converted] = {}
    weights = {name: _entry(source.info(name), format_name, keep_dtype) for name in names}
    with written(target, _room(source, weights), padded=True) as out:
        for name, info in source.tensors.items():
            if name not in weights:
                out.add(name, info.dtype, info.shape, source.chunks(name))
            else:
                try:
                    values = source.read(name)
                    encoded, rounding = encode(values, info.dtype, format_name, keep_dtype=keep_dtype)
                except ValueError as error:
                    raise ValueError(f"{info.path}: tensor {name!r}: {error}") from None
                _add_weight(out, name, encoded)
                cost = code_error(values, info.dtype, encoded)
                found[name] = Converted(info.nbytes, encoded.nbytes, encoded.nnz, rounding, cost)
            progress(name)
        _seal(out, weights, source.metadata)
    return found


def decode_checkpoint(
    source: EncodedCheckpoint, target: str | Path, progress: Callable[[str], None] = lambda name: None
) -> None:
    """Write a plain safetensors file of dense matrices, in the dtype the container stores; checksums are verified."""
    check_target(source.checkpoint, target)
    metadata = {key: text for key, text in source.checkpoint.metadata.items() if not key.startswith("lscd_")}
    metadata["format"] = "pt"
    room = header_room([(name, 2) for name in source.weights] + _ranks(source.checkpoint, source.plain), metadata)
    with written(target, room) as out:
        out.metadata = metadata
        dtypes = {name: source.checkpoint.info(name).dtype for name in source.plain}
        encoded = {name: DTYPE_NAMES[entry["element"]] for name, entry in source.weights.items()}
        for name in aligned_order(dtypes | encoded):
            if name in encoded:
                out.add(name, encoded[name], source.weights[name]["shape"], [source.weight(name).decode()])
            else:
                source.check_plain(name)
                out.add(name, dtypes[name], source.checkpoint.info(name).shape, source.checkpoint.chunks(name))
            progress(name)


def verify(
    source: Checkpoint, container: EncodedCheckpoint, progress: Callable[[str], None] = lambda name: None
) -> int:
    """Compare every tensor of a container with the checkpoint it was made from, bit for bit.

    Values are compared as the container holds them (after rounding to float16, or to codes and scales, if it does), and
    -0.0 equals +0.0.

    Returns
    -------
    int
        Tensors compared.

    Raises
    ------
    ValueError
        Naming the first tensor that is missing or differs.
    """
    present = set(container.weights) | set(container.plain)
    for name, info in source.tensors.items():
        check(name in present, str(container.checkpoint.path), f"lacks tensor {name!r}", "every tensor of the source")
        if name in container.weights:
            same = holds_same(source.read(name), info.dtype, container.weight(name))
        else:
            container.check_plain(name)
            same = _digest(source, name) == container.digests[name]
        check(same, str(container.checkpoint.path), f"tensor {name!r} differs from the source", "the same values")
        progress(name)
    check(len(present) == len(source.tensors), str(container.checkpoint.path), "holds tensors", "only the source's")
    return len(present)


def is_encoded(checkpoint: Checkpoint) -> bool:
    """Whether a file says that it is a container of encoded weights."""
    return checkpoint.metadata.get("format") == FORMAT


def open_encoded(path: str | Path) -> EncodedCheckpoint:
    """Open a container and check its header; ValueError, naming the file, if it is none or not intact."""
    checkpoint = open_checkpoint(path)
    metadata = checkpoint.metadata
    where = str(checkpoint.path)
    check(is_encoded(checkpoint), where, "holds no encoded weights", f"files made by `lscd weights convert` ({FORMAT})")
    check(metadata.get("lscd_version") == VERSION, where, f"version {metadata.get('lscd_version')!a}", VERSION)
    entries = {name: _header_entry(info, checkpoint) for name, info in checkpoint.tensors.items()}
    check(_header_digest(metadata, entries) == metadata.get(_DIGEST), where, "corrupt header", "an intact checksum")
    weights = parse_json(metadata.get("lscd_weights", ""), where)
    digests = parse_json(metadata.get("lscd_sha256", ""), where)
    buffers: set[str] = set()
    for name, entry in weights.items():
        _check_entry(entry, f"{where}: weight {name!a}")
        buffers |= {f"{name}.{buffer}" for buffer in BUFFERS[entry["format"]]}
    check(buffers <= set(entries), where, f"lacks {sorted(buffers - set(entries))[:1]}", "the buffers of every weight")
    check(digests.keys() == entries.keys(), where, "checksums of other tensors", "one for each tensor")
    plain = [name for name in entries if name not in buffers and not name.startswith(PADDING)]
    check(not set(plain) & set(weights), where, "a tensor that is also a weight", "each name once")
    return EncodedCheckpoint(checkpoint, weights, plain, digests)


def _entry(info: TensorInfo, format_name: str, keep_dtype: bool) -> dict[str, Any]:
    element = ELEMENTS[info.dtype] if keep_dtype else Element.FLOAT16
    return {"format": format_name, "shape": list(info.shape), "element": str(element), "source_dtype": info.dtype}


def _check_entry(entry: Any, where: str) -> None:
    keys = {"format", "shape", "element", "source_dtype"}
    check(isinstance(entry, dict) and entry.keys() == keys, where, "other keys", ", ".join(sorted(keys)))
    check(entry["format"] in tuple(BUFFERS), where, f"format {entry['format']!a}", ", ".join(BUFFERS))
    check(entry["element"] in tuple(Element), where, f"element {entry['element']!a}", ", ".join(Element))
    check(
        entry["source_dtype"] in tuple(ELEMENTS), where, f"source_dtype {entry['source_dtype']!a}", ", ".join(ELEMENTS)
    )
    shape = entry["shape"]
    ok = isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)
    check(ok and shape[0] * shape[1] <= MAX_ELEMENTS, where, f"shape {shape!a}", f"[m, k], up to {MAX_ELEMENTS} in all")


def _add_weight(out: TensorWriter, name: str, encoded: EncodedWeight) -> None:
    for buffer, array in encoded.buffers.items():
        values = buffer.endswith("values")
        dtype = DTYPE_NAMES[encoded.element] if values else _DTYPES[array.dtype]
        out.add(f"{name}.{buffer}", dtype, array.shape, [array])


def _digest(checkpoint: Checkpoint, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in checkpoint.chunks(name):
        digest.update(chunk.data)
    return digest.hexdigest()


def _ranks(checkpoint: Checkpoint, names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, len(checkpoint.info(name).shape)) for name in names]


def _room(source: Checkpoint, weights: dict[str, dict[str, Any]]) -> int:
    """Room for the header of the container: entries, and metadata with a digest for each."""
    buffers = [(f"{name}.{buffer}", 2) for name, entry in weights.items() for buffer in BUFFERS[entry["format"]]]
    tensors = buffers + _ranks(source, [name for name in source.tensors if name not in weights])
    padding = [(f"{PADDING}{index}", 1) for index in range(len(tensors))]
    digests = {name: "0" * 64 for name, _ in tensors + padding}
    metadata = _metadata(weights, digests, source.metadata) | {_DIGEST: "0" * 64}
    return header_room(tensors, metadata)


def _metadata(
    weights: dict[str, dict[str, Any]], digests: dict[str, str], source_metadata: dict[str, str]
) -> dict[str, str]:
    own = {
        "format": FORMAT,
        "lscd_version": VERSION,
        "lscd_weights": json.dumps(weights),
        "lscd_sha256": json.dumps(digests),
    }
    return source_metadata | own


def _seal(out: TensorWriter, weights: dict[str, dict[str, Any]], source_metadata: dict[str, str]) -> None:
    metadata = _metadata(weights, out.digests, source_metadata)
    out.metadata = metadata | {_DIGEST: _header_digest(metadata, out.entries)}


def _header_digest(metadata: dict[str, str], entries: dict[str, dict[str, Any]]) -> str:
    content = [{key: text for key, text in metadata.items() if key != _DIGEST}, entries]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _header_entry(info: TensorInfo, checkpoint: Checkpoint) -> dict[str, Any]:
    """Header entry of a tensor, offsets counted from the first tensor as in the file."""
    first = next(iter(checkpoint.tensors.values())).start
    return {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start - first, info.stop - first]}
