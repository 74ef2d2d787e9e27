"""`lscd predict`: times of one matrix product on every kernel, or of a table of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson, OutputCsv
from lscd.errors import InputError, batch_files, refuse_missing, written_whole
from lscd.inverse import invert
from lscd.printing import headline, print_table, say
from lscd.products import asked_sparsity, called, say_left_out, weights_words
from perfmodel.catalog.specs import Activations, Cache, Launch

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.catalog.cpu import Device
    from perfmodel.kernels import KernelModel
    from perfmodel.prediction import Prediction


def predict(
    context: typer.Context,
    gpu: Annotated[
        str,
        typer.Option(help="GPU or CPU: a name from `lscd gpus`, or a TOML file of your own; @2 after it: 2 threads."),
    ] = "",
    m: Annotated[int, typer.Option(show_default=False, help="Rows of the weight matrix (output features).")] = 0,
    k: Annotated[int, typer.Option(show_default=False, help="Columns of the weight matrix (input features).")] = 0,
    n: Annotated[int, typer.Option(show_default=False, help="Tokens in flight: batch x tokens per step.")] = 0,
    sparsity: Annotated[
        float | None,
        typer.Option(help="Fraction of zero weights, 0 to 1; dense, or a pattern kernel's own, by default."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Weights pruned to a pattern, which sets the sparsity: 2:4, 4:6, 6:8 or 8:10.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="Only this kernel; names from `lscd kernels list`.")] = None,
    launch: Annotated[str, typer.Option(help="stream, or graph: replayed from a CUDA graph.")] = Launch.STREAM.value,
    cache: Annotated[
        str, typer.Option(help="cold: every byte from device memory; warm: called in a loop, as in a benchmark.")
    ] = Cache.COLD.value,
    activations: Annotated[
        str,
        typer.Option(
            help="fp16: kernels of less than 16 bits quantise them in a launch before; quantised: they come so."
        ),
    ] = Activations.FP16.value,
    split_k: Annotated[
        int | None, typer.Option("--split-k", help="Ways to share K among blocks; the kernel's own choice by default.")
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            help="Ask the other way: which sparsity, N and DRAM bandwidth make a kernel so much faster than dense."
        ),
    ] = None,
    as_json: AsJson = False,
    input_csv: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV with columns gpu, m, k, n, sparsity, kernel and, where wanted, launch (stream), cache (cold), "
            "activations (fp16), split_k (the kernel's own).",
        ),
    ] = None,
    output_csv: OutputCsv = None,
) -> None:
    """Predict the time of C[m,n] = A[m,k] @ B[k,n] with sparse weights A, beside the evidence."""
    files = batch_files(context, input_csv, output_csv)
    if files is not None:
        _predict_table(*files)
        return
    refuse_missing(context, "--gpu a100-80gb --m 36864 --k 9216 --n 8", "gpu", "m", "k", "n")
    how = {"launch": launch, "cache": cache, "split_k": split_k, "activations": activations}
    share = asked_sparsity(kernel, sparsity, pattern)
    if speedup is None:
        _predict_one(gpu, m, k, n, share, kernel, how, as_json)
    else:
        invert(gpu, m, k, n, share, kernel, how, speedup, as_json)


def _predict_one(
    gpu: str, m: int, k: int, n: int, sparsity: float, kernel: str | None, how: dict[str, Any], as_json: bool
) -> None:
    from perfmodel.catalog import load_device
    from perfmodel.evidence.rows import kernel_evidence
    from perfmodel.evidence.validation import join_predictions
    from perfmodel.kernels import BASELINE
    from perfmodel.kernels.fits import calibrated
    from perfmodel.prediction import left_out, predict_all
    from perfmodel.prediction import predict as predict_kernel

    record = load_device(gpu)
    # A kernel that cannot take this N must not hide the others; asked for alone, it is an error.
    if kernel is not None:
        found, refused = [(n, predict_kernel(kernel, record, m, k, n, sparsity, **how))], {}
    else:
        found, refused = list(predict_all(record, m, k, n, sparsity, **how)), left_out(record, n, sparsity)
    evidence = kernel_evidence(calibrated(BASELINE))
    joined = join_predictions(evidence[evidence["gpu"] == record.key])
    results = [
        _row(prediction, joined, (m, k, tokens, float(prediction.sparsity)), how) for tokens, prediction in found
    ]
    if as_json:
        question = {"gpu": record.key, "m": m, "k": k, "n": n, "sparsity": sparsity, **how}
        print(json.dumps({**question, "kernels": results, "refused": refused}, indent=2))
    else:
        _print(record, m, k, n, sparsity, how, results)
        say_left_out(record, refused)


def _row(
    prediction: Prediction, joined: pd.DataFrame, product: tuple[int, int, int, float], how: dict[str, Any]
) -> dict[str, Any]:
    from perfmodel.kernels import KERNELS

    return {
        "kernel": prediction.kernel,
        "n": product[2],
        "sparsity": product[3],
        "change": KERNELS[prediction.kernel].format.change,
        "time_us": float(prediction.time_s) * 1e6,
        "lo_us": float(prediction.lo_s) * 1e6,
        "hi_us": None if prediction.at_least else float(prediction.hi_s) * 1e6,
        "speedup_vs_dense": float(prediction.speedup_vs_dense),
        "dram_bytes": float(prediction.dram_bytes),
        "bound": str(prediction.bound.item()),
        "extrapolated": bool(prediction.extrapolated),
        "evidence": _evidence(prediction, joined, product, how),
        "measured": prediction.measured,
        "at_least": bool(prediction.at_least),
        "in_l2": bool(prediction.resident),
    }


def _evidence(
    prediction: Prediction, joined: pd.DataFrame, product: tuple[int, int, int, float], how: dict[str, Any]
) -> dict[str, Any] | None:
    """The nearest published row, and the model's mean error on rows of this kernel it was not fitted on."""
    from perfmodel.evidence.summary import held_out
    from perfmodel.evidence.validation import nearest_evidence

    (m, k, n, sparsity), kernel, gpu = product, prediction.kernel, prediction.gpu
    asked = {"launch": how["launch"], "resident": bool(prediction.resident)}
    row = nearest_evidence(joined, kernel, gpu, *product, **asked)
    if row is None:
        return None
    scored = joined[(joined["kernel"] == kernel) & (joined["gpu"] == gpu)]
    scored = held_out(scored[~scored["resident"]])
    same_shape = (row["m"], row["k"], row["n"]) == (m, k, n)
    exact = same_shape and not _other_zeros(kernel, float(row["sparsity"]), sparsity)
    called = {"launch": str(row["launch"]), "in_l2": bool(row["resident"]), "split_k": _whole(row["split_k"])}
    exact &= (called["launch"], called["in_l2"]) == tuple(asked.values())
    exact &= how["split_k"] in (None, called["split_k"])
    return {
        "exact": bool(exact),
        "m": int(row["m"]),
        "k": int(row["k"]),
        "n": int(row["n"]),
        "sparsity": float(row["sparsity"]),
        **called,
        "time_us": float(row["time_us"]),
        "error": float(row["error"]),
        "fitted": bool(row["fitted"]),
        "source": str(row["source"]),
        "held_out_mean_error": None if scored.empty else float(scored["error"].abs().mean()),
    }


def _other_zeros(kernel: str, sparsity: float, asked: float) -> bool:
    """Whether the kernel's time depends on the sparsity, and this is another one than ``asked``."""
    from perfmodel.kernels import KERNELS
    from perfmodel.kernels.base import PATTERN_TOLERANCE

    model = KERNELS[kernel]
    if model.patterns:
        return abs(sparsity - asked) >= PATTERN_TOLERANCE
    return model.format.depends_on_sparsity and sparsity != asked


def _whole(number: float) -> int | None:
    return None if math.isnan(number) else int(number)


def _print(
    gpu: Device, m: int, k: int, n: int, sparsity: float, how: dict[str, Any], results: list[dict[str, Any]]
) -> None:
    headline(_fastest(results))
    say(f"{m} x {k}, N = {n}, sparsity {sparsity:.3g}, {gpu.name}, {called(how)}")
    far = [row["kernel"] for row in results if row["measured"] and row["extrapolated"]]
    if far:
        which = ", ".join(far) if len(far) < sum(row["measured"] for row in results) else "all measured kernels"
        say(f"Extrapolated, outside what their models were fitted on: {which}.")
    header = (
        "kernel",
        "time [us]",
        "90 % interval",
        "vs dense",
        "DRAM [MB]",
        "weights",
        "bound by",
        "nearest evidence: our error",
    )
    rows = [
        (
            row["kernel"],
            *_times(row),
            f"{row['dram_bytes'] / 1e6:.1f}",
            weights_words(row["kernel"], row["sparsity"]),
            row["bound"],
            _evidence_words(row, m, k, n, how),
        )
        for row in results
    ]
    print_table(header, rows, text=("kernel", "weights", "bound by", header[-1]))


def _times(row: dict[str, Any]) -> tuple[str, str, str]:
    """Time, interval and speed-up; where only a bound is known, in words that say so."""
    if row["at_least"]:
        return f"at least {row['time_us']:.0f}", "-", f"at most {row['speedup_vs_dense']:.2f}x"
    interval = f"{row['lo_us']:.0f} - {row['hi_us']:.0f}"
    return f"{row['time_us']:.1f}", interval, f"{row['speedup_vs_dense']:.2f}x"


def _fastest(results: list[dict[str, Any]]) -> str:
    """The answer in a sentence: the fastest measured kernel, the fastest that keeps FP16 values, and guesses beyond.

    A kernel whose interval overlaps the fastest one's ties with it; a lower bound of a time wins nothing.
    """
    from perfmodel.kernels import KERNELS

    known = sorted((row for row in results if row["measured"] and not row["at_least"]), key=lambda row: row["time_us"])
    exact = [row for row in known if KERNELS[row["kernel"]].format.lossless]
    words = [_first(known)] if known else []
    if not known and (bounded := [row["kernel"] for row in results if row["at_least"]]):
        words.append(f"of {', '.join(bounded)} no more than a bound is known")
    if exact and exact[0] != known[0]:
        words.append(f"with FP16 weights {_first(exact)}")
    limit_us = exact[0]["time_us"] if exact else math.inf
    guesses = [row for row in results if not row["measured"] and row["time_us"] < limit_us]
    if guesses:
        reach = ", ".join(f"{row['kernel']} {row['speedup_vs_dense']:.2f}x" for row in guesses)
        words.append(f"never measured, but might reach: {reach}")
    return "; ".join(words) + "."


def _first(ranked: list[dict[str, Any]]) -> str:
    """The first of ``ranked``, or its tie with those whose intervals overlap its own."""
    from perfmodel.kernels import VARIANTS

    best = ranked[0]
    ties = [row["kernel"] for row in ranked[1:] if row["lo_us"] <= best["hi_us"] and row["kernel"] not in VARIANTS]
    gain = f"({best['speedup_vs_dense']:.2f}x dense)"
    if ties:
        return f"{best['kernel']} {gain} ties with {', '.join(ties)}, whose intervals overlap its own"
    return f"{best['kernel']} is the fastest {gain}" if len(ranked) > 1 else f"{best['kernel']} is {gain[1:-1]}"


def _evidence_words(row: dict[str, Any], m: int, k: int, n: int, how: dict[str, Any]) -> str:
    """Measured time and our error there, and in what that row differs from the question."""
    found = row["evidence"]
    padded = f"N padded to {row['n']}; " if row["n"] != n else ""
    if found is None:
        return padded + ("none on this device" if row["measured"] else "none at all: parameters assumed")
    words = f"{found['time_us']:.1f} us: {found['error']:+.1%}, {'fitted' if found['fitted'] else 'held out'}"
    if found["exact"]:
        return padded + words
    other = {
        f"{found['m']} x {found['k']}": (found["m"], found["k"]) != (m, k),
        f"N = {found['n']}": found["n"] != row["n"],
        f"sparsity {found['sparsity']:g}": _other_zeros(row["kernel"], found["sparsity"], row["sparsity"]),
        f"split-K {found['split_k'] or 'of its own'}": how["split_k"] not in (None, found["split_k"]),
        f"launched from a {found['launch']}": found["launch"] != how["launch"],
        "weights in the L2" if found["in_l2"] else "weights in memory": found["in_l2"] != row["in_l2"],
    }
    return f"{padded}{words}, at {', '.join(part for part, differs in other.items() if differs)}"


def _predict_table(input_csv: Path, output_csv: Path) -> None:
    from lscd.tables import FRACTION, SIZE, SIZE_OR_EMPTY, beside, read_rows
    from perfmodel.catalog import load_device
    from perfmodel.kernels import kernel_model
    from perfmodel.prediction import predict_table

    rows = read_rows(
        (input_csv, output_csv),
        numbers={"m": SIZE, "k": SIZE, "n": SIZE, "sparsity": FRACTION},
        names={"gpu": load_device, "kernel": kernel_model},
        optional={"split_k": SIZE_OR_EMPTY},
        choices={"launch": tuple(Launch), "cache": tuple(Cache), "activations": tuple(Activations)},
    )
    _check_products(input_csv, rows)
    predicted = predict_table(rows)
    table = beside(rows, predicted)
    with written_whole(output_csv) as partial:
        table.to_csv(partial, index=False)


def _check_products(path: Path, rows: pd.DataFrame) -> None:
    """Refuse the first row whose kernel does not run on its GPU, or takes no such N or sparsity."""
    from perfmodel.catalog import load_device
    from perfmodel.kernels import kernel_model

    broken: dict[int, str] = {}
    for (gpu, kernel), group in rows.groupby(["gpu", "kernel"], sort=False):
        products = group["n"].to_numpy(), group["sparsity"].to_numpy()
        model, card = kernel_model(str(kernel)), load_device(str(gpu))
        if _refusal(model, card, *products) is None:
            continue
        for row, *product in zip(group.index, *products, strict=True):
            if (sentence := _refusal(model, card, *product)) is not None:
                broken[int(row)] = sentence
                break
    if broken:
        row = min(broken)
        raise InputError(f"{path}: line {row + 2}: {broken[row]}")


def _refusal(model: KernelModel, gpu: Device, n: Any, sparsity: Any) -> str | None:
    from perfmodel.prediction import check_product

    try:
        check_product(model, gpu, n, sparsity)
    except ValueError as error:
        return str(error)
    return None
