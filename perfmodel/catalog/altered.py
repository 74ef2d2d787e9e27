"""A card like another with some numbers changed: what would a GPU of more bandwidth, fewer SMs, a larger L2 do?

What follows from a number follows it: peaks go with SMs and clock, and so does the rate of the L2, as for the cards of
the catalogue whose L2 nobody has read; the L2's size is changed alone. Latencies of the caches are cycles, and stay;
the part of device memory's that lies beyond the L2 is a time, and takes more cycles of a faster clock. The board's
power limit stays, and with it what products of many tokens reach (`perfmodel.kernels.limits`).

Nobody has measured such a card. It has a key of its own, so that every prediction on it is marked as extrapolated, with
the interval of a card that no fit has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from perfmodel.catalog.arguments import record
from perfmodel.catalog.arrays import number
from perfmodel.catalog.files import convert
from perfmodel.catalog.specs import Gpu

LEAST, MOST = 0.1, 10.0  # times what the card has; what is further away is no card like it
WORDS = {"bandwidth": "DRAM bandwidth", "clock": "clock", "l2": "L2 size", "memory": "DRAM size", "price": "price"}
LIKE = "like "
KEY = "-like"


def altered(
    gpu: Gpu,
    *,
    bandwidth: float = 1.0,
    sms: float = 1.0,
    clock: float = 1.0,
    l2: float = 1.0,
    memory: float = 1.0,
    price: float = 1.0,
) -> Gpu:
    """``gpu`` with some of its numbers multiplied by factors from `LEAST` to `MOST`; itself if nothing changes.

    Parameters
    ----------
    gpu
        A card of the catalogue, or one's own.
    bandwidth, memory
        Of the device memory's rate, and of its size.
    sms
        Of the number of streaming multiprocessors, which is rounded to a whole one.
    clock
        Of every clock of the SMs.
    l2
        Of the L2's size.
    price
        Of both ends of its price.

    Returns
    -------
    Gpu
        With a key and a name of its own; each changed group's ``source`` says what was changed.

    Raises
    ------
    ValueError
        If a factor is out of range, the card has no price to change, or a number leaves the range that a record
        allows; names it.

    Examples
    --------
    >>> from perfmodel.catalog import load_gpu
    >>> card = altered(load_gpu("h100"), bandwidth=1.5, sms=0.8)
    >>> card.key, card.name, card.clock.sm_count
    ('h100-like', 'like NVIDIA H100 SXM5 80GB: 1.5x DRAM bandwidth, 106 SMs', 106)
    """
    record("gpu", gpu, Gpu)
    asked = {"bandwidth": bandwidth, "sms": sms, "clock": clock, "l2": l2, "memory": memory, "price": price}
    factors = {name: number(name, value, LEAST, MOST) for name, value in asked.items()}
    if gpu.price is None and factors["price"] != 1:
        raise ValueError(f"price is {factors['price']:g}, but {gpu.name} has no price to change")
    sm_count = max(round(factors.pop("sms") * gpu.clock.sm_count), 1)
    words = [f"{factor:.4g}x {WORDS[name]}" for name, factor in factors.items() if factor != 1]
    words += [f"{sm_count} SMs"] * (sm_count != gpu.clock.sm_count)
    if not words:
        return gpu
    fields = msgspec.to_builtins(gpu)
    for group, values in _changes(gpu, sm_count, factors).items():
        _change(fields[group], values, gpu.name)
    fields["key"] = gpu.key.removesuffix(KEY) + KEY
    fields["name"] = f"{LIKE}{gpu.name.removeprefix(LIKE)}: {', '.join(words)}"
    return convert(fields, Gpu, Path(fields["key"]))


def _changes(gpu: Gpu, sm_count: int, factors: dict[str, float]) -> dict[str, dict[str, float]]:
    """Numbers by group and field, all those that a factor has to do with."""
    clock, latency = factors["clock"], gpu.latency
    rate = sm_count / gpu.clock.sm_count * clock
    beyond_l2 = latency.dram_cycles - latency.l2_cycles
    scaled = {
        "clock": (gpu.clock, {"boost_hz": clock, "tensor_hz": clock, "reached_hz": clock}),
        "peak": (gpu.peak, dict.fromkeys(gpu.peak.__struct_fields__, rate)),
        "dram": (gpu.dram, {"bandwidth_bytes_per_s": factors["bandwidth"], "size_bytes": factors["memory"]}),
        "l2": (gpu.l2, {"size_bytes": factors["l2"], "bandwidth_bytes_per_s": rate}),
        "price": (gpu.price, dict.fromkeys(("low_usd_per_hour", "high_usd_per_hour"), factors["price"])),
    }
    found = {group: _scaled(values, by) for group, (values, by) in scaled.items()}
    found["clock"]["sm_count"] = sm_count
    found["latency"] = {"dram_cycles": latency.dram_cycles + beyond_l2 * (clock - 1)}
    return found


def _scaled(group: Any, factors: dict[str, float]) -> dict[str, float]:
    """Fields of a group times their factors; those that it lacks, and its source, stay away."""
    given = {name: getattr(group, name, None) for name in factors}
    return {name: value * factors[name] for name, value in given.items() if isinstance(value, float)}


def _change(group: dict[str, Any] | None, values: dict[str, float], card: str) -> None:
    """Put ``values`` into a group, and what they stood at on the ``card`` into its source."""
    differ = {name: value for name, value in values.items() if group is not None and value != group[name]}
    if group is not None and differ:
        told = ", ".join(f"{name} {value:g} in place of {group[name]:g}" for name, value in differ.items())
        group |= differ | {"source": f"what-if: {told} of {card}; there: {group['source']}"}


def toml_of(gpu: Gpu) -> str:
    """The record as TOML, which `load_gpu` reads back equal from a file of the name ``KEY.toml``."""
    fields = msgspec.to_builtins(gpu)
    del fields["key"]
    known = {
        name: {key: number for key, number in value.items() if number is not None} if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }
    return tomli_w.dumps(known)
