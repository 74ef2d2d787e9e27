"""From a kernel to PTX, machine code and resource figures, without a GPU or driver.

What does the compiler make of a kernel: how many registers, does anything spill, which instructions run in the main
loop, how many blocks fit an SM? NVVM makes the PTX, nvJitLink assembles it, nvdisasm disassembles it; all three come
as Python packages, or with a toolkit. Everything is compiled once per process, and machine code is kept on disk
(`cubins`), so that a machine without compilers can run it.
"""

from __future__ import annotations

import difflib
import gc
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from kernels_numba.formats import Element
from kernels_numba.gpu import cubins, toolchain
from kernels_numba.gpu.elements import SUFFIX, in_element
from kernels_numba.gpu.sass import Instruction, Pipe, main_loop, parse, regions

WARP_SIZE = 32
REGISTERS_PER_SM = 65_536
REGISTER_UNIT = 8  # registers per thread are allocated in eights (256 a warp)
RESERVED_SHARED_BYTES = 1024  # the system's share of every block's shared memory


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of an SM that decide the occupancy (CUDA C++ Programming Guide, table of compute capabilities)."""

    compute_capability: tuple[int, int]
    shared_bytes: int
    shared_bytes_per_block: int
    max_warps: int
    max_blocks: int


ARCHITECTURES = {
    "sm_80": Multiprocessor((8, 0), 164 * 1024, 163 * 1024, 64, 32),
    "sm_86": Multiprocessor((8, 6), 100 * 1024, 99 * 1024, 48, 16),
    "sm_89": Multiprocessor((8, 9), 100 * 1024, 99 * 1024, 48, 24),
    "sm_90": Multiprocessor((9, 0), 228 * 1024, 227 * 1024, 64, 32),
    "sm_100": Multiprocessor((10, 0), 228 * 1024, 227 * 1024, 64, 32),
    "sm_120": Multiprocessor((12, 0), 100 * 1024, 99 * 1024, 48, 24),
}


@dataclass(frozen=True)
class Variant:
    """One compile-time choice of a kernel, and what its launch needs.

    kernel, choice : which kernel, and what tells its variants apart; together the unique ``name``.
    make, parameters : ``make(*parameters)`` gives the Python kernel.
    signature : Numba signature; pointers are int64.
    threads, shared_bytes : block size and dynamic shared memory, without what a launch adds for records.
    blocks_per_sm : blocks that registers must leave room for (``__launch_bounds__``).
    tile_n : output columns per block (0 if the kernel knows no tiles).
    oldest : first architecture it can be compiled for.
    element : 16-bit type of weights, activations and outputs that are not float32.
    """

    kernel: str
    choice: str
    make: Callable[..., Any]
    parameters: tuple[int | str, ...]
    signature: Any
    threads: int
    shared_bytes: int
    blocks_per_sm: int
    tile_n: int = 0
    oldest: str = "sm_80"
    element: Element = Element.FLOAT16

    @property
    def name(self) -> str:
        """Kernel, choice, and element unless fp16, for example ``tiled_csl_n16_v4`` or ``reduce_bf16``."""
        return (f"{self.kernel}_{self.choice}" if self.choice else self.kernel) + SUFFIX[self.element]

    @property
    def identity(self) -> tuple[object, ...]:
        """All that decides its machine code, beside the sources, architecture and compilers; its name first."""
        made = f"{self.make.__module__}.{self.make.__qualname__}", self.parameters, self.signature
        return self.name, *made, self.threads, self.shared_bytes, self.blocks_per_sm, self.oldest


@dataclass(frozen=True, eq=False)
class CompiledKernel:
    """A variant compiled for one architecture.

    entry : the kernel's name in the machine code, ``cubin``; log : what the assembler said.
    """

    variant: Variant
    arch: str
    entry: str
    cubin: bytes
    log: str

    def _logged(self, pattern: str) -> int:
        match = re.search(pattern, self.log)
        return int(match.group(1)) if match else 0

    @property
    def registers(self) -> int:
        """Registers per thread."""
        return self._logged(r"Used (\d+) registers")

    @property
    def spill_bytes(self) -> int:
        """Bytes of spill stores, spill loads and stack frame per thread; 0 is what every kernel here must have."""
        return sum(self._logged(rf"(\d+) bytes {what}") for what in ("stack frame", "spill stores", "spill loads"))

    @property
    def blocks_per_sm(self) -> int:
        """Blocks of this kernel that fit an SM at once, with the variant's own shared memory."""
        return self.blocks_with(self.variant.shared_bytes)

    def blocks_with(self, shared_bytes: int) -> int:
        """Blocks that fit an SM at once with so much dynamic shared memory: the least of what its limits allow."""
        sm = ARCHITECTURES[self.arch]
        warps = self.variant.threads // WARP_SIZE
        registers_per_warp = -(-self.registers // REGISTER_UNIT) * REGISTER_UNIT * WARP_SIZE
        by_registers = REGISTERS_PER_SM // registers_per_warp // warps
        by_shared = sm.shared_bytes // (shared_bytes + RESERVED_SHARED_BYTES)
        return min(by_registers, by_shared, sm.max_warps // warps, sm.max_blocks)

    @property
    def occupancy(self) -> float:
        """Resident warps over the most an SM can hold, a fraction."""
        return self.blocks_per_sm * self.variant.threads / WARP_SIZE / ARCHITECTURES[self.arch].max_warps

    @cached_property
    def instructions(self) -> list[Instruction]:
        """Machine instructions in program order."""
        return parse(disassemble(self.cubin))

    @cached_property
    def main_loop(self) -> Counter[str]:
        """Machine instructions of the main loop by class, counted once each (as they stand, not as they run)."""
        return Counter(instruction.kind for instruction in main_loop(self.instructions))

    @cached_property
    def main_loop_regions(self) -> dict[str, Counter[Pipe]]:
        """Machine instructions of the main loop by pipe, in each of its `sass.regions`."""
        return regions(main_loop(self.instructions))

    @cached_property
    def opcodes(self) -> Counter[str]:
        """Machine instructions of the whole kernel by full opcode."""
        return Counter(instruction.opcode for instruction in self.instructions)


def runs_on(variant: Variant, arch: str) -> bool:
    """Whether a variant can be compiled for an architecture."""
    return ARCHITECTURES[arch].compute_capability >= ARCHITECTURES[variant.oldest].compute_capability


def check_arch(arch: str) -> str:
    """Return ``arch`` if it is known; else raise ValueError with the nearest names."""
    if arch not in ARCHITECTURES:
        near = difflib.get_close_matches(arch, ARCHITECTURES, n=2, cutoff=0.3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown architecture {arch!r}: {hint}Known: {', '.join(ARCHITECTURES)}")
    return arch


@contextmanager
def _garbage_stays() -> Iterator[None]:
    """No garbage collection within: Numba's millions of small objects set off many, for 40 % of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def compile_ptx(variant: Variant, arch: str) -> tuple[str, str]:
    """PTX of a variant and the name of its entry point."""
    cc = ARCHITECTURES[check_arch(arch)].compute_capability
    kept = cubins.load_ptx(variant.identity, arch) if _is_ours(variant) else None
    if kept is not None:
        return kept
    toolchain.check_installed(
        f"{cubins.cubin_directory()} has no machine code of {variant.name} for {arch} from these sources"
    )
    toolchain.find_libraries()
    with _garbage_stays():
        ptx = in_element(_numba_ptx(replace(variant, element=Element.FLOAT16), cc), variant.element)
    entry = re.search(r"\.visible \.entry ([\w$]+)", ptx)
    assert entry is not None
    # Numba names the entry after module, closure and types: longer than some tools accept, and different each version.
    ptx = ptx.replace(entry.group(1), variant.name)
    if _is_ours(variant):
        cubins.store_ptx(variant.identity, arch, ptx, variant.name)
    return ptx, variant.name


def _is_ours(variant: Variant) -> bool:
    """Whether the kept code's name says all that decides it: of others' sources it knows nothing."""
    return variant.make.__module__.startswith(f"{__package__}.")


def _numba_ptx(variant: Variant, cc: tuple[int, int]) -> str:
    """PTX as Numba makes it, with typing and lowering done once for all architectures where Numba lets us."""
    from numba import cuda

    library = _lowered(variant)
    if library is not None:
        return str(library.get_asm_str(cc=cc))
    to_ptx: Any = cuda.compile_ptx  # mypy finds the older one inside numba, without launch_bounds
    bounds = (variant.threads, variant.blocks_per_sm)
    ptx, _ = to_ptx(variant.make(*variant.parameters), variant.signature, cc=cc, launch_bounds=bounds)
    return str(ptx)


@cache
def _lowered(variant: Variant) -> Any:
    """Numba's code library of a variant, None for a numba-cuda that has no such step.

    This takes 95 % of a compilation and does not depend on the architecture that NVVM then compiles for. It is what
    `numba.cuda.compile_ptx` does anew at each call; a test compares the two.
    """
    from numba.cuda import compiler

    lower: Any = getattr(compiler, "_compile_pyfunc_with_fixup", None)
    if lower is None:
        return None
    options: dict[str, Any] = {
        "debug": None,
        "lineinfo": False,
        "device": False,
        "fastmath": False,
        "opt": None,
        "forceinline": False,
    }
    oldest = ARCHITECTURES[variant.oldest].compute_capability
    options |= {"abi": "numba", "abi_info": None, "lto": False, "cc": oldest}
    bounds = (variant.threads, variant.blocks_per_sm)
    library, _ = lower(variant.make(*variant.parameters), variant.signature, launch_bounds=bounds, **options)
    return library


@cache
def compile_kernel(variant: Variant, arch: str) -> CompiledKernel:
    """Compile a variant down to machine code.

    Raises
    ------
    ValueError
        If ``arch`` is unknown; the message has the nearest names.
    """
    kept = cubins.load(variant.identity, check_arch(arch)) if _is_ours(variant) else None
    if kept is None:
        ptx, entry = compile_ptx(variant, arch)
        kept = cubins.Cubin(entry, *assemble(ptx, arch))
        if _is_ours(variant):
            cubins.store(variant.identity, arch, kept)
    return CompiledKernel(variant, arch, kept.entry, kept.code, kept.log)


def assemble(ptx: str, arch: str) -> tuple[bytes, str]:
    """Machine code of PTX text, and the assembler's report on registers and spills.

    cuda.core falls back to the driver's linker where nvJitLink does not load. That one may refuse the option that asks
    for the report; what the report says is then read from the machine code.
    """
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError:  # cuda-core before 0.5
        from cuda.core.experimental import Linker, LinkerOptions, ObjectCode

    def link(**more: Any) -> tuple[bytes, str]:
        linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, **more))
        return bytes(linker.link("cubin").code), linker.get_info_log()

    try:
        cubin, log = link(ptxas_options=["-v"])
    except Exception:  # each linker has its own errors; a fault of the PTX itself comes again
        cubin, log = link()
    if "registers" not in log:
        registers, frame = toolchain.resources(cubin)
        log = f"{frame} bytes stack frame\nUsed {registers} registers\n{log}"
    return cubin, log


def disassemble(cubin: bytes) -> str:
    """Text of the machine code, by nvdisasm."""
    from cuda import pathfinder

    tool = pathfinder.find_nvidia_binary_utility("nvdisasm")
    if tool is None:
        raise RuntimeError("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        # Without the analysis of the data flow: a quarter faster, and nothing that is read here changes.
        command = [tool, "-c", "-ndf", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
