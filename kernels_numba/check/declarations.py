"""Is every line of inline assembly declared as what it is, so that the compiler keeps and places it as written?

Compiled text cannot show it: an undeclared side effect is a bug only where the optimiser makes use of it. So each
instruction of `gpu.ptx` is emitted as LLVM sees it, and its declaration is compared with what its text does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from kernels_numba.gpu import ptx

# What reads memory that may change, writes it, or orders accesses to it; read-only loads (.nc) do none of that.
TOUCHES = re.compile(
    r"(?:^|[;{}\s])(?:st|atom|red|ldmatrix|stmatrix|cp|mbarrier|fence|membar|bar|barrier|ld(?!\.(?:\w+\.)*nc\b))\."
)
ASSEMBLY = re.compile(r' asm ([^"]*)"([^"]*)", "([^"]*)"\((?:[^()]*)\)(.*)')  # effects, text, constraints, attributes
WHOLE_WARP = re.compile(r"\.sync\b")
MEMORY, EFFECT, CONVERGENT = "~{memory}", "sideeffect", "convergent"


def emitted() -> dict[str, str]:
    """The LLVM call of every instruction of `gpu.ptx`, by name."""
    found = {name: value for name, value in vars(ptx).items() if hasattr(value, "_defn")}
    return {name: text for name, value in found.items() if " asm " in (text := _call(value._defn))}


def _call(define: Any) -> str:
    """Line of LLVM that a call of an intrinsic becomes."""
    n = define.__code__.co_argcount - 1  # but the context
    signature, emit = define(None, *[None] * n)
    context = SimpleNamespace(get_dummy_value=lambda: None, make_tuple=lambda builder, kind, parts: parts)
    module = ir.Module()
    letters = {"uint32": ir.IntType(32), "int64": ir.IntType(64), "float32": ir.FloatType()}
    kinds = [letters[str(kind)] for kind in signature.args]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(context, builder, signature, function.args)
    return next((line.strip() for line in str(module).splitlines() if " asm " in line), "")


def faults(call: str) -> Iterator[str]:
    """What an emitted call fails to declare."""
    found = ASSEMBLY.search(call)
    assert found is not None
    effects, text, constraints, attributes = found.groups()
    if TOUCHES.search(text):
        if MEMORY not in constraints:
            yield f"touches memory but does not declare {MEMORY}"
        if EFFECT not in effects:
            yield f"touches memory but is not declared {EFFECT}"
    if WHOLE_WARP.search(text) and CONVERGENT not in attributes:
        yield f"is executed by the lanes of a warp together but not declared {CONVERGENT}"
