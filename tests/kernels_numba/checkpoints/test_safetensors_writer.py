"""Writing safetensors files: aligned, whole or not at all, and never more than announced."""

from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.safetensors_reader import STORAGE, open_checkpoint
from kernels_numba.checkpoints.safetensors_writer import aligned_order, written
from tests.kernels_numba.checkpoints.files import save


def test_widest_first_aligns_every_tensor(tmp_path: Path) -> None:
    dtypes = {"a": "U8", "b": "F32", "c": "F16", "d": "I64"}
    tensors = {name: np.zeros(3, STORAGE[dtypes[name]]) for name in aligned_order(dtypes)}
    checkpoint = open_checkpoint(save(tmp_path / "x.safetensors", tensors, dtypes))
    assert list(checkpoint.tensors) == ["d", "b", "c", "a"]
    assert all(info.start % STORAGE[info.dtype].itemsize == 0 for info in checkpoint.tensors.values())


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def fail() -> None:
        with written(path, 999) as out:
            out.add("a", "U8", (3,), [np.zeros(3, np.uint8)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "shape", "size", "room", "message"),
    [
        ("b", (3,), 2, 999, "b has 2 bytes; U8 .* needs 3"),
        ("a", (3,), 3, 999, "'a' is there already"),
        ("__metadata__", (3,), 3, 999, "'__metadata__' is there already"),
        ("b", (3,), 3, 8, "header of .* bytes; allowed: 8"),
    ],
)
def test_the_writer_refuses(tmp_path: Path, name, shape, size, room, message) -> None:
    def write() -> None:
        with written(tmp_path / "x.safetensors", room) as out:
            out.add("a", "U8", (3,), [np.zeros(3, np.uint8)])
            out.add(name, "U8", shape, [np.zeros(size, np.uint8)])

    with pytest.raises(ValueError, match=message):
        write()
    assert not list(tmp_path.iterdir())
