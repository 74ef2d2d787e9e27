"""The compilers behind the kernels: which versions are here, where their libraries lie, what a cubin says of itself.

libNVVM and nvJitLink come from Python packages, from a toolkit that ``CUDA_HOME`` names, or from one below /usr/local
that nothing names. The first two are found by NVIDIA's own search; `find_libraries` adds the third, and packages whose
layout that search does not know.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# What the machine code depends on. Numba lowers, NVVM makes the PTX, nvJitLink assembles it.
PACKAGES = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-core")
# Name in NVIDIA's search -> file, and folders that it lies in below a package or toolkit.
LIBRARIES = {
    "nvvm": ("libnvvm.so*", ("lib", "lib64", "nvvm/lib64", "nvvm/lib")),
    "nvJitLink": ("libnvJitLink.so*", ("lib", "lib64", "targets/x86_64-linux/lib")),
    "nvrtc": ("libnvrtc.so*", ("lib", "lib64", "targets/x86_64-linux/lib")),
}
OPTIONAL = ("nvrtc",)  # some releases of numba-cuda load it, none of our kernels needs it
TOOLKITS = Path("/usr/local")
INSTALL = "pip install 'lscd-lab[gpu]', or make install"
NOT_HERE = "NVIDIA publishes it for Linux and Windows, not for this platform"
REGISTER_COUNT, FRAME_SIZE = 0x2F, 0x11  # attributes of a kernel in the ELF section .nv.info
VALUE_RECORD = 4  # format of records that hold a symbol and a value


class NoCompilerError(ValueError):
    """What was asked for needs the CUDA compiler, which is not installed; the message says how to get it."""


def check_installed(otherwise: str) -> None:
    """Refuse where numba-cuda is missing (numba brings an older cuda of its own); ``otherwise`` ends the sentence.

    Raises
    ------
    NoCompilerError
        Says what to install, or that there is nothing to install on this platform.
    """
    if find_spec("numba_cuda") is None:
        remedy = NOT_HERE if sys.platform == "darwin" else INSTALL
        raise NoCompilerError(f"compiling a kernel needs numba-cuda: {remedy}; {otherwise}")


@cache
def versions() -> dict[str, str | None]:
    """Version of every package that the machine code depends on; None for what is absent."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def find_libraries() -> None:
    """Load the compilers' libraries, wherever they lie, so that Numba and cuda.core find them loaded.

    Raises
    ------
    ValueError
        If one is nowhere; names it, where it was sought, and the package that has it.
    """
    from cuda.pathfinder import load_nvidia_dynamic_lib

    for name, (pattern, folders) in LIBRARIES.items():
        try:
            load_nvidia_dynamic_lib(name)
            continue
        except (RuntimeError, OSError):
            found = next(_files(pattern, folders), None)
        if found is not None:
            ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
            os.environ.setdefault("CUDA_HOME", str(_root(found)))
        elif name not in OPTIONAL:
            raise ValueError(
                f"lib{name} is neither in Python's nvidia packages, nor below CUDA_HOME, nor in {TOOLKITS}/cuda*: "
                f"pip install nvidia-{name.lower()}, or take cubins along (make gpu-cubins)"
            )


def _files(pattern: str, folders: tuple[str, ...]) -> Iterator[Path]:
    """Files of that name in Python's nvidia packages and in toolkits, the newest toolkit first."""
    packages = [folder for place in sys.path if place for folder in sorted(Path(place, "nvidia").glob("*"))]
    toolkits = [Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    toolkits += sorted(TOOLKITS.glob("cuda*"), reverse=True)
    for place in (*packages, *toolkits):
        for folder in folders:
            yield from sorted((place / folder).glob(pattern))


def _root(library: Path) -> Path:
    """Toolkit or package that a library lies in: what ``CUDA_HOME`` should be, so that libdevice is found beside it."""
    folder = library.parent.parent
    return folder.parent if folder.name in ("nvvm", "targets") else folder


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers per thread and bytes of stack frame of the largest kernel in a cubin, read from its ELF section.

    For assemblers that report neither: the driver's.
    """
    found = {REGISTER_COUNT: 0, FRAME_SIZE: 0}
    for name, content in _sections(cubin):
        position = 0
        while name == b".nv.info" and position + 4 <= len(content):
            kind, attribute, size = struct.unpack_from("<BBH", content, position)
            position += 4
            if kind != VALUE_RECORD:  # the two bytes are the value itself
                continue
            if attribute in found and size == 8:
                found[attribute] = max(found[attribute], struct.unpack_from("<I", content, position + 4)[0])
            position += size
    return found[REGISTER_COUNT], found[FRAME_SIZE]


def _sections(elf: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the sections of a 64-bit ELF file."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + i * size) for i in range(count)]
    text = headers[names][4]
    for name, _, _, _, offset, length in headers:
        place = text + name
        yield elf[place : elf.index(b"\0", place)], elf[offset : offset + length]
