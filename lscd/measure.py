"""`lscd measure`: what the machine at hand can do, as a file that every command takes where a GPU is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson
from lscd.errors import BAD_INPUT, InputError, refuse_idle, split_names, written_whole
from lscd.printing import print_table, progress, say
from perfmodel.units import GIGA, MICRO

if TYPE_CHECKING:
    import pandas as pd

SHORTEST_S = 0.1
SUFFIX = ".toml"


def measure(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(writable=True, dir_okay=False, help="TOML file to write; other commands take it as --gpu."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time to measure for, all counts of threads together.")] = 30.0,
    threads: Annotated[
        str | None, typer.Option(help="Counts of threads, joined by commas; 1, 2, 4, ... and all by default.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Measure the NVIDIA GPU instead: copies, a product, a launch.")] = (
        False
    ),
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Time CPU kernels too, beside what their models predict: two minutes.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(
            writable=True,
            dir_okay=False,
            help="With --kernels: CSV of the times, for lscd validate --with. Needs --out.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: read rates by working set, multiply-adds, matrix products, parallel calls."""
    if not SHORTEST_S <= seconds < math.inf:
        raise InputError(f"--seconds is {seconds:g}, allowed is at least {SHORTEST_S:g}")
    if out is not None and (out.suffix != SUFFIX or "@" in out.name):
        raise InputError(f"--out is {out}, allowed are file names that end in {SUFFIX}, without @")
    if gpu:
        refuse_idle(context, "with --gpu", "seconds", "threads")
    if gpu and kernels:
        raise InputError("--kernels times those of CPUs; those of a GPU are timed by make gpu-bench")
    if rows is not None and not (kernels and out is not None):
        raise InputError(f"--rows is {rows}, which needs --kernels and --out: its rows name the machine by that file")
    compared = None
    try:
        fields = _gpu(out) if gpu else _cpu(_counts(threads), seconds)
        if out is not None:
            with written_whole(out) as partial:
                partial.write_text(as_toml({key: value for key, value in fields.items() if key != "found"}))
        if kernels:
            compared = _compared(fields, out, rows)
    except RuntimeError as error:
        typer.echo(f"lscd: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        from lscd.measure_kernels import as_rows

        print(json.dumps(fields if compared is None else {**fields, "kernels": as_rows(compared)}, indent=2))
        return
    (_print_gpu if gpu else _print_cpu)(fields)
    if compared is not None:
        from lscd.measure_kernels import print_compared

        print_compared(compared)
    if out is not None:
        say(f"Wrote {out}; for example lscd predict --gpu {out} --m 4096 --k 4096 --n 1 --sparsity 0.7")
    if rows is not None:
        say(f"Wrote {rows}; lscd calibrate --with {rows} --out FIT.json fits the models to it")


def _compared(fields: dict[str, Any], out: Path | None, rows: Path | None) -> pd.DataFrame:
    """Kernels predicted on what was measured, then timed."""
    from lscd.measure_kernels import compared, predictions, timed

    with TemporaryDirectory() as folder:
        machine = out or Path(folder) / "this.toml"
        if out is None:
            machine.write_text(as_toml(fields))
        foretold = predictions(str(machine), fields["threads"])
        with progress("timing kernels", len(foretold)) as step:
            found = timed(str(machine), fields["threads"], lambda: step(""))
    if rows is not None:
        with written_whole(rows) as partial:
            found.to_csv(partial, index=False)
    return compared(foretold, found)


def _counts(text: str | None) -> list[int]:
    """Counts of threads that ``--threads`` means, ascending."""
    from kernels_numba.bench.machine import thread_counts, usable_cores

    cores = usable_cores()
    if text is None:
        return thread_counts(cores)
    names = split_names("--threads", text)
    if not all(name.isdecimal() and 1 <= int(name) <= cores for name in names):
        raise InputError(f"--threads is {text!r}, allowed are whole numbers from 1 to {cores}, joined by commas")
    return sorted({int(name) for name in names})


def _cpu(threads: list[int], seconds: float) -> dict[str, Any]:
    from kernels_numba.bench.machine import measure_machine

    with _bar() as step:
        return measure_machine(threads, seconds, step)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Bar of the steps done, on stderr, on a terminal alone."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_cpu(fields: dict[str, Any]) -> None:
    """Rates of each count of threads: at the smallest, middle and largest working set, peaks, and a call."""
    sizes, peak = fields["reads"]["sizes_bytes"], fields["peak"]
    say(f"{fields['name']}, {fields['clock_hz'] / GIGA:.2f} GHz, {fields['memory']['size_bytes'] / GIGA:.1f} GB")
    shown = [0, len(sizes) // 2, len(sizes) - 1]
    header = ["threads", *(f"read {_size(sizes[i])} GB/s" for i in shown), "multiply-add GFLOP/s", "NumPy GFLOP/s"]
    torch = [name for name in ("torch_fp32_gemm", "bf16_gemm") if name in peak]
    header += [{"torch_fp32_gemm": "PyTorch GFLOP/s", "bf16_gemm": "PyTorch BF16"}[name] for name in torch]
    rows = []
    for i, count in enumerate(fields["threads"]):
        reads, spread = fields["reads"]["bytes_per_s"][i], fields["reads"]["spread"][i]
        cells = [f"{reads[j] / GIGA:.1f} ±{spread[j] / 2:.0%}" for j in shown]
        for name in ("fp32_fma", "fp32_gemm", *torch):
            cells.append(f"{peak[name][i] / GIGA:.0f} ±{peak[f'{name}_spread'][i] / 2:.0%}")
        call = f"{fields['call']['seconds'][i] / MICRO:.1f} ±{fields['call']['spread'][i] / 2:.0%}"
        rows.append((str(count), *cells, call))
    print_table((*header, "call us"), rows)


def _size(nbytes: int) -> str:
    """Bytes in binary units."""
    power = min(int(math.log2(nbytes)) // 10, 3)
    return f"{nbytes / 2 ** (10 * power):g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _gpu(out: Path | None) -> dict[str, Any]:
    """The GPU's entry of the catalogue with the memory rate measured here; alone what was measured without one."""
    import msgspec

    from kernels_numba.bench.library import open_library
    from kernels_numba.bench.machine import measure_gpu
    from kernels_numba.bench.provenance import describe_gpu
    from perfmodel.catalog import gpu_names, load_gpu
    from perfmodel.kernels.limits import streamed_share

    library = open_library()
    device, told = describe_gpu(library, "lscd measure --gpu")
    found = measure_gpu(library, device.copy_bytes_per_s)
    if device.key not in gpu_names():
        if out is not None:
            raise InputError(
                f"{told['gpu']} is no GPU of the catalogue, so its file has to be written by hand: see CONTRIBUTING.md"
            )
        return {"name": told["gpu"], "found": found}
    card = load_gpu(device.key)
    # Models take a share of the datasheet's rate; the rate of which it makes what was measured stands in its place.
    rate = device.copy_bytes_per_s / streamed_share(card.dram)
    source = f"copy measured on {told['date']} by lscd measure ({told['library']}): {device.copy_bytes_per_s:.4g} B/s"
    memory = msgspec.structs.replace(card.dram, bandwidth_bytes_per_s=float(f"{rate:.4g}"), source=source)
    fields = msgspec.to_builtins(msgspec.structs.replace(card, dram=memory))
    del fields["key"]
    return {**fields, "found": found}


def _print_gpu(fields: dict[str, Any]) -> None:
    found = fields["found"]
    product = found["fp16_gemm_flops_per_s"]
    words = "no cuBLAS without PyTorch or CuPy" if product is None else f"FP16 product {product / 1e12:.1f} TFLOP/s"
    launch = f"{found['launch_s'] / MICRO:.1f} us from launch to launch"
    say(f"{fields['name']}: copy {found['copy_bytes_per_s'] / GIGA:.0f} GB/s, {words}, {launch}")


def as_toml(fields: dict[str, Any]) -> str:
    """``fields`` as a TOML file: plain keys first, then a table for each dictionary; what is None is left out."""
    plain = {key: value for key, value in fields.items() if not isinstance(value, dict) and value is not None}
    tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, table in tables.items():
        lines += ["", f"[{key}]", as_toml(table).rstrip("\n")]
    return "\n".join(lines) + "\n"
