"""The answer of `perfmodel.worth` in sentences, for the command, the page and whoever else says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perfmodel.kernels import KERNELS
from perfmodel.units import GIGA, TERA
from perfmodel.worth import HIGHEST_SPARSITY

if TYPE_CHECKING:
    from perfmodel.worth import AtBatch, Rival, Worth

LEAST_SPARSITY = 0.005  # below which a needed sparsity is none


def answer(found: Worth) -> str:
    """The verdict in a sentence or three: at which batch, against what, and what sparse would need."""
    at = found.headline
    words = f"Worth it: {found.verdict}. {compared(at)}"
    if extra := both(found.batches):
        words += f" {extra}"
    if found.verdict != "yes" and (needed := needs(found)):
        words += f" {needed}"
    return words


def compared(at: AtBatch) -> str:
    """The best sparse kernel beside the best that keep all weights, at one batch."""
    sparse, whole, mild = at.sparse, at.whole, at.mild
    if sparse is None and whole is None:
        need = min(rival.memory_bytes for rival in at.rivals) / GIGA
        return f"Out of memory at batch {at.batch} on every kernel: weights and cache need {need:.1f} GB a GPU or more."
    if sparse is None:
        pruning = any(rival.change == "pruned" for rival in at.rivals)
        why = "fits, weights and cache together" if pruning else "takes part"
        return f"At batch {at.batch} no kernel that prunes and keeps 16-bit values {why}."
    first = f"At batch {at.batch} {_gain(sparse, at, 'is')}"
    if whole is None:
        return f"{first}, and nothing that keeps all weights fits."
    if whole.kernel == at.dense.kernel:
        return f"{first}, and no kernel that keeps all weights is faster than dense."
    others = [rival for rival in (mild, whole) if rival is not None and rival.kernel != at.dense.kernel]
    kept = list({rival.kernel: rival for rival in others}.values())
    keeping = "keeps all weights" if len(kept) == 1 else "both keep all weights"
    listed = " and ".join(_gain(rival, at, "is" if i == 0 else "") for i, rival in enumerate(kept))
    return f"{first}; {listed}{' and' if len(kept) == 1 else ','} {keeping}."


def _gain(rival: Rival, at: AtBatch, verb: str) -> str:
    """``FP8 is 1.6x dense (1.5-1.7)``."""
    value, low, high = rival.speedup_over(at.dense)
    dense = " dense" if verb else ""
    return (
        " ".join(part for part in (plain_title(rival), verb) if part) + f" {value:.1f}x{dense} ({low:.1f}-{high:.1f})"
    )


def plain_title(rival: Rival) -> str:
    """Title of a kernel without what stands in brackets."""
    return rival.title.split(" (")[0]


def both(batches: Sequence[AtBatch]) -> str:
    """What prunes and rounds, where it is clearly ahead of all that keeps the weights."""
    ahead = [at for at in batches if at.verdict_of(at.both) == "yes"]
    if not ahead:
        return ""
    best = max(ahead, key=lambda at: at.both.speedup_over(at.dense)[0] if at.both else 0.0)
    assert best.both is not None
    where = ", ".join(str(at.batch) for at in ahead)
    gain = f"{_gain(best.both, best, 'is')} at batch {best.batch}"
    return f"Pruned and rounded, {gain}, clearly ahead of both at batch {where}."


def needs(found: Worth) -> str:
    """Sparsity from which sparse would be ahead, or the memory that would make it so."""
    title = {name: KERNELS[name].title.split(" (")[0] for name in found.needed_sparsity}
    reached = {name: share for name, share in found.needed_sparsity.items() if share is not None}
    never = [title[name] for name in found.needed_sparsity if name not in reached]
    words = [f"{share:.0%} to overtake {title[name]}" for name, share in reached.items() if share > LEAST_SPARSITY]
    parts = []
    if words:
        pattern = found.headline.sparse is not None and KERNELS[found.headline.sparse.kernel].patterns
        parts.append(f"{'Unstructured sparse' if pattern else 'Sparse'} needs {' and '.join(words)} here")
    if never:
        parts.append(f"{'n' if words else 'N'}o sparsity up to {HIGHEST_SPARSITY:.0%} overtakes {' or '.join(never)}")
    if found.needed_bandwidth:
        slower = [
            f"{title[name]} from {rate / TERA:.1f} TB/s of memory down" for name, rate in found.needed_bandwidth.items()
        ]
        parts.append(f"at {found.sparsity:.0%} it would overtake {' and '.join(slower)}, all else equal")
    return "; ".join(parts) + "." if parts else ""
