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
    listed = "; ".join(f"{name}: {_cost_words(_costs(model, *asked))}" for name, asked in formats.items())
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
    from perfmodel.kernels import KERNELS

    found = _costs(model, KERNELS[rival.kernel].format_name, rival.sparsity)
    return {name: None if loss is None else asdict(loss) for name, loss in found.items()}


def _costs(model: str, format_name: str, sparsity: float) -> dict[str, Loss | None]:
    from perfmodel.evidence.ways import cost_of

    asked = (model, format_name, sparsity)
    return {"one_shot": cost_of(*asked), "retrained": cost_of(*asked, retrained=True)}


def _cost_words(losses: Mapping[str, Loss | None]) -> str:
    known = {name: loss for name, loss in losses.items() if loss is not None}
    trained = {"one_shot": "", "retrained": "retrained "}
    return ", ".join(f"{trained[name]}{loss.words}" for name, loss in known.items()) or "nothing published"
