"""What does a PTX text say? Reads one kernel into instructions, registers, parameters and memory symbols.

It understands the text that NVVM (Numba, nvcc) and LLVM (Triton) write, with inline assembly: nested scopes that
declare their own registers and labels are flattened by giving every scoped name a unique suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import PtxError
from .scalar_types import TYPES, ScalarType

NAME = r"[%$A-Za-z_][\w$]*"


@dataclass(frozen=True)
class Instruction:
    """One PTX instruction, e.g. ``@!%p1 ld.global.v2.u32 {%r1, %r2}, [%rd1+8];``.

    ``guard`` is (negated, predicate register); ``opcode`` is ``ld``; ``modifiers`` are what follows its dots.
    """

    position: int
    name: str
    operands: tuple[str, ...]
    guard: tuple[bool, str] | None
    text: str

    @property
    def opcode(self) -> str:
        """First word of the name."""
        return self.name.split(".", 1)[0]

    @property
    def modifiers(self) -> tuple[str, ...]:
        """Words after the opcode, in order."""
        return tuple(self.name.split(".")[1:])

    @property
    def types(self) -> tuple[ScalarType, ...]:
        """Scalar types named by the modifiers, in order."""
        return tuple(TYPES[word] for word in self.modifiers if word in TYPES)

    @property
    def type(self) -> ScalarType:
        """Last scalar type named: that of the source of a conversion, of the data otherwise."""
        if not self.types:
            raise PtxError(f"unsupported instruction {self.name}: it names no known type")
        return self.types[-1]


@dataclass(frozen=True)
class Symbol:
    """A named memory object; ``initial`` holds the listed values of a constant table."""

    name: str
    space: str
    align: int
    size: int
    element: ScalarType
    initial: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter: its type, and its size in bytes where it is a structure passed by value."""

    name: str
    type: ScalarType
    align: int
    size: int


@dataclass
class Kernel:
    """One ``.entry`` of a PTX module, ready to be decoded."""

    name: str
    parameters: list[Parameter]
    required_threads: tuple[int, ...] | None = None
    maximum_threads: tuple[int, ...] | None = None
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    branch_tables: dict[str, list[str]] = field(default_factory=dict)
    registers: dict[str, ScalarType] = field(default_factory=dict)
    symbols: dict[str, Symbol] = field(default_factory=dict)


@lru_cache(maxsize=32)
def parse_kernel(ptx: str, name: str | None = None) -> Kernel:
    """The kernel called ``name``, or the only one.

    Raises
    ------
    ValueError
        If there is no such kernel, or several and no name; the message lists the kernels found.
    """
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", ptx, flags=re.DOTALL)
    text = re.sub(r"^\s*\.(?:loc|file)\b[^\n]*$", "", text, flags=re.MULTILINE)
    entries = {m[1]: m for m in re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{;]*)\{", text)}
    if name is None and len(entries) == 1:
        name = next(iter(entries))
    if name is None or name not in entries:
        raise ValueError(f"kernel {name!r} is not one of the kernels of this PTX: {sorted(entries)}")
    entry = entries[name]
    kernel = Kernel(name, [_parameter(p) for p in entry[2].split(",") if p.strip()])
    kernel.required_threads = _thread_limit(entry[3], "reqntid")
    kernel.maximum_threads = _thread_limit(entry[3], "maxntid")
    for declaration in re.finditer(
        r"^\s*(?=\.(?!param))[^\n{}()%]*\.(?:shared|global|const)\b[^;(]*;", text, flags=re.MULTILINE
    ):
        _add_symbol(kernel, declaration[0].rstrip(";"))
    _BodyParser(kernel).read(_balanced_body(text, entry.end()))
    return kernel


def _parameter(text: str) -> Parameter:
    declared = re.search(r"([\w$]+)\s*(?:\[\s*(\d+)\s*\])?\s*$", text)
    element = next(TYPES[w] for w in re.findall(r"\.(\w+)", text) if w in TYPES)
    if declared is None:
        raise PtxError(f"unsupported parameter declaration {text.strip()}")
    size = element.bits // 8 * int(declared[2] or 1)
    # The first .align belongs to the parameter itself only when no .ptr precedes it.
    align = re.search(r"\.align\s+(\d+)", text.split(".ptr")[0])
    return Parameter(declared[1], element, int(align[1]) if align else element.bits // 8, size)


def _thread_limit(directives: str, word: str) -> tuple[int, ...] | None:
    found = re.search(rf"\.{word}\s+([\d,\s]+)", directives)
    return tuple(int(n) for n in found[1].split(",")) if found else None


def _balanced_body(text: str, start: int) -> str:
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def _add_symbol(kernel: Kernel, declaration: str) -> None:
    """Register ``.shared .align 16 .b8 name[512]`` and its relatives; an empty ``[]`` is dynamic shared memory."""
    head, _, values = declaration.partition("=")
    named = re.search(rf"({NAME})\s*((?:\[\s*\d*\s*\]\s*)*)$", head.strip())
    space = next(s for s in ("shared", "global", "const", "local") if f".{s}" in head)
    element = next((TYPES[w] for w in re.findall(r"\.(\w+)", head) if w in TYPES), None)
    if named is None or element is None:
        raise PtxError(f"unsupported declaration {declaration.strip()}")
    size = element.bits // 8
    for dimension in re.findall(r"\[\s*(\d*)\s*\]", named[2]):
        size *= int(dimension or 0)
    align = re.search(r"\.align\s+(\d+)", head)
    initial = tuple(v.strip() for v in values.strip().strip("{}").split(",") if v.strip())
    kernel.symbols[named[1]] = Symbol(named[1], space, int(align[1]) if align else 1, size, element, initial)


def split_operands(text: str) -> list[str]:
    """Split at the commas that lie outside braces, brackets and parentheses."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return [*parts, current.strip()] if current.strip() else parts


class _BodyParser:
    """Walks the statements of a kernel body and fills ``kernel``; scopes map a declared name to its unique name."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.scopes: list[dict[str, str]] = [{}]
        self.n_scopes = 0
        self.last_label = ""

    def read(self, body: str) -> None:
        for kind, text in _statements(body):
            if kind == "open":
                self._open_scope(text)
            elif kind == "close":
                self.scopes.pop()
            elif kind == "label":
                self.last_label = self._resolve(text)
                self.kernel.labels[self.last_label] = len(self.kernel.instructions)
            elif text.startswith("."):
                self._directive(text)
            else:
                self._instruction(text)

    def _open_scope(self, rest: str) -> None:
        """Enter a scope; its labels are declared at once, because branches may precede them."""
        self.n_scopes += 1
        inner = _balanced_body(rest, 0)
        labels = re.findall(rf"(?:^|[;{{}}\s])({NAME})\s*:(?!:)", inner)
        self.scopes.append({label: f"{label}@{self.n_scopes}" for label in labels})

    def _resolve(self, name: str) -> str:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)

    def _directive(self, text: str) -> None:
        word = text.split(None, 1)[0]
        if word == ".reg":
            self._declare_registers(text)
        elif word in (".local", ".shared"):
            _add_symbol(self.kernel, text)
        elif word == ".branchtargets":
            targets = text.removeprefix(word).split(",")
            self.kernel.branch_tables[self.last_label] = [self._resolve(t.strip()) for t in targets]
        elif word != ".pragma":
            raise PtxError(f"unsupported directive {text}")

    def _declare_registers(self, text: str) -> None:
        type_name, names = text.removeprefix(".reg").strip().lstrip(".").split(None, 1)
        if type_name not in TYPES:
            raise PtxError(f"unsupported register type .{type_name} in {text}")
        for name in (n.strip() for n in names.split(",")):
            counted = re.fullmatch(rf"({NAME})<(\d+)>", name)
            singles = [f"{counted[1]}{i}" for i in range(int(counted[2]))] if counted else [name]
            for single in singles:
                unique = single if len(self.scopes) == 1 else f"{single}@{self.n_scopes}"
                self.scopes[-1][single] = unique
                self.kernel.registers[unique] = TYPES[type_name]

    def _instruction(self, text: str) -> None:
        match = re.fullmatch(rf"(?:@(!?)({NAME})\s+)?([\w.:]+)\s*(.*)", text, flags=re.DOTALL)
        if match is None:
            raise PtxError(f"unsupported instruction: {text}")
        # Scoped names are few: only a reference inside an inner scope can differ from what is written.
        rest = match[4]
        if len(self.scopes) > 1:
            rest = re.sub(rf"(?<![\w%$.])({NAME})", lambda m: self._resolve(m[1]), rest)
        guard = (match[1] == "!", self._resolve(match[2])) if match[2] else None
        position = len(self.kernel.instructions)
        shown = re.sub(r"\s+", " ", text)
        self.kernel.instructions.append(Instruction(position, match[3], tuple(split_operands(rest)), guard, shown))


def _statements(body: str) -> Iterator[tuple[str, str]]:
    """Yield ("open", text after the brace), ("close", ""), ("label", name) and ("statement", text) in order."""
    label = re.compile(rf"({NAME})\s*:(?!:)")
    at, end = 0, len(body)
    while at < end:
        if body[at].isspace() or body[at] == ";":
            at += 1
        elif body[at] == "{":
            at += 1
            yield "open", body[at:]
        elif body[at] == "}":
            at += 1
            yield "close", ""
        elif found := label.match(body, at):
            at = found.end()
            yield "label", found[1]
        else:
            stop = body.find(";", at)
            stop = end if stop < 0 else stop
            yield "statement", body[at:stop].strip()
            at = stop + 1
