"""Files that are no safetensors are named for what their bytes are, whatever they are called."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.file_kinds import kind_of
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint


def zipped(*members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.writestr(member, b"1234567890" * 9)
    return file.getvalue()


def saved(save: object, *arguments: object) -> bytes:
    file = io.BytesIO()
    save(file, *arguments)  # type: ignore[operator]
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    return file.getvalue()


KINDS = {
    "GGUF": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "is a GGUF file, .* lscd weights import .*x.st FOLDER makes"),
    "GGML": (b"tjgg" + bytes(60), "is a GGML file of before GGUF"),
    "PyTorch": (
        zipped("archive/data.pkl", "archive/data/0"),
        "is a PyTorch file .*, because a pickle runs code",
    ),
    "PyTorch, named": (zipped("model/data.pkl"), "save_pretrained"),
    "PyTorch of old": (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + bytes(99),
        "is a pickle .*, because a pickle runs code",
    ),
    "pickle": (pickle.dumps({"w": [1.0] * 99}, 4), "is a pickle"),
    "NumPy": (saved(np.save, np.ones((9, 9))), r"is a NumPy file \(.npy\)"),
    "NumPy archive": (saved(lambda file: np.savez(file, w=np.ones((9, 9)))), r"is a NumPy archive \(.npz\)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    "ONNX": (b"\x08\x07\x12\x07pytorch" + bytes(99), "is an ONNX model, .*: start from the checkpoint it was exported"),
    "TensorRT": (b"ftrt" + bytes(99), "is a TensorRT engine, .*: holds a compiled model"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(99), "is a TensorFlow Lite model"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "is compressed, .*: unpack it first"),
    "ZIP": (zipped("readme.txt"), "is a ZIP archive"),
    "tar": (tar(), "is a tar archive"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "empty": (b"", "is empty"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.st", "model.safetensors", "pytorch_model.bin"])
def test_first_bytes_name_the_file(tmp_path: Path, kind: str, name: str) -> None:
    data, message = KINDS[kind]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message.replace("x.st", name)) as refused:
        open_checkpoint(path)
    assert str(path) in str(refused.value)
    assert "FILE" not in str(refused.value)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path(trap).mkdir, ()  # type: ignore[return-value]

    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ValueError, match="a pickle runs code"):
        open_checkpoint(path)
    assert not trap.exists()


def test_what_a_folder_has_instead(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder without model\.safetensors\.index\.json or model\.safetensors$"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(zipped("archive/data.pkl"))
    with pytest.raises(ValueError, match=r"it has 'pytorch_model.bin', a PyTorch file .*: it is not opened"):
        open_checkpoint(tmp_path)
    for letter in "abcd":
        (tmp_path / f"{letter}.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"it has 'a.safetensors', 'b.safetensors', 'c.safetensors' and 2 more"):
        open_checkpoint(tmp_path)


def test_unknown_bytes_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(99))
    assert kind_of(path) is None
    with pytest.raises(ValueError, match="no regular file"):
        open_checkpoint("/dev/zero")
