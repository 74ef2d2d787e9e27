"""What a kernel does, counted: the figures that the performance model takes from the real code instead of guessing.

For every variant: registers, occupancy and the machine instructions of the main loop on each architecture, by kind, and
by pipe in each of its regions (`sass.regions`), from the compiler; and from the emulator, how much a thread block moves
and issues as a function of its work. Every quantity is linear in a few *units of work*::

    tiled_csl   block, tile, word (held in registers), overflow_word (beyond them)
    bitmap      block, tile, value (stored, padding included); and the other kernels that decode records
    ..._bulk    the same, x_tile (of a slice of X), row (of strips, stored), piece (of a row, left and added)
    dense       block, tile
    two_four    block, tile
    csr         block, nonzero (in all rows of the block)
    reduce      block, split

A tile is 128 x 64 weights; of records, four strips. The trace holds the coefficients:
``quantity = sum(coefficient[unit] * amount of unit)``. They are exact, with a residual of 0, where warps are used in
full (multiples of 512 words a tile), but for some: instruction counts bend by less than a percent where branches are
skipped, bulk copies write whole wavefronts, offsets are read ahead of what there is, and the wavefronts of the scatter
depend on where the non-zeros lie and have their own table. So have those of the bitmap's gather.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import (
    TILE_K,
    TILE_M,
    Condensed,
    Csr,
    Dense,
    QuantisedCondensed,
    TiledCsl,
    condensed_njit,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.layout import STRIP_K, STRIP_M, STRIP_SIZE
from kernels_numba.formats.records import (
    QuantisedRecords,
    header_entries,
    quantised_header_entries,
)
from kernels_numba.formats.two_four_tiles import TwoFourTiles, pack
from kernels_numba.gpu.bulk import WARPS
from kernels_numba.gpu.compile import ARCHITECTURES, Variant, compile_kernel, runs_on
from kernels_numba.gpu.csr import ROWS_PER_BLOCK
from kernels_numba.gpu.decoders import DECODERS, ENCODERS
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import CodedRecords, Launch, Records, launches, make_plan, with_aligned_rows
from kernels_numba.gpu.reduce import OUTPUTS_PER_THREAD, THREADS
from kernels_numba.gpu.variants import BULK, WORDS_PER_HELD_VECTOR
from kernels_numba.gpu.work import ARRAYS, stage

SCHEMA = 2
GATHER_DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0)
SCATTER_DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
PACKAGES = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
STRIPS = TILE_M // STRIP_M  # of a tile
Amounts = dict[str, float]


def trace(variant: Variant, archs: Iterable[str] = tuple(ARCHITECTURES)) -> dict[str, Any]:
    """Everything counted about a variant, ready for JSON; the same on every run."""
    name = variant.kernel
    samples = list(_samples(variant))
    coefficients, residuals = _fit(samples)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kernel": name,
        "variant": variant.name,
        "tile": {"m": TILE_M, "n": variant.tile_n, "k": TILE_K} if variant.tile_n and name != "csr" else None,
        "threads": variant.threads,
        "shared_bytes": variant.shared_bytes,
        "architectures": {arch: _machine_code(variant, arch) for arch in archs if runs_on(variant, arch)},
        "per_block": coefficients,
        "residuals": residuals,
        "versions": {package: _version(package) for package in PACKAGES},
    }
    if name == "tiled_csl":
        result["held_words_per_tile"] = int(variant.parameters[1]) * WORDS_PER_HELD_VECTOR
        result["scatter"] = [_scatter(variant, density) for density in SCATTER_DENSITIES]
    if name.removesuffix(BULK) in DECODERS:
        result["gather"] = [_gather(variant, density) for density in GATHER_DENSITIES]
    return result


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine_code(variant: Variant, arch: str) -> dict[str, Any]:
    kernel = compile_kernel(variant, arch)
    return {
        "registers": kernel.registers,
        "spill_bytes": kernel.spill_bytes,
        "blocks_per_sm": kernel.blocks_per_sm,
        "occupancy": kernel.occupancy,
        "main_loop_instructions": dict(sorted(kernel.main_loop.items())),
        "main_loop_pipes": {
            region: {str(pipe): count for pipe, count in sorted(pipes.items())}
            for region, pipes in sorted(kernel.main_loop_regions.items())
        },
    }


def quantities(counters: Any, arrays: tuple[str, ...]) -> Amounts:
    """Counts of one launch by name.

    ``global_bytes.ARRAY.load`` and ``.store`` count what lanes ask for, ``global_sectors`` the 32-byte sectors of each
    request, ``dram_sectors`` every sector once; ``shared_wavefronts.STAGE`` counts shared-memory cycles;
    ``instructions`` are those of PTX, summed over warps, and ``instructions.KIND`` a share of them.
    """
    found: Amounts = {}

    def add(name: str, amount: float) -> None:
        found[name] = found.get(name, 0) + amount

    array_at: dict[int, str] = {}
    for (site, array, kind), traffic in counters.global_traffic.items():
        array_at[site.position] = arrays[array]
        add(f"global_bytes.{arrays[array]}.{kind}", traffic.bytes)
        add(f"global_sectors.{arrays[array]}.{kind}", traffic.sectors)
    for (array, kind), sectors in counters.unique_sectors.items():
        add(f"dram_sectors.{arrays[array]}.{kind}", sectors)
    for (site, kind), traffic in counters.shared_traffic.items():
        name = stage(site.text, kind, array_at.get(site.position, ""))
        add(f"shared_wavefronts.{name}", traffic.wavefronts)
        add(f"shared_ideal_wavefronts.{name}", traffic.ideal_wavefronts)
    add("instructions", sum(counters.instructions.values()))
    add("mma", sum(counters.mma.values()))
    add("mma_flops", counters.mma_flops)
    add("barriers", counters.barriers)
    add("cp_async_groups", counters.cp_async_groups)
    return found


def _samples(variant: Variant) -> Iterator[tuple[Amounts, Amounts]]:
    """Amounts of the units of work, and the counts they led to, for enough launches of one block to fit."""
    name = variant.kernel
    x_columns = variant.tile_n
    if name == "tiled_csl":
        held = int(variant.parameters[1]) * WORDS_PER_HELD_VECTOR
        for tiles, words in ((2, 0), (2, 512), (3, 1024), (5, 2048), (3, held), (2, held + 512), (3, held + 2048)):
            kept = min(words, held)
            units: Amounts = {"block": 1, "tile": tiles, "word": tiles * kept, "overflow_word": tiles * (words - kept)}
            yield units, _count(variant, encode_tiled_csl(_tiles(tiles, words)), x_columns)
    elif name in DECODERS:
        for tiles, density in ((2, 0.0), (2, 0.1), (3, 0.2), (5, 0.05), (4, 0.15), (3, 1.0)):
            weights = _records(name, tiles, density)
            yield {"block": 1, "tile": tiles} | _amounts(weights, tiles * STRIPS), _count(variant, weights, x_columns)
    elif name.endswith(BULK):
        yield from _streamed_samples(variant)
    elif name == "dense":
        for tiles in (2, 3, 5):
            yield {"block": 1, "tile": tiles}, _count(variant, Dense(_tiles(tiles, 4096)), x_columns)
    elif name == "two_four":
        for tiles in (3, 4, 6):
            packed = pack(encode_two_four(_tiles(tiles, 1024)))
            yield {"block": 1, "tile": tiles}, _count(variant, packed, x_columns)
    elif name == "csr":
        # Rows of a whole number of unrolled steps (4 times 32 lanes), so that no lane idles.
        for per_row in (0, 128, 256, 512):
            a = np.zeros((ROWS_PER_BLOCK, 1024), np.float16)
            a[:, :per_row] = 1
            rows = encode_csr(a, index_bits=int(variant.parameters[1]))
            yield {"block": 1, "nonzero": ROWS_PER_BLOCK * per_row}, _count(variant, rows, x_columns)
    else:
        outputs = THREADS * OUTPUTS_PER_THREAD
        for splits in (4, 8, 16):
            partials = np.ones((splits, outputs), np.float32)
            arguments = (partials, np.zeros(outputs, np.float16), outputs, splits, 0)
            counters = run_on_emulator(Launch(variant, (1, 1, 1), arguments, 0), variant.oldest).counters
            yield {"block": 1, "split": splits}, quantities(counters, ARRAYS[name])


def _streamed_samples(variant: Variant) -> Iterator[tuple[Amounts, Amounts]]:
    """As `_samples`, with a block for each slice of K, whose warps have equal stretches: rows or parts."""
    warps = WARPS[variant.tile_n]
    whole, halves = warps, warps // 2  # rows of strips
    one_slice = [(whole, 1, 0.0), (whole, 2, 0.1), (2 * whole, 3, 0.05), (halves, 2, 0.2), (halves, 4, 0.15)]
    one_slice += [(halves, 2, 1.0), (whole, 1, 0.9), (halves, 6, 0.02)]
    two_slices = [(whole, 4, 0.05), (2 * whole, 2, 0.1), (whole, 2, 1.0), (whole, 6, 0.2)]
    cases = [(*case, 1) for case in one_slice] + [(*case, 2) for case in two_slices]
    for rows, tiles, density, slices in cases:
        weights = _records(variant.kernel.removesuffix(BULK), tiles, density, rows)
        units = {"block": slices, "x_tile": tiles, "tile": rows * tiles / STRIPS, "row": rows}
        units["piece"] = slices * max(rows, warps) if slices > 1 or rows < warps else 0
        yield units | _amounts(weights, rows * tiles), _count(variant, weights, variant.tile_n, slices)


def _tiles(tiles: int, words: int, seed: int = 0) -> NDArray[np.float16]:
    """One row of tiles with ``words`` ones each, at random places."""
    rng = np.random.default_rng(seed)
    a = np.zeros((tiles, TILE_M * TILE_K), np.float16)
    for tile in a:
        tile[rng.choice(tile.size, words, replace=False)] = 1
    return np.ascontiguousarray(a.reshape(tiles, TILE_M, TILE_K).transpose(1, 0, 2).reshape(TILE_M, tiles * TILE_K))


def _records(kernel: str, tiles: int, density: float, rows: int = STRIPS) -> Records:
    """Weights of a kernel that decodes records; with bitmaps, ``density`` is that of stored positions."""
    width = 2 if kernel == "bitmap_pairs" else 1
    strips = _strips(rows, tiles, round(density * STRIP_SIZE / width) * width, width)
    records = with_aligned_rows(ENCODERS[kernel](strips))
    assert isinstance(records, Records)
    return records


def _amounts(weights: Records, strips: int) -> Amounts:
    """Stored values, padding included, and tails of so many strips."""
    tails, codes_per_entry = 0, 1
    if isinstance(weights, CodedRecords):
        codes_per_entry = 16 // weights.value_type.bits
    if isinstance(weights, QuantisedRecords):
        header = quantised_header_entries()
    elif isinstance(weights, QuantisedCondensed):
        tails, header = int(weights.codes.tails.sum()), condensed_njit.header_entries(2) + STRIP_M
    elif isinstance(weights, Condensed):
        tails, header = int(weights.tails.sum()), condensed_njit.header_entries(weights.width)
    else:
        header = header_entries(weights.width)
    stored = weights.records.size - strips * header - tails * condensed_njit.TAIL_HEADER_ENTRIES
    amounts: Amounts = {"value": stored * codes_per_entry}
    return amounts | {"tail": tails} if isinstance(weights, Condensed | QuantisedCondensed) else amounts


def _strips(rows: int, tiles: int, values: int, width: int) -> NDArray[np.float16]:
    """Rows of strips of 32 x 64 that have ``values`` ones each, at random places, by ``width`` columns."""
    rng = np.random.default_rng(0)
    strips = np.zeros((rows, tiles, STRIP_SIZE), np.float16)
    for strip in strips.reshape(-1, STRIP_SIZE // width, width):
        strip[rng.choice(len(strip), values // width, replace=False)] = 1
    by_row = strips.reshape(-1, tiles, STRIP_M, STRIP_K).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(by_row.reshape(rows * STRIP_M, tiles * TILE_K))


def _count(
    variant: Variant, weights: TiledCsl | Records | Dense | TwoFourTiles | Csr, n: int, slices: int = 1
) -> Amounts:
    """Counts of the launch of one thread block, for each slice of K, with this variant."""
    m, k = weights.shape
    x, out = np.ones((k, n), np.float16), np.zeros((m, n), np.float16)
    streamed = variant.kernel.endswith(BULK)
    planned = make_plan(weights, n, split_k=slices, arch=variant.oldest, sm_count=slices, streamed=streamed)
    plan = replace(planned, variant=variant, residual=None)  # that is counted by itself
    workspace = np.zeros(plan.workspace_shape, np.float32) if plan.workspace_shape else None
    flags = np.zeros(plan.flags, np.uint32) if plan.flags else None
    buffers = {name: buffer if buffer.size else np.zeros(4, buffer.dtype) for name, buffer in weights.buffers.items()}
    (launch,) = launches(plan, buffers, x, out, workspace, flags, as_fp32=False)
    return quantities(run_on_emulator(launch, variant.oldest).counters, ARRAYS[variant.kernel])


def _fit(samples: list[tuple[Amounts, Amounts]]) -> tuple[dict[str, Amounts], Amounts]:
    """Coefficient of every unit of work for every quantity, and relative residuals where they are not zero."""
    units = list(samples[0][0])
    design = np.array([[amounts[unit] for unit in units] for amounts, _ in samples], np.float64)  # (samples, units)
    coefficients: dict[str, Amounts] = {}
    residuals: Amounts = {}
    for name in sorted({name for _, counts in samples for name in counts}):
        values = np.array([counts.get(name, 0) for _, counts in samples], np.float64)
        solution = np.round(np.linalg.lstsq(design, values, rcond=None)[0], 6)
        error = float(np.abs(design @ solution - values).max() / max(values.max(), 1))
        least = np.maximum(1e-6, 1e-9 * values.max() / design.max(axis=0))  # below, rounding of the fit
        kept = zip(units, solution, np.abs(solution) > least, strict=True)
        coefficients[name] = {unit: float(c) for unit, c, counts in kept if counts}
        if error > 1e-5:
            residuals[name] = round(error, 4)
    return coefficients, residuals


def _scatter(variant: Variant, density: float) -> Amounts:
    """Wavefronts per tile of the scatter at a density, words reordered for the banks or row by row."""
    words = round(density * TILE_M * TILE_K / 4) * 4
    a = _tiles(2, words, seed=1)
    counted = "shared_wavefronts.scatter"
    reordered, by_row = (
        _count(variant, encode_tiled_csl(a, reorder=reorder), variant.tile_n) for reorder in (True, False)
    )
    return {
        "density": density,
        "words": words,
        "ideal_wavefronts": reordered["shared_ideal_wavefronts.scatter"] / 2,
        "wavefronts": reordered[counted] / 2,
        "wavefronts_not_reordered": by_row[counted] / 2,
    }


def _gather(variant: Variant, density: float) -> Amounts:
    """Shared-memory wavefronts per tile of the gather, and stored values and tails, at a density of the weights.

    With bitmaps that is the density of stored positions, whatever their width.
    """
    tiles = 2
    weights = _records(variant.kernel.removesuffix(BULK), tiles, density)
    counts = _count(variant, weights, variant.tile_n)
    return {
        "density": density,
        **{f"{unit}s": amount / tiles for unit, amount in _amounts(weights, tiles * STRIPS).items()},
        "ideal_wavefronts": counts.get("shared_ideal_wavefronts.gather", 0.0) / tiles,
        "wavefronts": counts.get("shared_wavefronts.gather", 0.0) / tiles,
    }
