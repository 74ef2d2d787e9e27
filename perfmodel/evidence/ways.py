"""Which published compressions does a weight format stand for? One list for figures, verdicts and the explorer."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.evidence.accuracy import TRAININGS, UNSTRUCTURED, WHOLE, Loss, costs
from perfmodel.formats import FORMATS


class Way(NamedTuple):
    """A way to compress: what `accuracy` calls it, and the formats of weights that its kernels multiply.

    No formats stand for zeros anywhere, and whichever kernel multiplies them fastest.
    """

    title: str
    pattern: str
    weights: str
    activation_bits: int
    formats: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """Fraction of zeros of its pattern; 0 where all weights are kept or any sparsity will do."""
        kept, _, of = self.pattern.partition(":")
        return 1 - int(kept) / int(of) if of else 0.0

    @property
    def prunes(self) -> bool:
        """Whether weights are dropped."""
        return self.pattern != WHOLE


ZEROS_ANYWHERE = Way("zeros anywhere", UNSTRUCTURED, "fp16", 16)
WAYS = (
    Way("FP8", WHOLE, "fp8", 8, ("fp8-row", "fp8-block")),
    Way("INT8 W8A8", WHOLE, "int8", 8, ("int8-w8a8",)),
    Way("INT8 weights", WHOLE, "int8", 16, ("int8",)),
    Way("INT4 weights", WHOLE, "int4", 16, ("int4",)),
    Way("NVFP4", WHOLE, "nvfp4", 4, ("nvfp4",)),
    Way("FP6 weights", WHOLE, "fp6", 16, ("fp6",)),
    Way("FP5 weights", WHOLE, "fp5", 16, ("fp5",)),
    ZEROS_ANYWHERE,
    Way("4:8", "4:8", "fp16", 16),
    Way("2:4", "2:4", "fp16", 16, ("2:4",)),
    Way("6:8", "6:8", "fp16", 16, ("6:8",)),
    Way("2:4 FP8", "2:4", "fp8", 8, ("2:4-fp8",)),
    Way("2:4 INT8", "2:4", "int8", 8, ("2:4-int8",)),
)


def way_of(format_name: str) -> Way | None:
    """The way whose weights the format holds; None where nothing changes, or no published result is of such weights."""
    for way in WAYS:
        if format_name in way.formats:
            return way
    known = FORMATS[format_name]
    return ZEROS_ANYWHERE if known.prunes and known.lossless else None


def cost_of(model: str, format_name: str, sparsity: float, *, retrained: bool = False) -> Loss | None:
    """What published results say ``model`` loses in a format (`accuracy.costs`); None if nobody says.

    ``sparsity`` counts for zeros anywhere alone: patterns have their own.
    """
    way = way_of(format_name)
    if way is None:
        return None
    zeros = sparsity if way is ZEROS_ANYWHERE else way.sparsity
    return costs(
        model, zeros, pattern=way.pattern, weights=way.weights, activation_bits=way.activation_bits, retrained=retrained
    )


def costs_of(model: str, format_name: str, sparsity: float) -> dict[str, Loss]:
    """`cost_of` by the names of `TRAININGS`, as far as it is published."""
    found = {name: cost_of(model, format_name, sparsity, retrained=retrained) for name, retrained in TRAININGS.items()}
    return {name: loss for name, loss in found.items() if loss is not None}
