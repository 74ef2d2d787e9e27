"""Turns each instruction into a function once, so that running it needs no more look-ups.

Instructions come from three tables: rules of element-wise instructions, builders of instructions that touch memory or
other lanes, and control flow, which is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import (  # noqa: F401  (importing fills the tables)
    bit_rules,
    bulk_operations,
    convert_rules,
    float_rules,
    integer_rules,
    mbarrier_operations,
    memory_operations,
    mma,
    move_operations,
    warp_operations,
)
from .errors import PtxError
from .mbarrier_operations import WAITS, Wait
from .parse import Instruction, Kernel
from .registers import Active, integer, sources
from .rules import RULES, Rule
from .scalar_types import TYPES, Array
from .state import BUILDERS, CARRIED, BlockState, Operation

# They change nothing here: threads of a block run in order, and time does not pass.
IGNORED = ("nanosleep", "prefetch", "prefetchu", "discard", "applypriority", "griddepcontrol")
# Errors only if a thread reaches them, as in the failing branch of an assertion.
REFUSED = ("call", "trap", "brkpt")
# Their opcodes are known, but not what these forms do.
UNKNOWN = ("st.async", "st.bulk", "red.async")


class Step(NamedTuple):
    """A decoded instruction: ``kind`` is operation, wait, branch, table, exit or barrier.

    ``target`` is the position that a branch or exit leads to, or the number of a barrier; ``wait`` says whose phases
    are complete. What ``gathers`` is executed by the lanes of a warp together. Registers it ``needs``, and that its
    guard ``asks``, must not be undefined.
    """

    kind: str
    guard: Callable[[], Array] | None
    operation: Operation | None
    target: int
    table: tuple[int, ...] = ()
    selector: Callable[[], Array] | None = None
    wait: Wait | None = None
    gathers: bool = False
    needs: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


def decode(instruction: Instruction, kernel: Kernel, state: BlockState) -> Step:
    """Step of one instruction; raises PtxError, naming it, if it is not supported."""
    try:
        guard = None
        if instruction.guard is not None:
            negated, name = instruction.guard
            guard = state.registers.read(("!" if negated else "") + name, TYPES["pred"])
        control = _control(instruction, kernel, state, guard)
        gathers = "sync" in instruction.modifiers
        step = control or Step("operation", guard, _operation(instruction, state), 0, gathers=gathers)
        asks = state.registers.named(instruction.guard[1]) if instruction.guard else ()
        return step._replace(needs=_needs(instruction, step.kind, state), asks=asks)
    except PtxError as error:
        raise error.at(instruction.text, instruction.position, (0, 0, 0)) from None


def _needs(instruction: Instruction, kind: str, state: BlockState) -> tuple[str, ...]:
    """Registers without whose value nobody can say what an instruction does: all it reads but those it only carries."""
    if kind == "operation" and instruction.opcode in RULES:
        return ()
    name = _registered(instruction)
    carried = CARRIED.get(name, ()) if name else ()
    writes = 0 if kind in ("branch", "table") or instruction.opcode in ("red", "bar") else 1
    first, *others = instruction.operands or ("",)
    read = [o for i, o in enumerate(others, 1) if i not in carried]
    return state.registers.named(*read, *([first] if first.startswith("[") or not writes else []))


def _control(
    instruction: Instruction, kernel: Kernel, state: BlockState, guard: Callable[[], Array] | None
) -> Step | None:
    """Step of a branch, exit, barrier or wait; None for anything else."""
    opcode, words, labels = instruction.opcode, instruction.modifiers, kernel.labels
    if opcode == "bra":
        return Step("branch", guard, None, labels[instruction.operands[0]])
    if opcode == "brx":
        table = tuple(labels[name] for name in kernel.branch_tables[instruction.operands[1]])
        selector = state.registers.read(instruction.operands[0], TYPES["u32"])
        return Step("table", guard, None, 0, table, selector)
    if opcode in ("ret", "exit"):
        return Step("exit", guard, None, len(kernel.instructions))
    if opcode in ("bar", "barrier") and "warp" not in words:
        if "sync" not in words or "cluster" in words or [o.isdigit() for o in instruction.operands] != [True]:
            raise PtxError(f"unsupported instruction {instruction.name}: only barriers of the whole block")
        return Step("barrier", guard, None, integer(instruction.operands[0]), gathers=True)
    if opcode == "mbarrier" and words[0] in WAITS:
        wait = Wait(instruction, state)
        return Step("wait", guard, wait.finish, 0, wait=wait)
    return None


def _operation(instruction: Instruction, state: BlockState) -> Operation:
    if instruction.name.startswith(UNKNOWN):
        raise PtxError(f"unsupported instruction {instruction.name}")
    if (name := _registered(instruction)) is not None:
        return BUILDERS[name](instruction, state)
    opcode = instruction.opcode
    if opcode in RULES:
        return _element_wise(instruction, RULES[opcode](instruction), state)
    if opcode in IGNORED:
        return lambda active: None
    if opcode in REFUSED:
        return _refusal(instruction)
    raise PtxError(f"unsupported instruction {instruction.name}")


def _registered(instruction: Instruction) -> str | None:
    """Longest beginning of the name that has a builder, such as ``cp.async.bulk`` or ``ld``."""
    words = instruction.name.split(".")
    names = (".".join(words[:n]) for n in range(len(words), 0, -1))
    return next((name for name in names if name in BUILDERS), None)


def _element_wise(instruction: Instruction, rule: Rule, state: BlockState) -> Operation:
    target, _, other = instruction.operands[0].partition("|")
    put = state.registers.write(target.strip(), rule.result)
    compute, reads = rule.compute, sources(instruction, state.registers, *rule.sources)
    if other:
        operation = _two_results(instruction, rule, (target.strip(), other.strip()), state)
    elif len(reads) == 2:
        left, right = reads

        def operation(active: Active) -> None:
            put(compute(left(), right()), active)
    else:

        def operation(active: Active) -> None:
            put(compute(*[read() for read in reads]), active)

    return _carrying(operation, instruction, rule, state)


def _carrying(operation: Operation, instruction: Instruction, rule: Rule, state: BlockState) -> Operation:
    """The operation, whose results are undefined where `Rule.undefined` says so."""
    undefined, operands = state.registers.undefined, instruction.operands[1:]
    names, targets = state.registers.named(*operands), state.registers.named(instruction.operands[0])
    where = rule.undefined
    if where is None:
        return undefined.carrying(operation, names, targets)
    reads = sources(instruction, state.registers, *rule.sources)
    return undefined.carrying(
        operation, names, targets, lambda: where(*[read() for read in reads], *map(undefined.of, operands))
    )


def _two_results(instruction: Instruction, rule: Rule, targets: tuple[str, str], state: BlockState) -> Operation:
    if rule.second is None:
        raise PtxError(f"unsupported form of {instruction.name}: two destinations")
    puts = [state.registers.write(target, rule.result) for target in targets]
    reads = sources(instruction, state.registers, *rule.sources)
    computes = (rule.compute, rule.second)

    def run(active: Active) -> None:
        values = [read() for read in reads]
        for put, result in zip(puts, [compute(*values) for compute in computes], strict=True):
            put(result, active)

    return run


def _refusal(instruction: Instruction) -> Operation:
    def run(active: Active) -> None:
        raise PtxError(f"unsupported instruction {instruction.name} was reached", thread=int(active.threads[0]))

    return run
