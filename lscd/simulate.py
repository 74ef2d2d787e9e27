"""`lscd simulate`: why a kernel takes as long as it does, stage by stage.

The number is the prediction, as `lscd predict` prints it. The simulated time tests its interval, and the reasons are
shares of it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, written_whole
from lscd.printing import headline, print_table, say, side_by_side

if TYPE_CHECKING:
    from perfmodel.catalog.specs import Launch
    from perfmodel.pipeline import Simulation

GANTT_STEPS = (6, 9)  # past the start of the pipeline


def simulate(
    kernel: Annotated[
        str,
        typer.Argument(
            help="flash-llm, flash-llm-noreorder, cublas, bitmap (SpInfer), or numba-tiled-csl, -bitmap, "
            "-bitmap-pairs, -dense."
        ),
    ],
    gpu: Annotated[str, typer.Option(help="GPU: a name from `lscd gpus`, or a TOML file of your own.")],
    m: Annotated[int, typer.Option(help="Rows of the weight matrix (output features).")],
    k: Annotated[int, typer.Option(help="Columns of the weight matrix (input features).")],
    n: Annotated[int, typer.Option(help="Tokens in flight: batch x tokens per step.")],
    sparsity: Annotated[float, typer.Option(help="Fraction of zero weights, 0 to 1; dense by default.")] = 0.0,
    no_reorder: Annotated[bool, typer.Option("--no-reorder", help="Scatter words in storage order.")] = False,
    single_buffer: Annotated[
        bool, typer.Option("--single-buffer", help="No overlap of loading and computing.")
    ] = False,
    register_decode: Annotated[
        bool, typer.Option("--register-decode", help="Decode in registers, no scatter.")
    ] = False,
    bandwidth_scale: Annotated[float, typer.Option(help="Device-memory bandwidth times this.")] = 1.0,
    shared_scale: Annotated[float, typer.Option(help="Shared memory of an SM times this.")] = 1.0,
    tile_k: Annotated[int | None, typer.Option(help="Depth of a tile, a multiple of 16.")] = None,
    split_k: Annotated[int | None, typer.Option(help="Ways to share K among blocks.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Launched from a CUDA graph, not a stream.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampled non-zeros per tile.")] = 0,
    trace: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="Write one SM's stages for ui.perfetto.dev.")
    ] = None,
    gantt: Annotated[
        Path | None,
        typer.Option(writable=True, dir_okay=False, help="Draw a few steps of one SM (.png, .svg or .pdf)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Explain the predicted time of C[m,n] = A[m,k] @ B[k,n], simulated tile by tile.

    Bound: the resource with the longest time alone. Busy and waits are explained below the table.
    """
    from perfmodel.catalog.specs import Launch
    from perfmodel.pipeline import WhatIf
    from perfmodel.pipeline import simulate as run

    if gantt is not None and gantt.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--gantt is {gantt}, allowed are files ending in .png, .svg or .pdf")
    what_if = WhatIf(
        reorder=not no_reorder, double_buffer=not single_buffer, register_decode=register_decode,
        bandwidth_scale=bandwidth_scale, shared_scale=shared_scale, tile_k=tile_k,
    )  # fmt: skip
    launch = Launch.GRAPH if graph else Launch.STREAM
    result = run(kernel, gpu, m, k, n, sparsity, split_k=split_k, what_if=what_if, seed=seed, launch=launch)
    changed = what_if != WhatIf()
    predicted = _predicted(kernel, gpu, (m, k, n, sparsity), launch, split_k)
    summary = {**predicted, "changed": changed, "within_interval": None, **_summary(result)}
    if predicted["time_us"] is not None and not changed:
        summary["within_interval"] = predicted["lo_us"] <= summary["simulated_us"] <= predicted["hi_us"]
    _write(result, trace, gantt, f"{kernel}, {m} x {k}, N = {n}, sparsity {sparsity:g}, {result.machine.gpu.name}")
    if as_json:
        question = {"kernel": kernel, "gpu": result.machine.gpu.key, "m": m, "k": k, "n": n, "sparsity": sparsity}
        print(json.dumps({**question, **summary}, indent=2))
    else:
        _print(summary)


def _predicted(
    kernel: str, gpu: str, case: tuple[int, int, int, float], launch: Launch, split_k: int | None
) -> dict[str, Any]:
    """The closed form's answer, as `lscd predict` has it, for the N that the kernel computes; None without one."""
    from perfmodel.kernels import kernel_model
    from perfmodel.pipeline import PREDICTED_BY
    from perfmodel.prediction import predict

    names = ("model", "n_padded", "time_us", "lo_us", "hi_us", "bound", "measured", "extrapolated")
    if kernel not in PREDICTED_BY:
        return dict.fromkeys(names)
    m, k, n, sparsity = case
    model = PREDICTED_BY[kernel]
    padded = int(kernel_model(model).padded_n(n))
    p = predict(model, gpu, m, k, padded, sparsity, launch=str(launch), split_k=split_k)
    times_us = (float(seconds) * 1e6 for seconds in (p.time_s, p.lo_s, p.hi_s))
    values = (model, padded, *times_us, str(p.bound.item()), p.measured, bool(p.extrapolated))
    return dict(zip(names, values, strict=True))


def _summary(result: Simulation) -> dict[str, Any]:
    grid = result.grid
    return {
        "simulated_us": result.time_s * 1e6,
        "simulated_bound": str(result.bound),
        "dram_bytes": result.dram_bytes,
        "blocks": grid.blocks,
        "split_k": grid.split_k,
        "resident_blocks_per_sm": grid.resident,
        "waves": grid.waves,
        "waits": result.waits,
        "busy": result.busy,
    }


def _print(summary: dict[str, Any]) -> None:
    from perfmodel.pipeline.words import RATES, WAITS, legend

    headline(_prediction_words(summary))
    say(_simulation_words(summary))
    say(
        f"{summary['dram_bytes'] / 1e6:.1f} MB over DRAM; {summary['blocks']} blocks (split-K {summary['split_k']}), "
        f"{summary['resident_blocks_per_sm']} resident per SM, {summary['waves']:.2f} waves."
    )
    waits = {WAITS[name]: f"{share:.1%}" for name, share in summary["waits"].items()}
    busy = {RATES[name]: f"{share:.1%}" for name, share in summary["busy"].items()}
    print_table(("waits for", "share", "busy", "share"), side_by_side(waits, busy), text=("waits for", "busy"))
    say(legend())


def _prediction_words(summary: dict[str, Any]) -> str:
    """The number of this kernel, and what it rests on."""
    if summary["time_us"] is None:
        return "No closed form predicts this kernel, and nobody has timed it."
    span = f"{summary['lo_us']:.0f} - {summary['hi_us']:.0f} us"
    kind = f"90 % interval {span}" if summary["measured"] else f"never run on a GPU, its assumptions span {span}"
    released = " as released" if summary["changed"] else ""
    return f"Predicted{released}: {summary['time_us']:.1f} us ({kind}), bound by {summary['bound']}."


def _simulation_words(summary: dict[str, Any]) -> str:
    """The simulated time beside the predicted one; where it lies outside the interval, how far the two span."""
    words = f"Simulated{' as changed' if summary['changed'] else ''}: {summary['simulated_us']:.1f} us"
    bound = f"; bound by {summary['simulated_bound']}."
    if summary["within_interval"] is None:
        return words + bound
    difference = summary["simulated_us"] / summary["time_us"] - 1
    verdict = f", {difference:+.1%}, {'within' if summary['within_interval'] else 'outside'} the interval"
    if not summary["within_interval"]:
        low = min(summary["lo_us"], summary["simulated_us"])
        high = max(summary["hi_us"], summary["simulated_us"])
        verdict += f": together they span {low:.0f} - {high:.0f} us"
    return words + verdict + bound


def _write(result: Simulation, trace: Path | None, gantt: Path | None, title: str) -> None:
    """Write both files or none."""
    with ExitStack() as files:
        trace_part, gantt_part = (path and files.enter_context(written_whole(path)) for path in (trace, gantt))
        if trace_part is not None:
            _write_trace(result, trace_part)
        if gantt_part is not None:
            _draw_gantt(result, gantt_part, title)


def _write_trace(result: Simulation, path: Path) -> None:
    from perfmodel.pipeline.timeline import perfetto_trace

    path.write_text(json.dumps(perfetto_trace(result)), encoding="utf-8")


def _draw_gantt(result: Simulation, path: Path, title: str) -> None:
    from perfmodel.pipeline.timeline import timeline
    from perfmodel.plotting.pipeline import gantt
    from perfmodel.plotting.style import house_style, write_picture

    with house_style():
        write_picture(gantt(timeline(result), title, GANTT_STEPS, result.machine.clock_hz), path)
