"""Which products are measured, and in which order: whatever ends a run, what came before must be worth most.

First one large shape, dense and over the sparsities, so that every kernel has a slope over sparsity; then the same
layer the other way round and a square one at three sparsities; then the paper's other shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# The paper's layers of OPT-66B, OPT-30B and OPT-175B.
SHAPES = (
    (36864, 9216), (9216, 36864), (12288, 12288), (28672, 7168), (7168, 28672), (9216, 9216), (7168, 7168),
    (27648, 9216), (21504, 7168), (36864, 12288), (49152, 12288), (12288, 49152),
)  # fmt: skip
FIRST = (0.0, 0.8, 0.5, 0.7, 0.9, 0.6)  # sparsities of the first shape
SECOND = (0.0, 0.8, 0.5, 0.9)  # of the next two
REST = (0.0, 0.8, 0.7, 0.9, 0.6, 0.5, 0.4)  # of all shapes, in the end
TELLING = 3  # shapes of `FIRST` and `SECOND`
Step = tuple[int, int, float]  # m, k, sparsity


@dataclass(frozen=True)
class Program:
    """What to measure: shapes (m, k) in order, tokens, and the rows of a slab of random weights."""

    shapes: tuple[tuple[int, int], ...] = SHAPES
    columns: tuple[int, ...] = (8, 16, 32)
    slab_rows: int = 4608

    def first_steps(self) -> list[Step]:
        """The matrices after which the products are profiled: the first shape."""
        m, k = self.shapes[0]
        return [(m, k, sparsity) for sparsity in FIRST]

    def steps(self) -> list[Step]:
        """All matrices in the order of their worth, each once."""
        return list(dict.fromkeys(self._with_repetitions()))

    def _with_repetitions(self) -> Iterator[Step]:
        yield from self.first_steps()
        yield from ((m, k, sparsity) for m, k in self.shapes[1:TELLING] for sparsity in SECOND)
        for sparsity in REST[1:]:
            for m, k in self.shapes:
                yield m, k, 0.0
                yield m, k, sparsity


# Small enough for the emulator, with a slab that repeats.
DRY_RUN = Program(((256, 128),), (8,), 128)
