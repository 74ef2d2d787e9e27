"""`lscd weights import | inspect | prune | evaluate | convert`: real checkpoints, streamed, of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError, refuse_idle
from lscd.files import Lab
from lscd.printing import progress
from lscd.weights_evaluate import evaluate
from lscd.weights_files import AsJson, Exclude, Include, Source, Target, plain_checkpoint
from lscd.weights_import import import_weights
from lscd.weights_prune import prune

if TYPE_CHECKING:
    from kernels_numba.checkpoints.container import Converted
    from kernels_numba.checkpoints.safetensors_reader import Checkpoint

app = Lab(help="Real checkpoints: what their zeros are worth, pruning, encoding.", no_args_is_help=True)
app.command("import")(import_weights)
app.command()(prune)
app.command()(evaluate)


@app.command()
def inspect(
    context: typer.Context,
    path: Source,
    gpu: Annotated[
        str, typer.Option(help="GPU or CPU to predict times for: a name from `lscd gpus`, or a TOML file.")
    ] = "",
    batch: Annotated[int, typer.Option(help="Tokens in flight, N: sequences decoded together.")] = 8,
    include: Include = None,
    exclude: Exclude = None,
    every: Annotated[bool, typer.Option("--all", help="One row a matrix; layers are put together otherwise.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint's zeros are worth: in bytes of every format, and in predicted time."""
    if not gpu:
        refuse_idle(context, "without --gpu", "batch")
    if as_json:
        refuse_idle(context, "with --json, which has every matrix", "every")

    from kernels_numba.checkpoints.census import TILE_M, take_census
    from kernels_numba.checkpoints.checkpoint import chosen_matrices
    from lscd.weights_plan import CheckpointPlan, plan_matrices
    from lscd.weights_quantised import count_packed, plan_quantised
    from lscd.weights_table import print_plan
    from perfmodel.catalog import load_device

    record = load_device(gpu) if gpu else None
    if batch < 1:
        raise InputError(f"--batch is {batch}, allowed is at least 1")
    source = plain_checkpoint(path)
    names, packed = chosen_matrices(source, include or (), exclude or ())
    found, counted = [], []
    with progress("counting", len(names) + len(packed)) as step:
        for name in names:
            info = source.info(name)
            blocks = source.row_blocks(name, TILE_M)
            found.append((name, info.dtype, take_census((info.shape[0], info.shape[1]), info.dtype, blocks)))
            step(name)
        for matrix in packed:
            counted.append((matrix, *count_packed(matrix)))
            step(matrix.name)
    matrices, quantised = plan_matrices(found, gpu or None, batch), plan_quantised(counted, gpu or None, batch)
    shown = {part for matrix in packed for part in matrix.parts} | set(names)
    other = sum(info.nbytes for name, info in source.tensors.items() if name not in shown)
    device = record.key if record else None
    plan = CheckpointPlan(str(path), device, batch if record else None, matrices, other, quantised)
    if as_json:
        print(json.dumps(plan.as_json(), indent=2))
    else:
        print_plan(plan, every)


@app.command()
def convert(
    context: typer.Context,
    path: Source,
    out: Target,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="tiled-csl, bitmap, bitmap-pairs, condensed, condensed-pairs, csr, two-four, dense; as codes, "
            "bitmap- or condensed-pairs- with int8, int4, e4m3 or e5m2.",
        ),
    ] = "tiled-csl",
    dtype: Annotated[str, typer.Option(help="float16, or keep: float32 only in csr, two-four, dense.")] = "float16",
    decode: Annotated[bool, typer.Option("--decode", help="The way back: from encoded to plain matrices.")] = False,
    check: Annotated[bool, typer.Option("--verify", help="Read the new file back and compare it bit for bit.")] = False,
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Encode a checkpoint's matrices in a sparse format, or decode them again."""
    if decode:
        idle = ("format_name", "dtype", "include", "exclude", "as_json")
        refuse_idle(context, "with --decode, which takes all from the file", *idle)

    from kernels_numba.checkpoints.checkpoint import weight_matrices
    from kernels_numba.checkpoints.container import convert_checkpoint

    if decode:
        _decode(path, out, check)
        return
    if dtype not in ("float16", "keep"):
        raise InputError(f"--dtype is {dtype!r}, allowed are float16 and keep")
    source = plain_checkpoint(path)
    names = weight_matrices(source, include or (), exclude or ())
    with progress("encoding", len(source.tensors)) as step:
        keep = dtype == "keep"
        found = convert_checkpoint(source, out, format_name, names, keep_dtype=keep, progress=step)
    _print_converted(out, format_name, found, as_json)
    if check:
        _verify(source, out)


def _decode(path: Path, out: Path, check: bool) -> None:
    from kernels_numba.checkpoints.container import decode_checkpoint, open_encoded, verify
    from kernels_numba.checkpoints.safetensors_reader import open_checkpoint

    container = open_encoded(path)
    with progress("decoding", len(container.weights) + len(container.plain)) as step:
        decode_checkpoint(container, out, step)
    print(f"Decoded {len(container.weights)} matrices to {out}; all checksums agree.")
    if check:
        print(f"Verified: all {verify(open_checkpoint(out), container)} tensors equal those of {path}.")


def _verify(source: Checkpoint, out: Path) -> None:
    from kernels_numba.checkpoints.container import open_encoded, verify

    container = open_encoded(out)
    with progress("verifying", len(source.tensors)) as step:
        count = verify(source, container, step)
    print(f"Verified: all {count} tensors of {out} decode to the values encoded, bit for bit.")


def _print_converted(out: Path, format_name: str, found: dict[str, Converted], as_json: bool) -> None:
    before, after, nnz = (
        sum(getattr(x, key) for x in found.values()) for key in ("source_bytes", "encoded_bytes", "nnz")
    )
    changed, flushed = (sum(getattr(x.rounding, key) for x in found.values()) for key in ("changed", "flushed"))
    error = max(x.code_error for x in found.values())
    if as_json:
        numbers = {"source_bytes": before, "encoded_bytes": after, "nnz": nnz, "changed": changed, "flushed": flushed}
        numbers |= {"code_error": error}
        print(json.dumps({"output": str(out), "format": format_name, "matrices": len(found), **numbers}, indent=2))
        return
    print(f"Encoded {len(found)} matrices as {format_name}: {after:,} bytes instead of {before:,}. Wrote {out}.")
    if changed:
        print(f"Rounding to float16 changed {changed:,} of {nnz + flushed:,} non-zeros; {flushed:,} became zero.")
    if error:
        print(f"Codes and scales change the weights of a matrix by {error:.2%} at most (root mean square).")
