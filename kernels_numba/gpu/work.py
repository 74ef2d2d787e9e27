"""Is the work of a launch what its plan asks for, each byte moved once, by the instruction it should be moved by?

A result can be right although a tile is multiplied twice, zeros are added, an output is stored by four lanes, a weight
goes through L1 or lanes wait for each other's banks. So every emulated launch is held to what the performance model
assumes: products and bytes of weights, X and outputs exactly; no bank conflicts but where the non-zeros decide; and the
cache operators by array.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kernels_numba.formats import TILE_K, TILE_M, Condensed, EncodedWeight, QuantisedCondensed
from kernels_numba.formats.layout import STRIP_M
from kernels_numba.gpu.decoders import DECODERS
from kernels_numba.gpu.launch import Launch, Plan, Records, ceil_div
from kernels_numba.gpu.stages import A_TILE_BYTES
from kernels_numba.gpu.variants import BULK

# Arrays of each kernel, in the order of its arguments.
ARRAYS = {
    "tiled_csl": ("words", "tile_offsets", "x", "out"),
    "dense": ("weights", "x", "out"),
    "two_four": ("tiles", "x", "out"),
    "csr": ("row_ptr", "col_idx", "values", "x", "out"),
    "reduce": ("partials", "out"),
}
ARRAYS |= {
    kernel + end: ("records", "offsets", "x", "out", "sums", "flags") for kernel in DECODERS for end in ("", BULK)
}
_COPY, _LOAD = "cp.async.cg.shared.global", "ld.global.nc"  # past L1; as read-only data
_BULK_COPY = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
# How each array is loaded. What is read once leaves L1 to what is read again; what blocks leave each other is not
# read-only.
LOADS = {
    "words": (f"{_LOAD}.L1::no_allocate.v4.u32",),
    "tile_offsets": (f"{_LOAD}.u32",),
    "weights": (_COPY,),
    "tiles": (_COPY,),
    "records": (_COPY, _BULK_COPY),
    "offsets": (f"{_LOAD}.u32",),
    "x": (_COPY, f"{_LOAD}.v4.u32"),
    "row_ptr": (f"{_LOAD}.u32",),
    "col_idx": (f"{_LOAD}.u32", f"{_LOAD}.b16"),
    "values": (f"{_LOAD}.b16",),
    "partials": (f"{_LOAD}.v4.f32",),
    "sums": ("ld.global.v4.f32",),
    "flags": ("ld.acquire.gpu.global.u32",),
}
POLICY = "createpolicy.fractional.L2::evict_first.b64"
# Their banks depend on where the non-zeros lie, as those of X's rows do where condensed strips gather them.
CONFLICTING = ("gather", "scatter")
WEIGHTS = {"tiled_csl": "words", "dense": "weights", "two_four": "tiles"}
TAIL_COLUMNS = 16


def stage(text: str, kind: str, array: str) -> str:
    """Stage of the pipeline that a shared-memory instruction belongs to."""
    if kind.startswith("cp.async"):
        return f"copy_{array}"
    if kind == "ldmatrix":
        return "read_x" if ".trans" in text else "read_a"
    if kind == "load":
        return "read_metadata" if ".v4" in text else "read_masks" if ".v2" in text or ".b32" in text else "gather"
    return "clear" if ".v4" in text else "scatter"


def faults(plan: Plan, weights: EncodedWeight, jobs: list[Launch], results: list[Any]) -> Iterator[str]:
    """What the launches of a plan did too much, too little or the wrong way, in words."""
    for job, result in zip(jobs, results, strict=True):
        counters = result.counters
        expected = {} if job.variant.kernel in ("csr", "reduce") else _expected(plan, weights)
        found = _counts(job, counters) if expected else {}
        expected["bytes of outputs stored"] = _stored_bytes(plan, job)
        found["bytes of outputs stored"] = _bytes(job, counters, "store").get("out", 0)
        for what, amount in expected.items():
            if found[what] != amount:
                yield f"{job.variant.name}: {found[what]} {what}, the plan asks for {amount}"
        yield from _operators(job, counters)
        yield from _conflicts(job, counters)


def split_faults(plan: Plan, asked: int | None) -> Iterator[str]:
    """Whether a plan cuts K into more parts than asked for; slices of streamed records may be as many as they need."""
    if asked is not None and not plan.slices and plan.split_k > asked:
        yield f"split_k: the plan has {plan.split_k}, allowed: at most the {asked} asked for"


def _bytes(job: Launch, counters: Any, kind: str) -> dict[str, int]:
    """Bytes that lanes asked for, by array."""
    arrays = ARRAYS[job.variant.kernel]
    return {arrays[array]: traffic.bytes for array, traffic in counters.by_array(kind).items()}


def _stored_bytes(plan: Plan, job: Launch) -> int:
    """Each output once; of a split product each partial sum."""
    out = job.arguments[ARRAYS[job.variant.kernel].index("out")]
    parts = plan.split_k if out.ndim == 3 else 1
    return int(plan.outputs * out.itemsize * parts)


def _expected(plan: Plan, weights: EncodedWeight) -> dict[str, int]:
    """Products and loads of the launch that multiplies."""
    columns = ceil_div(plan.n_padded, plan.variant.tile_n)
    row_tiles, k_tiles = ceil_div(plan.m, TILE_M), ceil_div(plan.k, TILE_K)
    rows = ceil_div(plan.m, STRIP_M) * STRIP_M if plan.slices else row_tiles * TILE_M
    tails = _tails(weights)
    width = 2 * columns * plan.variant.tile_n
    expected = {
        "FLOP of matrix products": width * (rows * k_tiles * TILE_K + tails * STRIP_M * TAIL_COLUMNS),
        "bytes of X loaded": (plan.blocks if plan.slices else row_tiles) * plan.k * plan.n_padded * 2,
        "bytes of weights loaded": columns * _weight_bytes(weights, rows // STRIP_M * k_tiles),
        "bytes of shared memory cleared": 0,
    }
    if plan.variant.kernel == "tiled_csl":
        expected["bytes of shared memory cleared"] = columns * row_tiles * k_tiles * A_TILE_BYTES
    return expected


def _tails(weights: EncodedWeight) -> int:
    """Blocks of columns that fit no group, of condensed strips."""
    codes = weights.codes if isinstance(weights, QuantisedCondensed) else weights
    return int(codes.tails.sum()) if isinstance(codes, Condensed) else 0


def _weight_bytes(weights: EncodedWeight, strips: int) -> int:
    """Bytes of weights without the lists of where they begin; of records those of the first strips."""
    if isinstance(weights, Records):
        return int(weights.offsets[strips] - weights.offsets[0]) * 16
    return int(next(iter(weights.buffers.values())).nbytes)


def _counts(job: Launch, counters: Any) -> dict[str, int]:
    """What `_expected` expects, counted."""
    loads = _bytes(job, counters, "load")
    cleared = sum(t.bytes for (s, kind), t in counters.shared_traffic.items() if stage(s.text, kind, "") == "clear")
    return {
        "FLOP of matrix products": counters.mma_flops,
        "bytes of X loaded": loads.get("x", 0),
        "bytes of weights loaded": loads.get(WEIGHTS.get(job.variant.kernel, "records"), 0),
        "bytes of shared memory cleared": cleared,
    }


def _operators(job: Launch, counters: Any) -> Iterator[str]:
    """Loads of an array by another instruction than its own."""
    arrays = ARRAYS[job.variant.kernel]
    for (site, array, kind), _ in counters.global_traffic.items():
        name = site.text.split("}")[0].rsplit("@", 1)[-1].split()
        used = next(word for word in name if "." in word)
        if kind == "load" and used not in LOADS[arrays[array]]:
            allowed = " or ".join(LOADS[arrays[array]])
            yield f"{job.variant.name}: {arrays[array]} loaded by {used}, allowed is {allowed}"
    for name in counters.instructions:
        if name.startswith("createpolicy") and name != POLICY:
            yield f"{job.variant.name}: {name}, allowed is {POLICY}"


def _conflicts(job: Launch, counters: Any) -> Iterator[str]:
    """Bank conflicts of stages whose places do not depend on the weights."""
    found: Counter[str] = Counter()
    for (site, kind), traffic in counters.shared_traffic.items():
        found[stage(site.text, kind, "")] += traffic.bank_conflicts
    allowed = (*CONFLICTING, "read_x") if job.variant.kernel.startswith("condensed") else CONFLICTING
    for name, conflicts in found.items():
        if conflicts and name not in allowed:
            yield f"{job.variant.name}: {conflicts} bank conflicts of stage {name.rstrip('_')}, allowed are none"
