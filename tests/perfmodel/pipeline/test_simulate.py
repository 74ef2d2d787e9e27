"""The pipeline simulator: conservation, monotonicity, limits, determinism, what-ifs, and its error on held-out rows."""

import itertools
import json
import math

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose
from typer import Typer
from typer.testing import CliRunner

from perfmodel.catalog import load_gpu, load_kernel_times
from perfmodel.evidence.pipeline_fit import FITS, fit, predicted_us
from perfmodel.pipeline import (
    PROGRAMS,
    PipelineParameters,
    Program,
    Resource,
    Stage,
    Submission,
    Tile,
    Wait,
    WhatIf,
    Work,
    load_parameters,
    simulate,
)
from perfmodel.pipeline.conflicts import expected_wavefronts
from perfmodel.pipeline.grid import Grid, TileCounts, choose_split_k, deal, representatives
from perfmodel.pipeline.machine import Machine
from perfmodel.pipeline.programs import Product
from perfmodel.pipeline.simulate import run_program
from perfmodel.pipeline.timeline import perfetto_trace, stall_table, timeline, utilisation_table
from perfmodel.pipeline.traced import load_trace

SHAPE = (9216, 9216)
KERNELS = tuple(PROGRAMS)
# Serving blocks first come, first served is not monotone to the last cycle: order may flip (Graham, 1969).
ORDER_TOLERANCE = 0.01


def time_of(kernel="flash-llm", gpu="a100-80gb", n=8, sparsity=0.8, shape=SHAPE, **options):
    return simulate(kernel, gpu, *shape, n, sparsity, **options).time_s


def assert_never_rises(times):
    for earlier, later in itertools.pairwise(times):
        assert later <= earlier * (1 + ORDER_TOLERANCE), times
    assert times[-1] <= times[0]


def test_one_block_by_hand():
    """A load of 1000 bytes, then 20 instructions: every cycle can be counted."""
    gpu = load_gpu("a100-80gb")
    machine = Machine.of(gpu, PipelineParameters(issue_interval_cycles=5.0, launch_s=1e-6))
    load = Stage("load", "load", {Resource.DRAM: Work(1000.0)}, latency_cycles=300.0)
    use = Stage("use", "scatter", {}, Work(20.0), after=(("load", 0),))
    program = Program("toy", Tile(128, 8, 64), 1, 1024, 32, 128, (load, use), source="this test")
    product = Product(128, 128, 8, 0.0)
    result = run_program(program, machine, Grid(1, 1, 1, 2, 1, 108), TileCounts(128, 64, 1, None, None, 1), product)
    transfer = 1000 * machine.cycles_per_unit[Resource.DRAM]
    # The second load is issued with the first `use`; DRAM is free again long before.
    assert_allclose(result.kernel_s * machine.clock_hz, 2 * (transfer + 300 + 20 * 5), rtol=1e-12)
    assert_allclose(result.dram_bytes, 2000)
    shares = result.stall_breakdown
    assert_allclose(shares[Wait.DRAM] / shares[Wait.ISSUE], (transfer + 300) / 100)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "sparsity"), [(8, 0.8), (32, 0.0), (64, 1.0)])
def test_work_is_conserved(kernel, n, sparsity):
    """Busy cycles of every resource are those of the closed-form count of all blocks."""
    result = simulate(kernel, "a100-80gb", *SHAPE, n, sparsity, seed=None)
    program, grid = result.program, result.grid
    pad, size = program.pad_nonzeros, program.tile.rows * program.tile.depth
    stored = math.ceil(size * (1 - sparsity) / pad) * pad
    tiles = [end - begin for begin, end in map(grid.k_range, range(grid.split_k))]
    demand = sum(program.demand(count, stored * count) for count in tiles) * grid.row_blocks * grid.column_blocks
    # The few simulated SMs draw the shorter last split a little more or less often than all SMs do.
    assert_allclose(result.dram_bytes, demand[Resource.DRAM], rtol=5e-3)
    cycles = demand * result.machine.cycles_per_unit * 1.0
    cycles[[Resource.TENSOR, Resource.SHARED, Resource.ISSUE]] /= result.machine.sm_count
    for name, share in result.utilisation.items():
        busy = share * result.time_s * result.machine.clock_hz
        assert_allclose(busy, cycles[Resource[name.upper()]], rtol=5e-3, err_msg=name)


def test_dram_bytes_are_the_format_and_the_activations():
    m, k = SHAPE
    result = simulate("flash-llm", "a100-80gb", m, k, 8, 0.75, seed=None)
    words = 4 * 0.25 * m * k
    # B is stored 16 columns wide; every one of the split_k partial sums is written.
    activations = 2 * k * 16 + 2 * m * 8 * result.grid.split_k
    offsets = 32 * result.grid.blocks
    assert_allclose(result.dram_bytes, words + activations + offsets, rtol=2e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_bandwidth_is_never_slower(kernel):
    assert_never_rises([time_of(kernel, what_if=WhatIf(bandwidth_scale=scale)) for scale in (0.5, 1, 2, 4, 8)])


@pytest.mark.parametrize("kernel", ["flash-llm", "bitmap"])
@pytest.mark.parametrize("n", [8, 32])
def test_more_sparsity_is_never_slower(kernel, n):
    assert_never_rises([time_of(kernel, n=n, sparsity=s) for s in (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1)])


def test_dense_time_ignores_sparsity():
    assert time_of("cublas", sparsity=0.0) == time_of("cublas", sparsity=0.9)


def test_infinite_bandwidth_leaves_the_chip():
    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.6, what_if=WhatIf(bandwidth_scale=1e6))
    assert result.utilisation["dram"] < 1e-3
    assert result.time_s > time_of(sparsity=1.0)  # the scatter still costs
    shares = result.stall_breakdown
    assert shares[Wait.SHARED] + shares[Wait.ISSUE] > 0.5


def test_empty_matrix_takes_the_published_floor():
    """36864 x 9216 at sparsity 1: 136.1 us in the sparsity sweep, however few weights there are."""
    assert_allclose(time_of(sparsity=1.0, shape=(36864, 9216)) * 1e6, 136.1, rtol=0.03)


def test_same_seed_same_result_and_expected_counts_are_close():
    first, again = (simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8, seed=3) for _ in range(2))
    assert np.array_equal(first.events.done_cycles, again.events.done_cycles)
    assert first.time_s != time_of(seed=4)
    assert_allclose(time_of(seed=None), first.time_s, rtol=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gpu", ["a100-80gb", "h100", "rtx-3090"])
def test_stall_shares_sum_to_one(kernel, gpu):
    result = simulate(kernel, gpu, *SHAPE, 8, 0.7)
    shares = result.stall_breakdown
    assert set(shares) == set(map(str, Wait))
    assert_allclose(sum(shares.values()), 1, rtol=1e-9)
    assert min(shares.values()) >= 0
    assert 0 < max(result.utilisation.values()) <= 1


def test_events_respect_their_waits():
    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8)
    e = result.events
    linked = e.critical >= 0
    cause = e.critical[linked]
    assert np.all(e.sm[cause] == e.sm[linked])
    known = np.isin(e.ready_cycles[linked], [e.issued_cycles[cause], e.done_cycles[cause]])
    assert known.all()
    assert np.all(e.ready_cycles <= e.start_cycles)
    assert np.all(e.issued_cycles <= e.done_cycles)


def test_what_ifs_move_the_right_way():
    base = time_of()
    assert time_of(what_if=WhatIf(reorder=False)) > base
    assert time_of(what_if=WhatIf(double_buffer=False)) > 1.05 * base
    # Without the ring more blocks fit, and they cover each other's waits: hardly slower, but more are needed.
    ring, single = (simulate("cublas", "a100-80gb", *SHAPE, 8, what_if=WhatIf(double_buffer=d)) for d in (True, False))
    assert single.grid.resident > ring.grid.resident
    assert single.time_s > 0.99 * ring.time_s
    decoded = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8, what_if=WhatIf(register_decode=True))
    assert {stage.row for stage in decoded.program.stages}.isdisjoint({"clear", "scatter"})
    # 100 KB hold one block of Flash-LLM, twice as much two.
    small, large = (simulate("flash-llm", "rtx-3090", *SHAPE, 8, 0.9, what_if=WhatIf(shared_scale=s)) for s in (1, 2))
    assert (small.grid.resident, large.grid.resident) == (1, 2)
    assert large.time_s < small.time_s


def test_our_kernels_are_simulated_as_compiled():
    """Registers, shared memory and counts come from the trace of the variant that fits N."""
    result = simulate("numba-tiled-csl", "a100-80gb", *SHAPE, 8, 0.8)
    trace = load_trace("tiled_csl", 8, "_v8")
    assert result.grid.resident == trace["architectures"]["sm_80"]["blocks_per_sm"]
    tiles = result.load.tiles
    # One block's instructions are those the emulator counted, within the split between constant and per-word work.
    issued = result.program.demand(int(tiles[0]), 1640.0 * int(tiles[0]))[Resource.ISSUE] / int(tiles[0])
    counted = trace["per_block"]["instructions"]
    assert_allclose(issued, counted["tile"] + 1640 * counted["word"], rtol=0.1)
    assert time_of("numba-tiled-csl", what_if=WhatIf(reorder=False), sparsity=0.9) > time_of(
        "numba-tiled-csl", sparsity=0.9
    )
    with pytest.raises(ValueError, match="not compiled for sm_75, allowed are sm_80"):
        time_of("numba-tiled-csl", "rtx-2080-super")


def test_uneven_matrix_is_slower_than_an_even_one():
    rows, depth = SHAPE[0] // 256, SHAPE[1] // 64
    even = np.full((rows, depth), 256 * 64 * 0.2)
    uneven = even.copy()
    uneven[: rows // 2] *= 1.6
    uneven[rows // 2 :] *= 0.4
    assert time_of(nnz_per_tile=uneven, split_k=1) > 1.05 * time_of(nnz_per_tile=even, split_k=1)
    assert_allclose(time_of(nnz_per_tile=even), time_of(seed=None), rtol=1e-3)


def test_few_representative_sms_stand_for_all(monkeypatch):
    few = time_of(shape=(28672, 7168))
    monkeypatch.setattr("perfmodel.pipeline.grid.SIMULATED_SMS", 108)
    monkeypatch.setattr("perfmodel.pipeline.grid.MAX_EVENTS", 10**7)
    assert_allclose(time_of(shape=(28672, 7168)), few, rtol=0.005)


@pytest.mark.parametrize(("blocks", "sms"), [(5, 108), (108, 108), (109, 108), (432, 108), (1000, 82)])
def test_representatives_stand_for_every_sm_in_use(blocks, sms):
    chosen = representatives(blocks, sms, 6)
    assert_allclose(sum(weight for _, weight in chosen), min(blocks, sms))
    carried = sum(weight * len(range(sm, blocks, sms)) for sm, weight in chosen)
    assert_allclose(carried, blocks)


def test_split_k_is_that_of_the_released_kernel():
    """The 12 hand-tuned values of the kernel benchmark, 2 blocks on each of 108 SMs."""
    tuned = {21504: 5, 28672: 7, 27648: 2, 9216: 6, 36864: 3, 49152: 9, 12288: 9, 7168: 7}
    chosen = {m: choose_split_k(m // 256, 216, 112, 10) for m in tuned}
    assert chosen == tuned


def test_tiles_of_all_blocks_cover_k():
    grid = Grid(4, 1, 5, 112, 2, 108)
    ranges = [grid.k_range(split) for split in range(5)]
    assert [end - begin for begin, end in ranges] == [23, 23, 23, 23, 20]
    program = simulate("flash-llm", "a100-80gb", 1024, 7168, 8, 0.8, split_k=5).program
    load = deal(grid, program, 10, TileCounts(256, 64, 0.2, None, None, 1))
    assert int(load.tiles.max()) == 23
    assert load.nonzeros.shape[1] == 23


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize("k", [1, 64, 65, 9216])
def test_small_and_odd_sizes(buffers, k):
    """One row, one column, a split of K that leaves blocks without a tile: all finish, and longer K takes longer."""
    change = WhatIf(double_buffer=buffers)
    for kernel in ("flash-llm", "cublas", "bitmap"):
        short = simulate(kernel, "a100-80gb", 1, k, 1, 0.5, what_if=change)
        split = simulate(kernel, "a100-80gb", 300, 9216, 1, 0.5, split_k=100, what_if=change)
        assert 0 < short.time_s <= time_of(kernel, shape=(1, 9216), n=1, sparsity=0.5, what_if=change)
        assert split.load.tiles.min() >= 1


def test_a_product_too_large_to_simulate_is_refused():
    with pytest.raises(ValueError, match="allowed are at most"):
        time_of("cublas", shape=(65536, 65536), n=8192)


def test_expected_wavefronts_against_sampling():
    sample = np.random.default_rng(0).integers(0, 32, (20_000, 32))
    fullest = [np.bincount(row, minlength=32).max() for row in sample]
    assert_allclose(expected_wavefronts(32), np.mean(fullest), rtol=0.01)
    assert expected_wavefronts(2, 2) == 1.5


@pytest.mark.parametrize(("kernel", "limit"), [("cublas", 0.03), ("flash-llm", 0.03)])
def test_held_out_tokens_of_the_paper(kernel, limit):
    """Figure 9 at 16 tokens, which no fit has seen."""
    rows = load_kernel_times("published/*")
    rows = rows[(rows["kernel"] == kernel) & (rows["n"] == 16) & (rows["source"] == "flash-llm-fig9")]
    assert not any(16 in plan.tokens for plan in FITS if plan.kernel == kernel and "flash-llm-fig9" in plan.source)
    error = predicted_us(kernel, rows, load_parameters(kernel)) / rows["time_us"] - 1
    assert error.abs().mean() <= limit


@pytest.mark.parametrize(
    ("gpu", "submission", "limit"),
    [("rtx-3090", "stream", 0.07), ("rtx-2080-super", "stream", 0.05), ("h100", "graph", 0.08)],
)
def test_dense_products_on_gpus_never_fitted(gpu, submission, limit):
    """cuBLAS up to 64 tokens, from the datasheet alone; the limit is a little above what is reached."""
    rows = load_kernel_times("measured/*")
    rows = rows[(rows["kernel"] == "cublas") & (rows["gpu"] == gpu) & (rows["n"] <= 64)].iloc[
        :: 40 if gpu == "h100" else 1
    ]
    error = predicted_us("cublas", rows, load_parameters("cublas", Submission(submission))) / rows["time_us"] - 1
    assert error.abs().mean() <= limit


def test_a_fit_finds_the_parameter_its_evidence_was_made_with():
    """Evidence made by the simulator itself with another launch time gives that launch time back."""
    plan = FITS[1]
    rows = plan.select(load_kernel_times("measured/*")).iloc[::12].copy()
    true = PipelineParameters(launch_s=4.2e-6)
    rows["time_us"] = predicted_us("cublas", rows, true)
    repeated = rows.loc[rows.index.repeat(plan.every)]
    found, record = fit(plan, repeated, PipelineParameters(launch_s=2e-6))
    assert_allclose(found.launch_s, 4.2e-6, rtol=0.02)
    assert record.mean_absolute_error < 0.005


def test_trace_is_what_perfetto_reads(tmp_path):
    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8)
    trace = json.loads(json.dumps(perfetto_trace(result), allow_nan=False))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == {0, 1}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)
    assert max(e["ts"] + e["dur"] for e in spans) == pytest.approx(result.kernel_s * 1e6, rel=0.05)
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {"clear", "load", "multiply", "scatter"} <= names


def test_timeline_uses_two_buffers_in_turn():
    table = timeline(simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8))
    scatter = table[(table["stage"] == "scatter") & (table["block"] == table["block"].min())]
    assert scatter["buffer"].tolist() == [tile % 2 for tile in scatter["tile"]]
    product = table[(table["stage"] == "mma 3") & (table["block"] == table["block"].min())]
    together = scatter.merge(product, on="tile", suffixes=("", "_product"))
    assert len(together) == len(scatter)
    assert (together["end_cycles"] <= together["begin_cycles_product"]).all()


def test_figures_are_drawn(tmp_path):
    from perfmodel.plotting.pipeline import gantt, stalls, utilisation
    from perfmodel.plotting.style import house_style

    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8)
    cases = {"flash-llm": result, "cublas": simulate("cublas", "a100-80gb", *SHAPE, 8)}
    with house_style():
        figures = [
            gantt(timeline(result), "title", (6, 8), result.machine.clock_hz),
            utilisation(utilisation_table(cases)),
            stalls(stall_table(cases)),
        ]
        for index, figure in enumerate(figures):
            figure.savefig(tmp_path / f"{index}.png")
            assert any(axes.patches for axes in figure.axes)
            plt.close(figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "flash-lm"}, "did you mean flash-llm"),
        ({"gpu": "a100"}, "unknown GPU"),
        ({"m": 0}, "m is 0, allowed is an integer of at least 1"),
        ({"sparsity": 1.5}, "1.5"),
        ({"split_k": 500}, "split_k is 500, allowed is 1 to 144"),
        ({"nnz_per_tile": np.zeros((2, 2))}, "nnz_per_tile has shape"),
        ({"nnz_per_tile": np.full((36, 144), 1e9)}, "allowed is 0 to 16384"),
    ],
)
def test_bad_input_is_named(change, message):
    call = {"kernel": "flash-llm", "gpu": "a100-80gb", "m": 9216, "k": 9216, "n": 8, "sparsity": 0.8} | change
    with pytest.raises(ValueError, match=message):
        simulate(**call)


@pytest.mark.parametrize(
    ("kernel", "change", "message"),
    [
        (
            "cublas",
            {"register_decode": True},
            "register_decode cannot be changed in cublas; only double_buffer and tile",
        ),
        ("cublas", {"reorder": False}, "reorder cannot be changed in cublas"),
        ("bitmap", {"register_decode": True, "reorder": False}, "reorder and register_decode cannot be changed in bit"),
        (
            "flash-llm",
            {"register_decode": True, "reorder": False},
            "reorder cannot be changed in flash-llm that decodes",
        ),
        (
            "numba-tiled-csl",
            {"double_buffer": False},
            "double_buffer cannot be changed in numba-tiled-csl; only reorder",
        ),
        ("numba-dense", {"tile_k": 32}, "tile_k cannot be changed in numba-dense; nothing can"),
    ],
)
def test_what_ifs_that_would_do_nothing_are_refused(kernel, change, message):
    with pytest.raises(ValueError, match=message):
        time_of(kernel, what_if=WhatIf(**change))


@pytest.mark.parametrize("change", [{"bandwidth_scale": 0}, {"shared_scale": math.inf}, {"tile_k": 24}])
def test_bad_what_ifs_are_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .*, allowed"):
        WhatIf(**change)


def test_a_stage_must_wait_for_one_that_exists():
    lonely = Stage("use", "scatter", {}, Work(1.0), after=(("nothing", 0),))
    with pytest.raises(ValueError, match="waits for 'nothing'"):
        Program("toy", Tile(128, 8, 64), 1, 1024, 32, 128, (lonely,), source="this test")


def command(*arguments):
    from lscd.simulate import simulate as run

    app = Typer()
    app.command()(run)
    return CliRunner().invoke(
        app, ["flash-llm", "--gpu", "a100-80gb", "--m", "9216", "--k", "9216", "--n", "8", *arguments]
    )


def test_command_prints_and_writes(tmp_path):
    trace = tmp_path / "out.json"
    result = command("--sparsity", "0.8", "--json", "--no-reorder", "--trace", str(trace))
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert_allclose(answer["time_us"], time_of(what_if=WhatIf(reorder=False)) * 1e6)
    assert json.loads(trace.read_text())["otherData"]["kernel"] == "flash-llm"
    assert "waited for" in command().stdout


def test_command_leaves_no_file_after_bad_input(tmp_path):
    out = tmp_path / "out.json"
    result = command("--sparsity", "7", "--trace", str(out))
    assert isinstance(result.exception, ValueError)
    assert not list(tmp_path.iterdir())
    assert "allowed are files ending in" in str(command("--gantt", "x.txt").exception)
