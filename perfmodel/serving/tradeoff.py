"""Throughput against latency: tokens/s of a GPU over tokens/s of a user, every weight format of one engine, the front.

More sequences at a time are more tokens for the GPU and fewer for each user; formats differ in where that exchange
ends. All are compared in one engine, vLLM unless another is asked for: it is what `lscd serve` answers for and most
people run, and two engines' hosts would put their own difference on top of that of the formats. What nobody has
measured may be shown, and is never on the front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.arguments import text, texts, whole_number, wholes
from perfmodel.catalog.arrays import number
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.formats import check_sparsity
from perfmodel.kernels.rivals import NOT_MEASURED, WHOLE
from perfmodel.serving.contenders import absent, change, hosted_systems, own_sparsity
from perfmodel.serving.group import resolve
from perfmodel.serving.planning import Limits
from perfmodel.serving.run import evaluate
from perfmodel.serving.steady import serve_each
from perfmodel.serving.systems import VLLM, System, load_system
from perfmodel.serving.transformer import mean_sparsity

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Asked = tuple[System, float | Sparsities]  # a system and the sparsity that it is asked for

BATCHES = tuple(2**power for power in range(11))
LEAST_OUTPUT = 2  # tokens; a single one has no step, and its user no rate
VALUES = ("tokens_per_gpu_s", "low", "high", "ttft_s", "tpot_s")


def tradeoff(
    model: str | LanguageModel,
    gpu: str | Gpu,
    *,
    gpus: int = 1,
    batches: Sequence[int] = BATCHES,
    input_len: int = 1024,
    output_len: int = 256,
    sparsity: float | Sparsities = 0.0,
    systems: Sequence[str] | None = None,
    engine: str = VLLM,
    unmeasured: bool = False,
    served: bool = False,
    ttft_s: float = math.inf,
    tpot_s: float = math.inf,
    **how: Any,
) -> pd.DataFrame:
    """Tokens/s of a GPU and of a user for each system and batch, and which of them are on the Pareto front.

    Parameters
    ----------
    model, gpu
        Catalogue names, paths, or records.
    gpus : int
        GPUs that share the model.
    batches : sequence of int
        Sequences decoded together; with ``served`` the users in the server.
    input_len, output_len : int
        Tokens of each prompt, at least two tokens generated for it.
    sparsity : float or Sparsities
        Fraction of zeros that pruning reaches, or that of each matrix in each layer; patterns of more (on average) take
        no part.
    systems : sequence of str
        Names of `perfmodel.serving.systems.load_system`; by default ``engine``, dense, and with every kernel that
        somebody has measured, with ``unmeasured`` with all others too.
    served : bool
        A loaded server in the steady state (`steady.serve`) in place of a batch that starts together (`evaluate`).
    ttft_s, tpot_s : float
        Limits in seconds; means of a loaded server.
    how
        Further arguments of `evaluate` and `serve`: ``expert_parallel``, ``cache_bits``.

    Returns
    -------
    DataFrame
        A row for each system and batch: ``system, title, change`` (what becomes of the weights), ``sparsity`` (of
        zeros that it makes use of), ``measured`` (somebody has measured its kernel), ``extrapolated, bound`` (no kernel
        of its format is known), ``batch``, ``tokens_per_user_s`` (1 / TPOT), ``tokens_per_gpu_s``, ``low`` and ``high``
        end of its 90 % interval, ``ttft_s, tpot_s``, ``fits``, ``keeps`` (both limits), ``front``, ``ties`` (not on the
        front, and by intervals as good). Where a row does not fit there are no numbers (NaN).
        ``attrs["left_out"]`` says by name why systems asked for have no part.

    Raises
    ------
    ValueError
        As `evaluate` and `serve`; if no system has a part, with the reasons.

    Examples
    --------
    >>> table = tradeoff("llama-3.1-8b", "h100", batches=[1, 64], systems=["vllm", "vllm+fp8"])
    >>> table.loc[table["front"], ["system", "batch"]].values.tolist()
    [['vllm+fp8', 1], ['vllm+fp8', 64]]
    """
    import pandas as pd

    record, card, _ = resolve(model, gpu, text("engine", engine))
    limits = Limits(ttft_s=number("ttft_s", ttft_s), tpot_s=number("tpot_s", tpot_s))
    loads = np.array(wholes("batches", batches))
    asked: dict[str, Any] = {
        "gpus": whole_number("gpus", gpus),
        "input_len": whole_number("input_len", input_len),
        "output_len": whole_number("output_len", output_len, LEAST_OUTPUT),
        **how,
    }
    if not isinstance(sparsity, Sparsities):
        sparsity = number("sparsity", check_sparsity(sparsity))
    mean = mean_sparsity(record.shape, sparsity) if isinstance(sparsity, Sparsities) else sparsity
    names = (engine, *hosted_systems(engine, unmeasured)) if systems is None else texts("systems", systems)
    takes_part, left_out = _parted(names, card, mean)
    pairs = [(system, own_sparsity(system, sparsity)) for system in takes_part]
    found = (_loaded if served else _together)(record, card, pairs, loads, asked)
    tables = [_described(system, record, mean, loads) | found[system.name] for system in takes_part]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    table = pd.DataFrame(columns | _judged(columns, limits))
    table.attrs["left_out"] = left_out
    return table


def _parted(names: Sequence[str], gpu: Gpu, sparsity: float) -> tuple[list[System], dict[str, str]]:
    """Systems that take part, and why the others do not."""
    found = {name: load_system(name) for name in dict.fromkeys(names)}
    reasons = {name: absent(system, gpu, sparsity) for name, system in found.items()}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    if len(left_out) == len(found):
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"no system to compare: {told or 'systems is empty'}")
    return [system for name, system in found.items() if name not in left_out], left_out


def _described(system: System, model: LanguageModel, sparsity: float, loads: NDArray[np.int64]) -> dict[str, Any]:
    """What is the same for every load."""
    fate = change(system, sparsity, model)
    same = {
        "system": system.name,
        "title": system.title,
        "change": fate,
        "sparsity": 0.0 if fate in WHOLE else float(system.own_sparsity(sparsity)),
        "measured": fate != NOT_MEASURED,
        "bound": system.is_bound,
    }
    return {name: np.full(len(loads), value) for name, value in same.items()} | {"batch": loads}


def _together(
    model: LanguageModel, gpu: Gpu, systems: Sequence[Asked], batches: NDArray[np.int64], asked: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Batches that start together, by system."""
    found = {}
    for system, sparsity in systems:
        run = evaluate(model, gpu, system, batch=batches, sparsity=sparsity, **asked)
        values = (run.tokens_per_gpu_s, *run.tokens_per_gpu_s_interval, run.ttft_s, run.tpot_s)
        found[system.name] = _known(values, run.memory.fits) | {"extrapolated": run.extrapolated}
    return found


def _loaded(
    model: LanguageModel, gpu: Gpu, systems: Sequence[Asked], users: NDArray[np.int64], asked: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Servers with so many users, by system; as sure as a batch of the sequences that decode there."""
    found = {}
    for engine in dict.fromkeys(system.engine for system, _ in systems):
        alike = [(system, sparsity) for system, sparsity in systems if system.engine == engine]
        loads = serve_each(model, gpu, alike, users=users, **asked)
        for (system, sparsity), load in zip(alike, loads, strict=True):
            decoding = np.maximum(np.round(np.nan_to_num(load.decoding)), 1)
            run = evaluate(model, gpu, system, batch=decoding, sparsity=sparsity, **asked)
            ends = (end / run.tokens_per_gpu_s * load.tokens_per_gpu_s for end in run.tokens_per_gpu_s_interval)
            values = (load.tokens_per_gpu_s, *ends, load.ttft_s, load.tpot_s)
            found[system.name] = _known(values, load.fits) | {"extrapolated": run.extrapolated}
    return found


def _known(values: Sequence[Array], fits: NDArray[np.bool_]) -> dict[str, Any]:
    """`VALUES` where they fit, and what a user gets."""
    shape = values[0].shape
    known = {name: np.where(fits, value, np.nan) for name, value in zip(VALUES, values, strict=True)}
    return {"tokens_per_user_s": 1 / known["tpot_s"], **known, "fits": np.broadcast_to(fits, shape)}


def _judged(columns: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """``keeps``, ``front`` and ``ties``."""
    keeps = columns["fits"] & (columns["ttft_s"] <= limits.ttft_s) & (columns["tpot_s"] <= limits.tpot_s)
    able = keeps & columns["measured"]
    user, rate = columns["tokens_per_user_s"], columns["tokens_per_gpu_s"]
    front = np.zeros(len(user), dtype=np.bool_)
    front[able] = on_front(user[able], rate[able])
    ties = able & ~front & _reaches(columns, front)
    return {"keeps": keeps, "front": front, "ties": ties}


def on_front(first: Array, second: Array) -> NDArray[np.bool_]:
    """Where no other pair is at least as large in both and larger in one."""
    pairs, place = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)
    # By the first, then the second: whoever comes later has more of the first, or as much of it and more of the second.
    later = np.maximum.accumulate(np.append(pairs[:, 1], -np.inf)[::-1])[::-1][1:]
    return np.asarray((pairs[:, 1] > later)[place.ravel()])


def _reaches(columns: dict[str, Any], front: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the interval of throughput overlaps that of the best of the front that gives a user as much."""
    order = np.argsort(columns["tokens_per_user_s"][front])
    user, low = (columns[name][front][order] for name in ("tokens_per_user_s", "low"))
    at = np.searchsorted(user, columns["tokens_per_user_s"])
    return np.asarray(columns["high"] >= np.append(low, np.inf)[at])
