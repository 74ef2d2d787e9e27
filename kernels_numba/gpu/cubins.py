"""Machine code and PTX kept on disk, by what they were made from.

Compiling all variants takes minutes, and needs compilers that a machine with a GPU need not have. So machine code, and
the PTX that the emulator runs, is kept in ``$LSCD_CUBINS``, else in ``cubins`` of the user's cache, under a hash of
everything that decides it: the sources of the rooms `gpu` and `formats`, the variant, the architecture, and the
compilers' versions.

A folder with a manifest (`gpu.build` writes it) was made to be carried: its compilers' versions are those that the
manifest names, whatever is installed here, and nothing is added to it. A cache may vanish at any time: what cannot be
read or written is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from kernels_numba.gpu import toolchain

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PTX = "ptx"  # folder of a directory; what is carried has none
ROOMS = ("gpu", "formats")  # whose sources decide what a kernel is
KEY_DIGITS = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Cubin:
    """Machine code, the kernel's name in it, and what the assembler said of its resources."""

    entry: str
    code: bytes
    log: str


def cache_directory() -> Path:
    """Directory of the user's cache; it need not exist."""
    override = os.environ.get("LSCD_CACHE")
    if override:
        return Path(override)
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if xdg.is_absolute():  # XDG: relative paths are to be ignored
        return xdg / "lscd"
    try:
        return Path.home() / ".cache" / "lscd"
    except RuntimeError:  # a user without a home, as in a container
        return Path(tempfile.gettempdir()) / "lscd"


def cubin_directory() -> Path:
    """Directory of the machine code; it need not exist."""
    override = os.environ.get("LSCD_CUBINS")
    return Path(override) if override else cache_directory() / "cubins"


def is_carried(directory: Path) -> bool:
    """Whether a directory was made to be carried to other machines."""
    return (directory / MANIFEST).is_file()


@cache
def code_hash() -> str:
    """SHA-256 of the sources that decide what the kernels are."""
    package, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (package / room).glob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key(identity: Sequence[object], arch: str, compilers: dict[str, Any]) -> str:
    """Name of the files of a variant: its own name, the architecture, and a hash of all that decides its code."""
    told = json.dumps([code_hash(), [str(part) for part in identity], arch, compilers], sort_keys=True)
    return f"{identity[0]}-{arch}-{hashlib.sha256(told.encode()).hexdigest()[:KEY_DIGITS]}"


def load(identity: Sequence[object], arch: str) -> Cubin | None:
    """Kept machine code of a variant, None if there is none that is whole.

    Parameters
    ----------
    identity : what tells the variant from all others, its name first.
    """
    path = _path(identity, arch)

    def read() -> Cubin | None:
        told, code = json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".cubin").read_bytes()
        whole = hashlib.sha256(code).hexdigest() == told["sha256"]
        return Cubin(told["entry"], code, told["log"]) if whole else None

    return _kept("cubin", read)


def store(identity: Sequence[object], arch: str, cubin: Cubin) -> None:
    """Keep machine code, unless the directory is a carried one or cannot be written."""
    path = _path(identity, arch)
    told = {"entry": cubin.entry, "log": cubin.log, "sha256": hashlib.sha256(cubin.code).hexdigest()}
    _write({path.with_suffix(".cubin"): cubin.code, path: json.dumps(told).encode()})


def load_ptx(identity: Sequence[object], arch: str) -> tuple[str, str] | None:
    """Kept PTX of a variant and its entry point, None if there is none."""

    def read() -> tuple[str, str]:
        told = json.loads(_path(identity, arch, PTX).read_text(encoding="utf-8"))
        return str(told["ptx"]), str(told["entry"])

    return _kept("PTX", read)


def store_ptx(identity: Sequence[object], arch: str, ptx: str, entry: str) -> None:
    """Keep PTX, unless the directory is a carried one or cannot be written."""
    _write({_path(identity, arch, PTX): json.dumps({"entry": entry, "ptx": ptx}).encode()})


def _path(identity: Sequence[object], arch: str, folder: str = "") -> Path:
    """File that tells of a variant, in a folder of the directory."""
    directory = cubin_directory()
    return directory / folder / f"{key(identity, arch, _compilers(directory))}.json"


def _kept(what: str, read: Callable[[], T | None]) -> T | None:
    """What ``read`` finds, None where there is nothing or it is broken."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s not read, compiled again: %s", what, error)
        return None


def _write(contents: dict[Path, bytes]) -> None:
    """Write files whole or not at all, in order; what is carried or cannot be written stays as it is."""
    if is_carried(cubin_directory()):
        return
    try:
        for target, content in contents.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(target)
    except OSError as error:
        logger.warning("%s not kept: %s", target.name, error)


def write_manifest(directory: Path, archs: Sequence[str], variants: Sequence[str]) -> None:
    """Make a directory one to be carried: say from what, by what and for what its machine code was made."""
    content = {
        "code_sha256": code_hash(),
        "compilers": toolchain.versions(),
        "architectures": list(archs),
        "variants": list(variants),
    }
    (directory / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _compilers(directory: Path) -> dict[str, Any]:
    """Versions by which a directory's files are named."""
    if not is_carried(directory):
        return toolchain.versions()
    compilers: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["compilers"]
    return compilers
