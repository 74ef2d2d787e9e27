"""Reading machine code (SASS): which instructions, of which class, in which loop.

What does a kernel really execute per tile? The disassembly is a flat list of instructions and labels; the main loop is
the backward branch around most Tensor-Core instructions, or around most global loads where there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*\{?\s*(@!?U?P[T\d]+\s+)?([A-Z][A-Z0-9_.a-z]*)\s*([^;]*);")
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


@dataclass(frozen=True)
class Instruction:
    """One machine instruction: full opcode, operands as text, the label it branches to, and the labels before it."""

    opcode: str
    operands: str
    labels: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Class of the instruction; ``integer`` for everything that computes addresses, predicates and moves."""
        if self.opcode.startswith("LDS") and self.operands.replace(" ", "") == "RZ,[RZ]":
            return "control"  # a predicated-off load that the assembler puts before asynchronous copies
        return next((kind for prefix, kind in _KINDS if self.opcode.startswith(prefix)), "integer")

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
        elif found := _LINE.match(line):
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
