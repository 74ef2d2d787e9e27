"""The five answers on the front pages: each a number with its interval and what it is held against.

Asked of one layer of `perfmodel.overtaking.LAYER_OF`, on the paper's GPU unless the sentence says otherwise. Sparse is
the fastest measured kernel for zeros anywhere that keeps 16-bit values; dense is FP16 on cuBLAS.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lscd.report.accuracy import BUDGETS, CHANGES, within_budget
from lscd.report.exhibit import Context, gpu_title, percent
from perfmodel.catalog import gpu_names, load_gpu, load_model
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.overtaking import LAYER_OF, SPARSITIES, Layer, layer_on, overtaking, unstructured
from perfmodel.worth import at_batch

GPU, OTHERS = "a100-80gb", ("h100", "rtx-4090")
TOKENS, LEVEL = 16, 0.8
BATCHES = np.arange(1, 513)
MODEL_GPUS = 2
LENGTHS: dict[str, Any] = {"input_len": 64, "output_len": 512}
RIVALS = ("int4", "fp8", "nvfp4")
Gain = tuple[float, float, float]  # speed over another kernel: prediction, low and high end of its 90 % interval


def first_answers() -> str:
    """The five answers as a numbered list in Markdown."""
    makers = (pays_from, pays_by, pays_up_to, pays_not_on, loses_to)
    return "\n".join(f"{number}. {make()}" for number, make in enumerate(makers, 1))


def pays_from() -> str:
    """From which sparsity."""
    here, *there = (overtaking(gpu, BASELINE, TOKENS) for gpu in (GPU, *OTHERS))
    listed = ", ".join(f"from {_share(each.sparsity)} on an {gpu_title(each.gpu)}" for each in there)
    beyond = [gpu_title(each.gpu) for each in (here, *there) if each.extrapolated]
    return (
        f"**From which sparsity?** From **{_share(here.sparsity)}** zeros on an {gpu_title(GPU)} (90 % interval: "
        f"{_share(here.low)} to {_share(here.high)}) {KERNELS[here.kernel].title} multiplies the weights of a layer of "
        f"{load_model(LAYER_OF).name} faster than dense FP16 (cuBLAS) does at {TOKENS} tokens; {listed}. At "
        f"these sparsities it is an extrapolation on {_listed(beyond) or 'none of them'}."
    )


def pays_by() -> str:
    """By how much at 80 %."""
    kernel, gain, _ = _fastest(GPU)
    model = load_model(LAYER_OF)
    step = at_batch(model, load_gpu(GPU), TOKENS, LEVEL, gpus=MODEL_GPUS, kernels=unstructured(GPU), **LENGTHS)
    assert step.sparse is not None
    return (
        f"**How much?** At {percent(LEVEL, 0)} zeros and {TOKENS} tokens {KERNELS[kernel].title} runs that layer at "
        f"{_times(gain)} the speed of dense on an {gpu_title(GPU)}, and a whole decoding step of {model.name} on "
        f"{MODEL_GPUS} of them at {_times(step.sparse.speedup_over(step.dense))}: the rest of a step stays."
    )


def pays_up_to() -> str:
    """Up to which batch."""
    ends = []
    for gpu in (GPU, *OTHERS):
        batch, inside = clear_until(gpu)
        bold = (f"**{batch}**" if gpu == GPU else f"{batch}") + (" or more" if batch == BATCHES[-1] else "")
        seen = f"in evidence up to {inside}" if inside else "all beyond the evidence"
        ends.append(f"{bold} on an {gpu_title(gpu)} ({seen})")
    return (
        f"**Up to which batch?** At {percent(LEVEL, 0)} zeros sparse is clearly faster than dense, by all of its 90 % "
        f"interval, up to this many tokens at a time: {', '.join(ends)}."
    )


def clear_until(gpu: str) -> tuple[int, int]:
    """Largest number of tokens up to which sparse is clearly faster than dense, and up to which that is in evidence."""
    dense = layer_on(BASELINE, gpu, BATCHES, 0.0)
    layers = [layer_on(name, gpu, BATCHES, LEVEL) for name in unstructured(gpu)]
    clear = np.array([layer.clearly_ahead_of(dense) for layer in layers])
    outside = np.array([layer.extrapolated for layer in layers]) | dense.extrapolated
    inside = (clear & ~outside).any(axis=0)
    return _leading(np.asarray(clear.any(axis=0))), int(BATCHES[inside].max(initial=0))


def pays_not_on() -> str:
    """On which GPUs not."""
    able = {gpu: _fastest(gpu) for gpu in gpu_names() if _runs_sparse(gpu)}
    lost = {gpu: gain for gpu, (_, gain, _) in able.items() if gain[1] <= 1}
    values = [gain[0] for gain in lost.values()]
    inside = [gpu_title(gpu) for gpu, (_, _, extrapolated) in able.items() if not extrapolated]
    without = _listed(gpu_title(gpu) for gpu in gpu_names() if gpu not in able)
    named = _listed(map(gpu_title, lost)) or "none"
    between = f" ({min(values):.2f}x to {max(values):.2f}x, each interval reaching 1 or below)" if values else ""
    return (
        f"**On which GPUs not?** On **{named}** {percent(LEVEL, 0)} zeros at {TOKENS} tokens are not clearly faster "
        f"than dense{between}; on the other {len(able) - len(lost)} of {len(able)} they are. Within the evidence: "
        f"{_listed(inside) or 'none'} only. For {without} no such kernel is modelled."
    )


def loses_to() -> str:
    """Against which rivals it loses, in speed and at equal quality."""
    told = []
    for rival in RIVALS:
        gains = against(rival)
        slower = sum(high < 1 for _, _, high in gains.values())
        faster = sum(low > 1 for _, low, _ in gains.values())
        told.append(f"{KERNELS[rival].title} on {slower} of {len(gains)} GPUs (clearly faster on {faster})")
    table = within_budget(Context()).table
    strict = table[(table["budget"] == min(BUDGETS)) & (table["kind"] == "any")]
    count = strict["change"].value_counts()
    others = ", ".join(f"{CHANGES[change]} in {n}" for change, n in count.items() if change != "pruned")
    return (
        f"**Against which rival does it lose?** At {percent(LEVEL, 0)} zeros and {TOKENS} tokens it is clearly slower "
        f"than {', than '.join(told)}; on an {gpu_title(GPU)} it has {_times(against(RIVALS[0])[GPU])} the speed of "
        f"{KERNELS[RIVALS[0]].title}. At equal quality, within {min(BUDGETS):g} point by published results, pruning is "
        f"the fastest way in **{count.get('pruned', 0)} of {len(strict)}** cases of model and GPU; {others}."
    )


def against(rival: str) -> dict[str, Gain]:
    """Speed of sparse over ``rival`` on each GPU that runs both."""
    able = [gpu for gpu in gpu_names() if _runs_sparse(gpu) and KERNELS[rival].refusal(load_gpu(gpu)) is None]
    return {gpu: _sparse(gpu)[1].speedup_over(layer_on(rival, gpu, TOKENS, 0.0)) for gpu in able}


@cache
def _sparse(gpu: str) -> tuple[str, Layer]:
    """The fastest kernel for zeros anywhere, and the layer on it."""
    layers = {name: layer_on(name, gpu, TOKENS, LEVEL) for name in unstructured(gpu)}
    name = min(layers, key=lambda each: float(np.nan_to_num(layers[each].time_s, nan=np.inf)))
    return name, layers[name]


def _fastest(gpu: str) -> tuple[str, Gain, bool]:
    """That kernel, its speed over dense, and whether either is outside its evidence."""
    name, layer = _sparse(gpu)
    dense = layer_on(BASELINE, gpu, TOKENS, 0.0)
    return name, layer.speedup_over(dense), bool(layer.extrapolated | dense.extrapolated)


def _runs_sparse(gpu: str) -> bool:
    return bool(unstructured(gpu))


def _leading(holds: NDArray[np.bool_]) -> int:
    """The last batch before the first at which it no longer holds; 0 if it does not at the first."""
    return int(BATCHES[-1]) if holds.all() else int(np.argmin(holds)) and int(BATCHES[np.argmin(holds) - 1])


def _share(value: float) -> str:
    """A sparsity, where the range that was searched may end: at most its lowest, or nowhere."""
    if np.isnan(value):
        return f"nowhere up to {percent(SPARSITIES[-1], 0)}"
    return percent(value, 0) + (" or less" if value <= SPARSITIES[0] else "")


def _times(gain: Gain) -> str:
    value, low, high = gain
    return f"**{value:.2f}x** ({low:.2f} to {high:.2f})"


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last
