"""What commands on speed say of quality: published losses beside each verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfmodel.evidence.accuracy import Loss
    from perfmodel.worth import Rival, Worth


def quality_line(model: str, formats: Mapping[str, tuple[str, float]]) -> str:
    """What the formats of kernels or systems named, each at a sparsity, cost a model by published results."""
    from perfmodel.evidence.ways import costs_of

    listed = "; ".join(f"{name}: {_cost_words(costs_of(model, *asked))}" for name, asked in formats.items())
    return f"Published quality of {model}: {listed}." if listed else ""


def best_formats(found: Worth) -> dict[str, tuple[str, float]]:
    """Kernel, format and sparsity of the best of each kind, where the weights change."""
    from perfmodel.kernels import KERNELS

    at = found.headline
    kinds = (rival for rival in (at.sparse, at.mild, at.whole, at.both) if rival is not None)
    changed = (rival for rival in kinds if rival.change != "lossless")
    return {rival.kernel: (KERNELS[rival.kernel].format_name, rival.sparsity) for rival in changed}


def quality(model: str, rival: Rival) -> dict[str, Any]:
    """Published losses of a rival's weights, in one shot and retrained; null where nothing is published."""
    from perfmodel.evidence.accuracy import TRAININGS
    from perfmodel.evidence.ways import costs_of
    from perfmodel.kernels import KERNELS

    found = costs_of(model, KERNELS[rival.kernel].format_name, rival.sparsity)
    return {name.replace(" ", "_"): asdict(found[name]) if name in found else None for name in TRAININGS}


def _cost_words(losses: Mapping[str, Loss]) -> str:
    from perfmodel.evidence.accuracy import TRAININGS

    said = (f"{'retrained ' * TRAININGS[name]}{loss.words}" for name, loss in losses.items())
    return ", ".join(said) or "nothing published"
