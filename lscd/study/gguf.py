"""A GGUF file of quantised weights as safetensors of dequantised float16 ones, for studies of real masks.

    python -m lscd.study.gguf IN.gguf OUT.safetensors

Needs the PyPI package gguf, which nothing else here does. Matrices keep their names and order of rows; a value is one
of few multiples of its block's scale, so that many of a row are equally large.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kernels_numba.checkpoints.safetensors_writer import header_room, written


def rewrite(source: Path, target: Path) -> int:
    """Write the matrices of ``source`` to ``target``; return how many there are."""
    import gguf

    matrices = [tensor for tensor in gguf.GGUFReader(source).tensors if len(tensor.shape) == 2]
    with written(target, header_room((str(tensor.name), 2) for tensor in matrices)) as out:
        for tensor in matrices:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
            out.add(str(tensor.name), "F16", values.shape, [values])
    return len(matrices)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m lscd.study.gguf IN.gguf OUT.safetensors")
    sys.stderr.write(f"{rewrite(Path(sys.argv[1]), Path(sys.argv[2]))} matrices\n")


if __name__ == "__main__":
    main()
