"""`lscd predict --speedup`: which sparsity, which N and which memory make a kernel so much faster than dense?"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from lscd.errors import InputError
from lscd.printing import headline, print_table, say
from lscd.products import called, say_left_out, weights_words
from perfmodel.units import TERA

if TYPE_CHECKING:
    from perfmodel.catalog.cpu import Device
    from perfmodel.kernels import KernelModel

HEADER = ("kernel", "weights", "vs dense", "sparsity", "N", "DRAM [TB/s]")
NEVER = "never"


def invert(
    gpu: str, m: int, k: int, n: int, sparsity: float, kernel: str | None,
    how: dict[str, Any], speedup: float, as_json: bool,
) -> None:  # fmt: skip
    """Print where each kernel, or one, is ``speedup`` times as fast as dense: by sparsity, by N and by bandwidth.

    Raises
    ------
    ValueError
        If the speed-up is no number above 0, or the kernel cannot run the product.
    """
    from perfmodel.catalog import load_device
    from perfmodel.inverse import MOST_TOKENS
    from perfmodel.kernels import Machine, baseline_of, kernel_model, kernels_of
    from perfmodel.prediction import left_out

    if not 0 < speedup < math.inf:
        raise InputError(f"--speedup is {speedup:g}, allowed is a number above 0")
    if n > MOST_TOKENS:
        raise InputError(f"--n is {n}, allowed with --speedup is at most {MOST_TOKENS}")
    record = load_device(gpu)
    refused = left_out(record, n, sparsity)
    if kernel in refused:
        raise InputError(refused[kernel])
    models = [kernel_model(kernel)] if kernel is not None else [
        model for name, model in kernels_of(record).items() if name != baseline_of(record) and name not in refused
    ]  # fmt: skip
    product: dict[str, Any] = {"m": m, "k": k, "n": n}
    rows = [_inverse(model, record, product, sparsity, how, speedup) for model in models]
    answer = _sentence(rows[0], n, speedup) if kernel else _answer(rows, n, speedup)
    if as_json:
        question = {"gpu": record.key, **product, "sparsity": sparsity, **how, "speedup": speedup}
        looked = {"looked_for_up_to_n": MOST_TOKENS, "refused": {} if kernel else refused}
        print(json.dumps({**question, "answer": answer, "kernels": rows, **looked}, indent=2))
        return
    headline(answer)
    bandwidth = _rate(float(Machine.of(record).dram_bytes_per_s))
    say(
        f"{m} x {k}, N = {n}, sparsity {sparsity:.3g}, {record.name} with {bandwidth} TB/s, {called(how)}. Each of the "
        f"last three columns changes one thing and keeps the rest; N is looked for up to {MOST_TOKENS}. Predictions "
        "alone: without --speedup they have their intervals."
    )
    print_table(HEADER, [_cells(row) for row in rows], text=HEADER[:2])
    if not kernel:
        say_left_out(record, refused)


def _inverse(
    model: KernelModel, gpu: Device, product: dict[str, Any], sparsity: float, how: dict[str, Any], speedup: float
) -> dict[str, Any]:
    """Answers for one kernel; None stands for never, and for all that is unknown where only a bound of the time is."""
    from perfmodel.inverse import (
        bandwidths_for_speedup,
        product_speedup,
        sparsity_for_speedup,
        tokens_for_speedup,
    )
    from perfmodel.kernels.call import Call
    from perfmodel.kernels.fits import unmeasured_kernels

    own, call = float(model.own_sparsity(sparsity)), Call.of(**how)
    gain = product_speedup(model.name, gpu, **product, sparsity=own, call=call)
    found: dict[str, Any] = {
        "kernel": model.name,
        "change": model.format.change,
        "measured": model.name not in unmeasured_kernels(),
        "sparsity": own,
        "speedup_vs_dense": gain,
        "at_least": gain is None,
        "any_sparsity": model.format.depends_on_sparsity and not model.patterns,
        "needed_sparsity": None,
        "needed_n": None,
        "needed_bandwidth_bytes_per_s": None,
    }
    if gain is None:
        return found
    asked = (model.name, gpu, speedup)
    if found["any_sparsity"]:
        found["needed_sparsity"] = sparsity_for_speedup(*asked, **product, call=call)
    if (tokens := tokens_for_speedup(*asked, **product, sparsity=own, call=call)) is not None:
        found["needed_n"] = dict(zip(("from", "to"), tokens, strict=True))
    if (rates := bandwidths_for_speedup(*asked, **product, sparsity=own, call=call)) is not None:
        low, high = rates
        found["needed_bandwidth_bytes_per_s"] = {"from": low or None, "to": None if math.isinf(high) else high}
    return found


def _answer(rows: list[dict[str, Any]], n: int, speedup: float) -> str:
    """Which measured kernels reach it as asked, and which of those that take any sparsity needs the least."""
    from perfmodel.kernels import VARIANTS

    known = [row for row in rows if row["measured"] and not row["at_least"] and row["kernel"] not in VARIANTS]
    reaching = [row for row in known if row["speedup_vs_dense"] >= speedup]
    reaching.sort(key=lambda row: -row["speedup_vs_dense"])
    listed = ", ".join(f"{row['kernel']} ({row['speedup_vs_dense']:.2f}x)" for row in reaching)
    reached = f"reached by {listed}" if reaching else "no measured kernel reaches it"
    needing = [row for row in known if row["needed_sparsity"] is not None]
    if not needing:
        return f"{speedup:g}x dense at N = {n}: {reached}; no kernel that takes any sparsity does at one."
    least = min(needing, key=lambda row: row["needed_sparsity"])
    least_words = f"{least['kernel']} needs the least, {least['needed_sparsity']:.2f}"
    return f"{speedup:g}x dense at N = {n}: {reached}; of those that take any sparsity {least_words}."


def _sentence(row: dict[str, Any], n: int, speedup: float) -> str:
    """Answer for one kernel alone."""
    if row["at_least"]:
        return f"Of {row['kernel']} no more than a bound is known at N = {n}."
    doubt = "" if row["measured"] else ", which nobody has measured,"
    _, _, gain, *cells = _cells(row)
    asked = dict(zip(HEADER[3:], cells, strict=True))
    changed = ", ".join(f"{name} {cell}" for name, cell in asked.items() if cell != "-")
    here = f"{row['kernel']}{doubt} is {gain} dense at N = {n} and sparsity {row['sparsity']:.3g}"
    return f"{here}; {speedup:g}x at: {changed}."


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name, what = row["kernel"], weights_words(row["kernel"], row["sparsity"])
    if row["at_least"]:
        return name, what, *("unknown",) * 4
    share, tokens, rates = (row[f"needed_{key}"] for key in ("sparsity", "n", "bandwidth_bytes_per_s"))
    sparsity = NEVER if share is None else "any" if share == 0 else f"from {share:.2f}"
    return (
        name,
        what,
        f"{row['speedup_vs_dense']:.2f}x",
        sparsity if row["any_sparsity"] else "-",
        NEVER if tokens is None else f"{tokens['from']} - {tokens['to']}",
        NEVER if rates is None else _range(rates["from"], rates["to"]),
    )


def _range(low: float | None, high: float | None) -> str:
    """Bandwidths in words: from one up, from one down, or between."""
    if low is None:
        return "any" if high is None else f"{_rate(high)} down"
    return f"{_rate(low)} up" if high is None else f"{_rate(low)} - {_rate(high)}"


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / TERA:.2f}"
