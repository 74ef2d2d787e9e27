"""One product: cold and warm, checked before and after, the fastest layout, what the row says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kernels_numba.bench import families
from kernels_numba.bench.product import MAX_COPIES, Gpu, copies_beyond_l2
from kernels_numba.bench.session import WARM_PRODUCTS
from kernels_numba.bench.slabs import make_matrix
from kernels_numba.bench.timing import Run, Timing
from tests.kernels_numba.bench.emulated import GPU, Emulated, matrix, session


def test_cold_rotates_through_copies_and_warm_does_not() -> None:
    library = Emulated()
    products = families.prepare("lscd-tiled-csl", library, GPU, matrix(sparsity=0.8))
    rows = session(library).measure(products(8))
    assert library.timed == [MAX_COPIES, WARM_PRODUCTS]
    assert [row.cache for row in rows] == ["cold", "warm"]
    assert copies_beyond_l2(nbytes=10**9, l2_bytes=50 * 2**20) == 2
    assert copies_beyond_l2(nbytes=20 * 2**20, l2_bytes=50 * 2**20) == 9


def test_weights_far_beyond_the_l2_cache_are_not_timed_warm() -> None:
    library, gpu = Emulated(), Gpu("h200", "sm_90", 132, l2_bytes=100, copy_bytes_per_s=4e12)
    rows = session(library, gpu).measure(families.prepare("cublas", library, gpu, matrix())(8))
    assert [row.cache for row in rows] == ["cold"]


def test_the_faster_layout_has_the_row_and_both_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Emulated()
    times = iter([(30.0), (31.0), (20.0), (21.0)])

    def time(products: Sequence[Run], *, replay: bool = True) -> Timing:
        products[0]()
        return Timing(next(times), 0.1)

    monkeypatch.setattr(library, "time", time)
    cold, warm = session(library).measure(families.prepare("cublas", library, GPU, matrix())(8))
    assert (cold.kernel, cold.time_us, warm.time_us) == ("cublas", 20.0, 21.0)
    assert cold.note.endswith("layout TN, NN 30.00 us")
    assert warm.note.endswith("layout TN, NN 31.00 us")


def test_a_row_tells_split_occupancy_and_what_the_product_moves() -> None:
    library = Emulated()
    given = matrix(256, 640, 0.8)
    row, _ = session(library).measure(families.prepare("lscd-bitmap", library, GPU, given)(8))
    assert (row.gpu, row.kernel, row.m, row.k, row.n) == ("h200", "lscd-bitmap", 256, 640, 8)
    assert row.sparsity == round(given.sparsity, 4)
    assert row.split_k == 10  # two tiles of rows and ten of columns for 132 SMs
    assert row.blocks_per_sm is not None
    assert row.blocks_per_sm >= 1
    assert (row.time_us, row.time_err_us, row.status, row.launch) == (10.0, 0.5, "value", "graph")
    assert (row.clock_mhz, row.power_w, row.throttle) == (None, None, None)


def test_a_time_that_launching_may_have_set_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Emulated()
    products = families.prepare("cublas", library, GPU, matrix())
    for host_bound, status in ((False, "value"), (True, "upper_bound")):

        def time(todo: Sequence[Run], *, replay: bool = True, bound: bool = host_bound) -> Timing:
            todo[0]()
            return Timing(10.0, 0.5, False, bound)

        monkeypatch.setattr(library, "time", time)
        assert {row.status for row in session(library).measure(products(8))} == {status}


def test_a_product_that_is_right_only_once_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is poisoned again before timing, so replays that write nothing are wrong."""
    library = Emulated()
    monkeypatch.setattr(library, "time", lambda products, *, replay=True: Timing(10.0, 0.5))
    with pytest.raises(ArithmeticError, match="1024 of 1024 elements are wrong"):
        session(library).measure(families.prepare("cublas", library, GPU, matrix())(8))


def test_every_family_computes_its_own_product() -> None:
    """Ours and the vendor's; with slabs that repeat, and one changed weight that shows."""
    for family in ("cublas", "cusparse", *families.encoders()):
        sparsity = 0.0 if family in families.DENSE_ONLY else 0.8
        library, given = Emulated(), make_matrix(256, 64, sparsity, 8, seed=4, most_rows=128)
        assert given.times == 2
        products = families.prepare(family, library, GPU, given)
        assert session(library).measure(products(8))[0].kernel == family
        row, column = np.argwhere(given.slab)[0]
        given.slab[row, column] *= -1
        with pytest.raises(ArithmeticError, match="elements are wrong"):
            session(library).measure(families.prepare(family, library, GPU, given)(8))
