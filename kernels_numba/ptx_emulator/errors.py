"""The one exception the emulator raises for a wrong kernel: what, where, which thread, which address."""

from __future__ import annotations


class PtxError(RuntimeError):
    """A kernel did something a GPU would not do, or would do wrongly without saying so.

    Attributes
    ----------
    instruction : str or None
        Text of the PTX instruction that was running.
    thread : int or None
        Linear index of the first offending thread in its block.
    address : int or None
        Byte address that was used: an emulated 64-bit address, or an offset in the shared window.
    block : tuple of int or None
        Block index (x, y, z).
    """

    def __init__(self, message: str, *, thread: int | None = None, address: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.thread = thread
        self.address = address
        self.instruction: str | None = None
        self.position: int | None = None
        self.block: tuple[int, int, int] | None = None

    def at(self, instruction: str, position: int, block: tuple[int, int, int]) -> PtxError:
        """Record where it happened, and return the error itself."""
        self.instruction, self.position, self.block = instruction, position, block
        return self

    def __str__(self) -> str:
        parts = [self.message]
        if self.thread is not None:
            parts.append(f"thread {self.thread}")
        if self.address is not None:
            parts.append(f"address {self.address:#x}")
        if self.instruction is not None:
            parts.append(f"instruction {self.position}: {self.instruction}")
        if self.block is not None:
            parts.append(f"block {self.block}")
        return "; ".join(parts)
