"""The model of streaming: it cuts a product as the launcher does, and says where a block has no room."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_bitmap, encode_condensed
from kernels_numba.gpu import bulk
from kernels_numba.gpu.launch import make_plan, with_aligned_rows
from perfmodel.catalog import load_gpu
from perfmodel.kernels import KERNELS, Machine, Shape
from perfmodel.kernels.register_decode import WIDTHS
from perfmodel.kernels.streamed_decode import STREAMS, StreamedDecode
from perfmodel.prediction import left_out, predict, predict_all
from tests.kernels_numba.problems import random_matrix

MODELS = [model for model in KERNELS.values() if isinstance(model, StreamedDecode)]


def test_streams_are_the_warps_of_a_block() -> None:
    assert dict(zip(WIDTHS, STREAMS, strict=True)) == bulk.WARPS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("n", [8, 64, 200])
def test_products_are_cut_as_the_launch_cuts_them(model: StreamedDecode, n: int) -> None:
    """Slices, blocks, and pieces by the positions of all cuts; the last slice may be shorter than the model takes it.

    The longest record of few strips is shorter than the model's, so K is long enough to tell by slices, not tiles.
    """
    m, k, sparsity = 256, 6400, 0.8
    encode = encode_condensed if "condensed" in model.traced else encode_bitmap
    weights = with_aligned_rows(encode(random_matrix(m, k, 1 - sparsity), model.positions))
    plan = make_plan(weights, n, streamed=True, arch="sm_90", sm_count=132)
    width = np.minimum(float(plan.variant.tile_n), WIDTHS[-1])
    shape = Shape.of(m, k, n, sparsity)
    cut = model.slicing(Machine.of(load_gpu("h100")), shape, width)
    assert abs(float(cut.slices) - plan.slices) <= 1
    if float(cut.slices) == plan.slices:
        assert (float(cut.blocks), float(cut.slice_tiles)) == (plan.blocks, plan.k_tiles_per_split)
    warps, strips = int(cut.blocks * cut.streams), int(cut.rows * cut.slice_tiles)
    cuts = {strips * warp // warps for warp in range(warps + 1)} | set(range(0, strips + 1, int(cut.slice_tiles)))
    assert float(cut.pieces) == pytest.approx((len(cuts) - 1) * float(cut.slices), rel=0.1)


def test_whole_rows_of_one_slice_leave_no_pieces() -> None:
    machine = Machine.of(load_gpu("h100"))
    cut = MODELS[0].slicing(machine, Shape.of(32 * 132 * 16, 640, 8, 0.8), np.asarray(8.0))
    assert (float(cut.slices), float(cut.strips_per_warp), float(cut.pieces)) == (1, 10, 0)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_older_cards_are_refused_in_a_sentence(model: StreamedDecode) -> None:
    with pytest.raises(ValueError, match=rf"RTX 4090 has compute capability 8.9; kernel '{model.name}' needs 9.0"):
        predict(model.name, "rtx-4090", 4096, 4096, 8, 0.8)


def test_what_has_no_room_is_refused_in_a_sentence_and_left_out() -> None:
    """99 KB hold 48 records of up to 2 KB, and no longer ones."""
    name = "lscd-bitmap-bulk"
    with pytest.raises(ValueError, match=r"more in shared memory at N = 8 and sparsity 0.5 than the 101,376 bytes"):
        predict(name, "rtx-5090", 4096, 4096, 8, [0.8, 0.5])
    assert {s: name in {p.kernel for _, p in predict_all("rtx-5090", 4096, 4096, 8, s)} for s in (0.5, 0.8)} == {
        0.5: False,
        0.8: True,
    }
    assert "shared memory" in left_out("rtx-5090", 8, 0.5)[name]
    assert name not in left_out("rtx-5090", 8, 0.8)


@pytest.mark.parametrize("n", [8, 32, 128])
def test_predictions_keep_to_physics(n: int) -> None:
    """Never below the DRAM floor; and never far ahead of the ring, which does the same work."""
    machine, shape = Machine.of(load_gpu("h100")), Shape.of(36864, 9216, n, np.linspace(0.4, 0.95, 12))
    for model in MODELS:
        fast, slow = (model.time(machine, shape, parameters) for parameters in model.at_ends())
        assert (fast.time_s > fast.dram_bytes / machine.dram_bytes_per_s).all()
        assert (slow.time_s > fast.time_s).all()
        ring = KERNELS[model.name.removesuffix("-bulk")].time(machine, shape, model.Parameters()).time_s
        assert (0.9 * ring < model.time(machine, shape, model.Parameters()).time_s).all()
