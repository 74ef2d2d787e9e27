"""Which systems take part in a comparison, and what does each do to the weights?"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.catalog import load_gpu
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.formats import FORMATS
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE, drops_more, rivals, standing
from perfmodel.serving.systems import HOST, SYSTEMS, System, load_system


def hosted_systems(engine: str = HOST, unmeasured: bool = False) -> dict[str, str]:
    """An engine with each kernel that no published system has and that reads prompts, by name: the measured ones.

    Flash-LLM, which is a system of its own beside FasterTransformer, is one more kernel in any other. With
    ``unmeasured`` those too that nobody has measured.
    """
    published = {system.kernel for system in SYSTEMS.values()} if engine == HOST else {BASELINE}
    able = [model.name for model in rivals(unmeasured=unmeasured) if not model.one_token]
    return {f"{engine}+{kernel}": kernel for kernel in able if kernel not in published | BOUNDED}


def rival_systems(gpu: str | Gpu, sparsity: float, engine: str = HOST) -> tuple[str, ...]:
    """Systems that a plan compares: the published ones or an engine, then `hosted_systems`, without the `absent`.

    Published ones that would keep weights of this sparsity dense stay.
    """
    card = load_gpu(gpu)
    own = tuple(SYSTEMS) if engine == HOST else (engine,)
    hosted = (name for name in hosted_systems(engine) if not absent(load_system(name), card, sparsity))
    return (*(name for name in own if not _unfit(load_system(name), card, sparsity)), *hosted)


def absent(system: System, gpu: Gpu, sparsity: float) -> str | None:
    """Why a system has no part in a comparison of weights pruned to ``sparsity``, in a sentence; None where it has.

    The GPU does not run it, its pattern drops more weights, or its format prunes and would keep these weights dense.
    """
    if (reason := _unfit(system, gpu, sparsity)) is not None:
        return reason
    if system.format.prunes and not system.stores_sparse(system.own_sparsity(sparsity)):
        return f"it keeps weights of {sparsity:.0%} sparsity dense"
    return None


def _unfit(system: System, gpu: Gpu, sparsity: float) -> str | None:
    if (refusal := system.refusal(gpu)) is not None:
        return refusal
    if drops_more(system, sparsity):
        return f"its pattern drops {system.own_sparsity(sparsity):.0%} of the weights, more than {sparsity:.0%}"
    return None


def of_formats(systems: Sequence[str], formats: Sequence[str]) -> tuple[str, ...]:
    """Those whose weights are stored in one of ``formats``, or dense.

    Raises
    ------
    ValueError
        If a format is unknown (suggests the nearest), or no system has any of them.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(unknown_name("format", name, [*FORMATS]))
    if not formats:
        return tuple(systems)
    kept = tuple(name for name in systems if load_system(name).format.name in {"dense", *formats})
    if all(load_system(name).keeps_dense for name in kept):
        raise ValueError(f"no system compared stores weights in {' or '.join(formats)}; name one with --systems")
    return kept


def change(system: System, sparsity: float, model: LanguageModel | None = None) -> str:
    """What becomes of the weights at ``sparsity``, or "not measured" (`perfmodel.kernels.rivals`).

    Nothing does where the system would keep matrices of this sparsity dense, unless the checkpoint of ``model`` has
    rounded them before. A format without a kernel counts as not measured.
    """
    if model is not None and model.stored is not None and system.keeps_dense:
        return WHOLE[1]
    if not system.stores_sparse(system.own_sparsity(sparsity)):
        return WHOLE[0]
    return NOT_MEASURED if system.kernel is None else standing(KERNELS[system.kernel])


def own_sparsity(system: System, sparsity: float | Sparsities) -> float | Sparsities:
    """What a system makes of it: its pattern's, where it has one; nothing where it keeps weights dense."""
    if system.keeps_dense:
        return 0.0
    if isinstance(sparsity, Sparsities):
        return float(system.own_sparsity(0.0)) if system.patterns else sparsity
    return float(system.own_sparsity(sparsity))
