"""One matrix product as the commands ask for it: the sparsity its options mean, and words for what a kernel is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lscd.errors import InputError
from lscd.printing import say
from perfmodel.catalog.cpu import Cpu
from perfmodel.catalog.specs import Activations

if TYPE_CHECKING:
    from perfmodel.catalog.cpu import Device
    from perfmodel.kernels import KernelModel


def asked_sparsity(kernel: str | None, sparsity: float | None, pattern: str | None) -> float:
    """The sparsity that the options mean; that of a pattern kernel is its pattern's.

    Raises
    ------
    InputError
        If they contradict each other or the kernel; names the values and what to type.
    """
    from perfmodel.kernels import kernel_model

    model = None if kernel is None else kernel_model(kernel)
    if pattern is not None:
        return _of_pattern(model, sparsity, pattern)
    if sparsity is None:
        return 0.0 if model is None else float(model.own_sparsity(0.0))
    return sparsity if model is None else _of_kernel(model, sparsity)


def _of_kernel(model: KernelModel, sparsity: float) -> float:
    """``sparsity``, refused if the kernel has a pattern and this is none of its."""
    from perfmodel.formats import check_sparsity
    from perfmodel.prediction import check_pattern

    check_sparsity(sparsity)
    try:
        check_pattern(model, sparsity)
    except ValueError as error:
        first = _patterns(model)[0]
        raise InputError(f"{error} as --sparsity; leave it out, or give --pattern {first}") from None
    return sparsity


def _of_pattern(model: KernelModel | None, sparsity: float | None, pattern: str) -> float:
    """Sparsity of ``pattern``, refused if it is unknown, none of the kernel's, or contradicts ``sparsity``."""
    from perfmodel.formats import PATTERNS
    from perfmodel.kernels import KERNELS
    from perfmodel.kernels.base import PATTERN_TOLERANCE

    if pattern not in PATTERNS:
        raise InputError(f"--pattern is {pattern!r}, allowed are {', '.join(PATTERNS)}")
    share = PATTERNS[pattern]
    if sparsity is not None and not abs(sparsity - share) < PATTERN_TOLERANCE:
        raise InputError(f"--sparsity is {sparsity:g}, but --pattern {pattern} has {share:.3g}; leave one of them out")
    if model is None or share in model.patterns:
        return share
    taking = [other for other in KERNELS.values() if share in other.patterns]
    if not model.patterns:
        names = ", ".join(other.name for other in taking)
        raise InputError(f"{model.name} has no pattern, got --pattern {pattern}; kernels of {pattern} are {names}")
    alike = [other.name for other in taking if other.precision == model.precision]
    takes = " or ".join(_patterns(model))
    only = f"{takes} only" if len(model.patterns) == 1 else takes
    raise InputError(f"{model.name} takes {only}, got --pattern {pattern}; use {' or '.join(alike)}")


def _patterns(model: KernelModel) -> list[str]:
    """Names of the patterns that a kernel takes, its usual one first."""
    from perfmodel.formats import PATTERNS

    names = {share: name for name, share in PATTERNS.items()}
    return [names[share] for share in model.patterns]


def called(how: dict[str, Any]) -> str:
    """How the products are called, in words."""
    come = "" if how["activations"] == Activations.FP16 else ", activations quantised already"
    return f"launched from a {how['launch']}, {how['cache']} cache{come}"


def weights_words(kernel: str, sparsity: float) -> str:
    """What becomes of the weights, or that nobody has measured or written the kernel; a pattern with its sparsity."""
    from perfmodel.formats import PATTERNS
    from perfmodel.kernels import KERNELS
    from perfmodel.kernels.rivals import standing

    model = KERNELS[kernel]
    if not model.patterns:
        return standing(model)
    name = next(name for name, share in PATTERNS.items() if share == sparsity)
    return f"{standing(model)}, {name} ({sparsity:.3g})"


def say_left_out(gpu: Device, refused: dict[str, str]) -> None:
    """Which kernels are missing from the table, by reason, in one line."""
    from perfmodel.kernels import KERNELS

    reasons: dict[str, list[str]] = {}
    for kernel in refused:
        reasons.setdefault(_reason(KERNELS[kernel], gpu), []).append(kernel)
    if reasons:
        listed = (f"{why}: {', '.join(kernels)}" for why, kernels in reasons.items())
        say(f"Left out: {'; '.join(listed)}.")


def _reason(model: KernelModel, gpu: Device) -> str:
    """Why a kernel is left out, in a few words."""
    if model.refusal(gpu) is None:
        return "no room in shared memory at this sparsity" if model.any_n else f"N of {model.supported_n} only"
    if isinstance(gpu, Cpu):
        return "measured without PyTorch"
    if gpu.architecture.amd and not model.on_amd:
        return "not modelled on AMD's GPUs"
    if float(gpu.compute_capability) < model.oldest:
        return f"compute capability below {model.oldest}"
    return f"no {'2:4 ' if model.sparse_cores else ''}{model.precision.value.upper()} Tensor Cores"
