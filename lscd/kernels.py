"""`lscd kernels check | inspect | trace`: the real kernels, looked at without a GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.catalogue import kernels as app
from lscd.errors import BAD_INPUT, InputError, written_whole
from lscd.printing import print_table

if TYPE_CHECKING:
    from kernels_numba.gpu.compile import CompiledKernel

RESOURCES = ("variant", "registers", "spill bytes", "shared bytes", "threads", "blocks/SM", "occupancy")
STRIP_SIZE = 32 * 64  # weights that a warp decodes in a step, where records are decoded
SHOWN_OPCODES = ("HMMA", "LDSM", "LDGSTS", "LDG", "STS", "STG", "LDL", "STL", "BAR", "SHFL")

Kernel = Annotated[
    str,
    typer.Argument(
        help="tiled_csl, bitmap, bitmap_pairs, condensed, condensed_pairs, the last four also with _bulk, dense, "
        "two_four, csr, reduce, or a variant: tiled_csl_n16_v4. "
        "With _bf16 at its end for bfloat16."
    ),
]
Arch = Annotated[str, typer.Option(help="GPU architecture: sm_80 (A100), sm_89 (4090, L40S), sm_90 (H100, H200) ...")]


@app.command()
def check(
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random problems; a new one each time if absent.")
    ] = None,
    problems: Annotated[
        int, typer.Option(min=1, help="Random problems for each kernel, format, tile, element type and architecture.")
    ] = 1,
    arch: Annotated[
        list[str] | None,
        typer.Option(help="Architecture to compile for, repeatable; sm_80, sm_90 and sm_120 by default."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the work; all processors by default.")] = (
        os.cpu_count() or 1
    ),
) -> None:
    """Run every kernel on the emulator and check its machine code; exit code 1 if anything fails."""
    import secrets

    from rich.console import Console

    from kernels_numba.check import ARCHITECTURES, check_kernels
    from kernels_numba.gpu.compile import check_arch

    archs = tuple(check_arch(name) for name in arch or ARCHITECTURES)
    seed = secrets.randbelow(2**31) if seed is None else seed
    outcomes = []
    with Console().status("running the kernels") as status:
        for outcome in check_kernels(archs, seed, problems, jobs):
            outcomes.append(outcome)
            status.update(f"{len(outcomes)} checked, last {outcome.name}")
    rows = [(outcome.name, "ok" if outcome.passed else "FAILED", outcome.detail) for outcome in outcomes]
    header = ("check", "result", "detail")
    print_table(header, rows, text=header)
    failed = sum(not outcome.passed for outcome in outcomes)
    print(f"{len(outcomes) - failed} of {len(outcomes)} checks passed (seed {seed})")
    raise typer.Exit(1 if failed else 0)


@app.command()
def inspect(
    kernel: Kernel,
    arch: Arch = "sm_90",
    sass: Annotated[bool, typer.Option("--sass", help="Print the machine code of the main loop too.")] = False,
) -> None:
    """Show what the compiler made of a kernel: registers, occupancy, and the instructions of its main loop."""
    from kernels_numba.gpu.compile import check_arch, compile_kernel
    from kernels_numba.gpu.decoders import DECODERS
    from kernels_numba.gpu.sass import main_loop
    from kernels_numba.gpu.variants import BULK, find_variants

    compiled = [compile_kernel(variant, check_arch(arch)) for variant in find_variants(kernel)]
    rows = []
    for x in compiled:
        v = x.variant
        numbers = (x.registers, x.spill_bytes, v.shared_bytes, v.threads, x.blocks_per_sm, f"{x.occupancy:.3f}")
        rows.append((v.name, *map(str, numbers)))
    print_table(RESOURCES, rows, text=RESOURCES[:1])
    names = [x.variant.name for x in compiled]
    _print_counts([f"main loop on {arch}", *names], [x.main_loop for x in compiled], total=True)
    _print_counts([f"main loop on {arch}, by pipe", *names], [_by_pipe(x) for x in compiled], total=True)
    if any(x.variant.kernel.removesuffix(BULK) in DECODERS for x in compiled):
        typer.echo(f"a warp's loop above is {STRIP_SIZE:,} weights. {_rival()}")
    shown = [{o: count for o, count in x.opcodes.items() if o.startswith(SHOWN_OPCODES)} for x in compiled]
    _print_counts(["opcode, whole kernel", *names], shown)
    if sass:
        for x in compiled:
            for instruction in main_loop(x.instructions):
                typer.echo(f"{x.variant.name}  {instruction.kind:18}  {instruction.opcode} {instruction.operands}")


def _rival() -> str:
    """What the released bitmap kernel takes for as many weights."""
    from perfmodel.pipeline import spinfer

    strips = STRIP_SIZE / (spinfer.TILE_BITMAPS * spinfer.BITMAP_POSITIONS)
    pipes = ", ".join(f"{strips * count:.0f} {pipe.name}" for pipe, count in spinfer.TILE_PIPES.items())
    total = strips * spinfer.TILE_INSTRUCTIONS
    return f"SpInfer's released kernel, compiled for sm_80, takes {total:.0f} instructions at 16 columns ({pipes})."


def _by_pipe(kernel: CompiledKernel) -> dict[str, int]:
    """Instructions of the main loop by region and pipe; the compiler mixes stages, so that only sums are exact."""
    return {
        f"{region}: {pipe}": count
        for region, pipes in kernel.main_loop_regions.items()
        for pipe, count in pipes.items()
    }


def _print_counts(header: list[str], counts: Sequence[Mapping[str, int]], total: bool = False) -> None:
    """One row for each thing counted, one column for each kernel."""
    rows = [(key, *(str(count.get(key, 0)) for count in counts)) for key in sorted({key for c in counts for key in c})]
    if total:
        rows.append(("total", *(str(sum(count.values())) for count in counts)))
    print_table(header, rows, text=header[:1])


@app.command()
def trace(
    kernel: Annotated[list[str] | None, typer.Argument(help="Kernels or variants; all by default.")] = None,
    output: Annotated[Path, typer.Option(writable=True, file_okay=False, help="Directory to write to.")] = Path(
        "data/traces"
    ),
) -> None:
    """Count what the kernels do, and write it as JSON, one file a variant, for the performance model."""
    from rich.progress import track

    from kernels_numba.gpu.trace import trace as count
    from kernels_numba.gpu.variants import all_variants, find_variants

    chosen = [v for name in kernel for v in find_variants(name)] if kernel else list(all_variants().values())
    if not output.is_dir():
        raise InputError(f"--output {output} is no directory; make it, or run in the project's root")
    counted = {variant.name: json.dumps(count(variant), indent=1) + "\n" for variant in track(chosen, "counting")}
    for name, text in counted.items():
        with written_whole(output / f"{name}.json") as path:
            path.write_text(text)
    typer.echo(f"wrote {len(chosen)} traces to {output}")


@app.command()
def bench(
    minutes: Annotated[float, typer.Option(min=0.1, help="Time to spend on each GPU.")] = 6.0,
    out: Annotated[
        Path, typer.Option(writable=True, file_okay=False, help="Folder to write <gpu>/kernels_lscd.csv to.")
    ] = Path("data/measured"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
    cluster: Annotated[str, typer.Option(help="Dask scheduler, tcp://HOST:PORT: one worker for each GPU.")] = "",
) -> None:
    """Time every kernel on a GPU against cuBLAS and cuSPARSE; here, or on every worker of a cluster at once."""
    from kernels_numba.bench import gpu as bench_gpu

    try:
        if not cluster:
            measured = {"here": bench_gpu.measure_here(minutes, seed)}
        else:
            from perfmodel.sweep.cluster import cluster_client, on_every_worker

            with cluster_client(cluster) as client:
                measured = on_every_worker(client, bench_gpu.measure_here, minutes, seed)
    except (RuntimeError, ValueError) as error:
        typer.echo(f"lscd: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    for worker, (gpu, rows, provenance) in one_of_each_gpu(measured).items():
        path = bench_gpu.write_table(rows, provenance | {"worker": worker}, out / gpu)
        typer.echo(f"{gpu}: wrote {len(rows)} rows to {path}")


def one_of_each_gpu(measured: dict[str, Any]) -> dict[str, Any]:
    """Measurements of the first worker, by address, of each GPU model: alike cards would overwrite each other."""
    chosen: dict[str, str] = {}
    for worker in sorted(measured):
        chosen.setdefault(measured[worker][0], worker)
    return {worker: measured[worker] for worker in chosen.values()}
