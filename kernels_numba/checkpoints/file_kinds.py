"""What a file is that is no safetensors file, by its first bytes, and what to do with it.

Names of files are not trusted, and nothing is opened that could run code.
"""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 512
NAMED = 3  # files of a folder that a message lists
SAVE_AS = "load it where you trust it and save it as safetensors (save_pretrained, or safetensors.torch.save_file)"
PICKLE = f"it is not opened, because a pickle runs code; {SAVE_AS}"
COMPILED = "holds a compiled model: start from the checkpoint it was built from"
UNPACK = "unpack it first"
# First bytes -> what it is, and the way out.
MAGIC: dict[bytes, tuple[str, str]] = {
    b"GGUF": ("a GGUF file", "lscd weights import FILE FOLDER makes safetensors of it"),
    **dict.fromkeys(
        (b"ggml", b"lmgg", b"ggjt", b"tjgg", b"ggla", b"fmgg"),
        ("a GGML file of before GGUF", "convert it with llama.cpp to GGUF, or start from the original checkpoint"),
    ),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file (Keras, .h5)", SAVE_AS),
    b"\x93NUMPY": ("a NumPy file (.npy)", "save it as safetensors (safetensors.numpy.save_file)"),
    **dict.fromkeys((b"ptrt", b"ftrt"), ("a TensorRT engine", COMPILED)),
    b"version https://git-lfs": ("a Git LFS pointer, not the weights themselves", "git lfs pull fetches them"),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"), ("compressed", UNPACK)),
    b"PAR1": ("a Parquet file", "allowed are safetensors"),
    b"SQLite format 3": ("an SQLite database", "allowed are safetensors"),
    b"\x7fELF": ("a compiled program or library", "allowed are safetensors"),
    b"%PDF": ("a PDF document", "allowed are safetensors"),
}
WEB_PAGES = (b"<!doctype html", b"<html")
ONNX_FIELDS = b"\x12\x1a\x22\x2a\x32\x3a\x42"  # what may follow the version in the message ModelProto


def kind_of(path: Path) -> tuple[str, str] | None:
    """What a regular file is and what to do with it; None if its first bytes say nothing known."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "empty", "is its download complete?"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _archive(head)
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle (PyTorch of before 1.6, or Python's own)", PICKLE
    if head[257:262] == b"ustar":
        return "a tar archive", UNPACK
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", COMPILED
    if head[0] == 0x08 and 1 <= head[1] <= 30 and head[2:3] in [bytes([field]) for field in ONNX_FIELDS]:
        return "an ONNX model", "start from the checkpoint it was exported from"
    if head.lstrip().lower().startswith(WEB_PAGES):
        return "a web page, not the weights themselves", "was the download refused?"
    return None


def starts_with(path: Path, magic: bytes) -> bool:
    """Whether a regular file begins with ``magic``."""
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def refuse_other_kind(path: Path) -> None:
    """ValueError that names what ``path`` is, if its first bytes say so."""
    if kind := kind_of(path):
        raise ValueError(f"{path} is {kind[0]}, no safetensors file: {kind[1].replace('FILE', str(path))}")


def others_in(folder: Path) -> str:
    """What a folder has in place of safetensors, as the end of a sentence; nothing if it has nothing of the kind."""
    suffixes = (".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".npz", ".msgpack", ".safetensors")
    found = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    listed = f"; it has {', '.join(map(ascii, found[:NAMED]))}{more}"
    if any(name.endswith(".safetensors") for name in found):
        return f"{listed}: name the file"
    kind = kind_of(folder / found[0])
    return listed + (f", {kind[0]}: {kind[1].replace('FILE', str(folder / found[0]))}" if kind else "")


def _archive(head: bytes) -> tuple[str, str]:
    """A ZIP archive by the name of its first member."""
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length]
    if name.endswith((b"data.pkl", b"/version", b".format_version", b"byteorder", b".storage_alignment")):
        return "a PyTorch file (.pt, .bin: a pickle within a ZIP archive)", PICKLE
    if name.endswith(b".npy"):
        return "a NumPy archive (.npz)", "save its arrays as safetensors (safetensors.numpy.save_file)"
    return "a ZIP archive", UNPACK
