"""Reading machine code (SASS): which instructions, of which class, on which pipe, in which loop.

What does a kernel really execute per tile? The disassembly is a flat list of instructions and labels; the main loop is
the backward branch around most Tensor-Core instructions, or around most global loads where there are none. Lines that
no lane ever executes (``@!PT``, which the assembler puts before asynchronous copies) are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

_LINE = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*\{?\s*(@!?U?P[T\d]+\s+)?([A-Z][A-Z0-9_.a-z]*)\s*([^;]*);")
_NEVER = ("@!PT", "@!UPT")
_LABEL = re.compile(r"^\s*(\.L_\w+):")
_TARGET = re.compile(r"(\.L_\w+)")

# Prefix of the opcode -> class; the first that fits.
_KINDS = (
    ("HMMA", "tensor_core"),
    ("LDSM", "load_matrix"),
    ("LDGSTS", "async_copy"),
    ("LDGDEPBAR", "async_copy_control"),
    ("DEPBAR", "async_copy_control"),
    ("LDG", "global_load"),
    ("STG", "global_store"),
    ("STS.U16", "scatter"),
    ("STS", "shared_store"),
    ("LDS", "shared_load"),
    ("LDL", "spill"),
    ("STL", "spill"),
    ("BAR", "barrier"),
    ("BRA", "control"),
    ("BSSY", "control"),
    ("BSYNC", "control"),
    ("EXIT", "control"),
    ("CALL", "control"),
    ("NOP", "control"),
    ("FFMA", "float"),
    ("FADD", "float"),
    ("FMUL", "float"),
    ("HADD2.F32", "convert"),
    ("F2F", "convert"),
    ("SHFL", "shuffle"),
)
# Kinds that divide a loop into regions: what goes to memory, to the Tensor Cores or to a barrier.
LANDMARKS = (
    "tensor_core",
    "load_matrix",
    "async_copy",
    "global_load",
    "global_store",
    "scatter",
    "shared_store",
    "shared_load",
    "barrier",
)
REST = "rest"  # region of what follows the last landmark


class Pipe(StrEnum):
    """Unit of a scheduler's partition that executes an instruction; all of them take an issue slot.

    ``fma_heavy`` is the half of the multiply-add unit that also does integer and FP16 arithmetic, ``fma`` stands for
    FP32 arithmetic, which either half does where there are two (compute capability 8.6 and newer). ``lsu`` takes what
    goes to memory, special registers, shuffles and barriers; ``control`` branches and constants.

    References
    ----------
    NVIDIA, "Nsight Compute", Metrics Decoder, section on pipelines: which instructions each executes.
    """

    ALU = "alu"
    FMA = "fma"
    FMA_HEAVY = "fma_heavy"
    XU = "xu"
    LSU = "lsu"
    TENSOR = "tensor"
    UNIFORM = "uniform"
    CONTROL = "control"


# Opcode up to its first dot -> pipe; those that start with U run in the uniform datapath unless named here.
_OPCODES = {
    Pipe.ALU: "BMSK CS2R F2FP FMNMX FSEL FSET FSETP I2FP IABS IADD IADD3 IMNMX ISETP LEA LOP LOP3 MOV P2R PLOP3 PRMT "
    "R2P SEL SGXT SHF VABSDIFF VIADD VIADDMNMX VIMNMX VIMNMX3 VOTE",
    Pipe.FMA: "FADD FFMA FFMA2 FMUL",
    Pipe.FMA_HEAVY: "HADD2 HFMA2 HMNMX2 HMUL2 HSETP2 IDP IMAD IMUL",
    Pipe.XU: "BREV F2F F2I FLO FRND I2F MUFU POPC",
    Pipe.LSU: "ATOM ATOMG ATOMS BAR CREDUX ELECT LD LDG LDGSTS LDL LDS LDSM MATCH RED REDUX S2R S2UR SHFL ST STG STL "
    "STS STSM SYNCS UBLKCP",
    Pipe.TENSOR: "HGMMA HMMA IGMMA IMMA QGMMA QMMA",
    Pipe.UNIFORM: "R2UR VOTEU",
    Pipe.CONTROL: "ACQBULK BRA BRX BSSY BSYNC CALL CCTL CGAERRBAR DEPBAR ERRBAR EXIT FENCE JMP LDC LDCU LDGDEPBAR "
    "MEMBAR NANOSLEEP NOP RET ULDC WARPSYNC YIELD",
}
_PIPES = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}


@dataclass(frozen=True)
class Instruction:
    """One machine instruction: full opcode, operands as text, the label it branches to, and the labels before it."""

    opcode: str
    operands: str
    labels: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Class of the instruction; ``integer`` for everything that computes addresses, predicates and moves."""
        return next((kind for prefix, kind in _KINDS if self.opcode.startswith(prefix)), "integer")

    @property
    def pipe(self) -> Pipe:
        """Unit that executes the instruction.

        Raises
        ------
        ValueError
            If the opcode is not in the table; names it.
        """
        name = self.opcode.split(".")[0]
        pipe = _PIPES.get(name, Pipe.UNIFORM if name.startswith("U") else None)
        if pipe is None:
            raise ValueError(f"pipe of opcode {name!r} is not known, known are {', '.join(sorted(_PIPES))}")
        return pipe

    @property
    def target(self) -> str | None:
        """Label this instruction jumps to, if it is a branch."""
        found = _TARGET.search(self.operands) if self.opcode.startswith("BRA") else None
        return found.group(1) if found else None


def parse(text: str) -> list[Instruction]:
    """Instructions of one kernel's disassembly, as ``nvdisasm -c`` prints it."""
    instructions: list[Instruction] = []
    labels: list[str] = []
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels.append(label.group(1))
        elif (found := _LINE.match(line)) and (found.group(1) or "").strip() not in _NEVER:
            instructions.append(Instruction(found.group(2), found.group(3).strip(), tuple(labels)))
            labels = []
    return instructions


def loops(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Bodies of all loops, in the order of their backward branches."""
    place = {label: i for i, instruction in enumerate(instructions) for label in instruction.labels}
    spans = ((place.get(x.target or "", len(instructions)), i) for i, x in enumerate(instructions))
    bodies = [instructions[start : end + 1] for start, end in spans if start <= end]
    # The assembler ends every kernel with a branch to itself, which is no loop.
    return [body for body in bodies if len(body) > 1]


def main_loop(instructions: list[Instruction]) -> list[Instruction]:
    """Body of the loop with most Tensor-Core instructions, else most global loads; the shortest of those.

    Loops inside it are left out: those of the kernels here are for what does not fit (words beyond the registers,
    records beyond the usual length, columns beyond 2:4) and run rarely.

    Raises
    ------
    ValueError
        If the code has no loop.
    """
    bodies = loops(instructions)
    if not bodies:
        raise ValueError("main loop of machine code without a backward branch; allowed: code with a loop")

    def weight(body: list[Instruction]) -> tuple[int, int, int]:
        kinds = [instruction.kind for instruction in body]
        products = kinds.count("tensor_core")
        return products, 0 if products else kinds.count("global_load"), -len(body)

    body = max(bodies, key=weight)
    within = {id(instruction) for instruction in body}
    inner = [other for other in bodies if len(other) < len(body) and {id(other[0]), id(other[-1])} <= within]
    rare = {id(instruction) for other in inner for instruction in other}
    return [instruction for instruction in body if id(instruction) not in rare]


def regions(body: list[Instruction]) -> dict[str, Counter[Pipe]]:
    """Instructions of a loop by pipe, divided at its landmarks.

    An instruction counts to the kind of the next landmark, which it most likely prepares; what follows the last one is
    the ``rest``. The compiler mixes neighbouring stages, so only the sum over all regions is exact.
    """
    found: dict[str, Counter[Pipe]] = {}
    waiting: Counter[Pipe] = Counter()
    for instruction in body:
        waiting[instruction.pipe] += 1
        if instruction.kind in LANDMARKS:
            found.setdefault(instruction.kind, Counter()).update(waiting)
            waiting = Counter()
    return found | ({REST: waiting} if waiting else {})
