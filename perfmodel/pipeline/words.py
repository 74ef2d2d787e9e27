"""What the words of a breakdown mean; command, report and documentation take them from here.

`bound`, `busy` and `waits` answer different questions and need not name the same resource: the resource with the most
to do need not be busy all the time, and a path can wait for one whose capacity is hardly used, because its results come
late.
"""

from __future__ import annotations

from types import MappingProxyType

MEANINGS = MappingProxyType(
    {
        "bound": "the resource with the longest time alone, if everything else took none",
        "busy": "the share of the whole time that a resource's work would take at the rate named beside it",
        "waits": "what the critical path waits for, from the launch to the last result; the shares add up to the time",
    }
)
# Resource -> its name with the rate that `busy` is a share of.
RATES = MappingProxyType(
    {
        "dram": "DRAM, of the sustained rate",
        "l2": "L2, of the catalogue's read rate",
        "tensor": "Tensor Cores, of what peak and power allow",
        "shared": "shared memory, of its peak rate",
        "issue": "issue slots, of the share that warps fill",
        "alu": "integer and logic, of the same share of its peak rate",
        "fma": "multiply-add, likewise",
        "xu": "population counts, likewise",
    }
)
# What a path can wait for, in words: the members of `program.Wait`.
WAITS = MappingProxyType(
    {
        "dram": "device memory",
        "l2": "L2",
        "shared-memory": "shared memory",
        "tensor-core": "Tensor Cores",
        "instruction-issue": "instructions of its own warps",
        "barrier": "barriers",
        "tail": "the last blocks, other SMs idle",
        "reduction": "the sum over split K",
        "launch": "launch and set-up of blocks",
    }
)


def legend() -> str:
    """One sentence for each word."""
    return " ".join(f"{word.capitalize()}: {meaning}." for word, meaning in MEANINGS.items())
