"""A quantised or compressed checkpoint as a folder of whole matrices, which everything else here reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kernels_numba.checkpoints.float_values import DTYPES, in_dtype
from kernels_numba.checkpoints.folders import WEIGHTS, copy_companions, new_folder, write_json
from kernels_numba.checkpoints.layouts.pieces import Packed
from kernels_numba.checkpoints.layouts.recognise import CONFIG_KEYS, packed_matrices
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, parse_json
from kernels_numba.checkpoints.safetensors_writer import aligned_order, header_room, written
from kernels_numba.formats.encoded import check


def dequantise(
    source: Checkpoint, folder: str | Path, dtype: str = "float16", progress: Callable[[str], None] = lambda name: None
) -> list[Packed]:
    """Matrices that were stored in pieces, each now one tensor of the weights in ``folder``; all others are copied.

    Memory holds one matrix. Its ``config.json`` no longer speaks of quantisation.

    Parameters
    ----------
    dtype : "float16", values rounded to nearest, or "float32".

    Raises
    ------
    ValueError
        If nothing is stored in pieces, a matrix cannot be decoded or overflows, its name is taken, the dtype is
        unknown, or the folder holds something; names it.
    """
    check(dtype in DTYPES, "dtype", repr(dtype), ", ".join(DTYPES))
    packed = packed_matrices(source)
    check(bool(packed), str(source.path), "holds no matrix in pieces", "a quantised checkpoint, or a GGUF file")
    for matrix in packed:
        what = f"{matrix.what}, which is not decoded: {matrix.obstacle}"
        check(matrix.decoder is not None, f"{source.path}: matrix {matrix.name!r}", what, "a layout that is")
    with new_folder(folder) as partial:
        _write(source, {matrix.name: matrix for matrix in packed}, partial / WEIGHTS, dtype, progress)
        copy_companions(source, partial)
        _forget_quantisation(partial / "config.json", dtype)
    return packed


def _write(
    source: Checkpoint, packed: dict[str, Packed], target: Path, dtype: str, progress: Callable[[str], None]
) -> None:
    parts = {part for matrix in packed.values() for part in matrix.parts}
    others = {name: info.dtype for name, info in source.tensors.items() if name not in parts}
    clash = sorted(others.keys() & packed.keys())
    check(not clash, str(source.path), f"matrix {clash[:1]} is there twice", "each name once")
    ranks = [(name, 2) for name in packed] + [(name, len(source.info(name).shape)) for name in others]
    with written(target, header_room(ranks)) as out:
        out.metadata = {"format": "pt"}
        for name in aligned_order(others | dict.fromkeys(packed, DTYPES[dtype])):
            if name in others:
                info = source.info(name)
                out.add(name, info.dtype, info.shape, source.chunks(name))
            else:
                values, where = packed[name].values(), f"{source.path}: matrix {name!r}"
                check(np.isfinite(values).all(), where, "codes and scales give inf or NaN", "finite weights")
                values = in_dtype(values, dtype, where)
                out.add(name, DTYPES[dtype], values.shape, [values])
            progress(name)


def _forget_quantisation(config: Path, dtype: str) -> None:
    """Take out of a config what no longer holds; nothing where there is none."""
    if config.is_file():
        content = parse_json(config.read_bytes(), config)
        kept = {key: value for key, value in content.items() if key not in (*CONFIG_KEYS, "torch_dtype")}
        write_json(config, kept | {"dtype": dtype})
