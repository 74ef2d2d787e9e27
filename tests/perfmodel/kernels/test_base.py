"""What kernel models share: overlap, whole blocks, machines of arrays, declared ranges."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_device, load_gpu
from perfmodel.kernels import GPU_KERNELS, KERNELS, Machine, Shape
from perfmodel.kernels.base import imbalance, overlap
from perfmodel.kernels.fits import calibrated, unmeasured_kernels
from tests.comparison import assert_close
from tests.perfmodel.evidence.own_rows import SIZES
from tests.perfmodel.kernels.running import RUNNING, at_sparsity, home, tokens


@pytest.mark.parametrize("sharpness", [1, 2, 3])
def test_overlap_lies_between_maximum_and_sum(sharpness: int) -> None:
    a, b = np.array([1.0, 1.0, 0.0, 5.0]), np.array([1.0, 1e-9, 2.0, 4.0])
    joint = overlap(a, b, sharpness)
    assert (joint >= np.maximum(a, b)).all()
    assert (joint <= a + b + 1e-12).all()
    assert joint[0] == pytest.approx(2 ** (1 / 2**sharpness))


def test_imbalance_of_whole_blocks() -> None:
    assert_close(imbalance(np.array([108.0, 109.0, 54.0]), 108), [1.0, 216 / 109, 2.0], relative=1e-12)


def test_one_machine_of_arrays_equals_many_machines() -> None:
    for kernel, model in GPU_KERNELS.items():
        gpus = [load_gpu(gpu) for gpu, name in RUNNING if name == kernel]
        order = np.random.default_rng(0).permutation(len(gpus))
        shape = Shape.of(7168, 7168, tokens(kernel, 16), at_sparsity(kernel, 0.7))
        together = model.time(Machine.stack(gpus, order), shape, calibrated(kernel)).time_s
        alone = [float(model.time(Machine.of(gpus[i]), shape, calibrated(kernel)).time_s) for i in order]
        assert len(gpus) >= 5
        assert_close(together, alone, relative=1e-12)


@pytest.mark.parametrize("kernel", unmeasured_kernels())
def test_each_range_has_its_fast_end_where_declared(kernel: str) -> None:
    """Moving one parameter alone to its fast end makes no shape slower, and some faster."""
    model, machine = KERNELS[kernel], Machine.of(load_device(home(kernel)))
    shape = Shape.of(*np.array([(m, k, n) for m, k in SIZES for n in (8, 64)]).T[:, :, None], [0.3, 0.6, 0.95])
    middle, (fast, slow) = model.Parameters(), model.at_ends()
    at = model.time(machine, shape, middle).time_s
    for name in vars(middle):
        sooner, later = (
            model.time(machine, shape, model.Parameters(**{**vars(middle), name: getattr(end, name)})).time_s
            for end in (fast, slow)
        )
        assert (sooner <= at).all()
        assert (at <= later).all()
        assert (sooner < later).any()
