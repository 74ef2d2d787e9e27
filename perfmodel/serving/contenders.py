"""Which systems take part in a comparison, and what does each do to the weights?"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.catalog import load_gpu
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Gpu
from perfmodel.formats import FORMATS
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE, drops_more, rivals, standing
from perfmodel.serving.systems import HOST, SYSTEMS, System, load_system


def hosted_systems(engine: str = HOST) -> dict[str, str]:
    """An engine with each measured kernel that no published system has and that reads prompts, by name.

    Flash-LLM, which is a system of its own beside FasterTransformer, is one more kernel in any other.
    """
    published = {system.kernel for system in SYSTEMS.values()} if engine == HOST else {BASELINE}
    known = [model.name for model in rivals() if model.name not in published | BOUNDED and not model.one_token]
    return {f"{engine}+{kernel}": kernel for kernel in known}


def rival_systems(gpu: str | Gpu, sparsity: float, engine: str = HOST) -> tuple[str, ...]:
    """Systems that a plan compares: the published ones or an engine, then `hosted_systems`, without what has no part.

    That are systems whose kernel the GPU refuses or whose pattern drops more weights than ``sparsity``, and hosted ones
    that would keep weights of this sparsity dense.
    """
    card = load_gpu(gpu)
    own = tuple(SYSTEMS) if engine == HOST else (engine,)
    found = []
    for name in (*own, *hosted_systems(engine)):
        system = load_system(name)
        model = KERNELS[system.kernel or BASELINE]
        runs = model.refusal(card) is None and not drops_more(model, sparsity)
        if runs and (name in own or change(system, sparsity) not in WHOLE or not model.format.prunes):
            found.append(name)
    return tuple(found)


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
