"""The one call: backends agree with float64, wrong input is refused in words, plans fill the GPU."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import numpy as np
import pytest

from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import Dense, Element, TiledCsl, TwoFour, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.gpu import device
from kernels_numba.gpu.launch import Launch, choose_split_k, launches, make_plan
from kernels_numba.gpu.variants import tile_n_for, vectors_for
from kernels_numba.reference import check_product
from kernels_numba.spmm import choose_backend, spmm

RNG = np.random.default_rng(7)
A = RNG.standard_normal((130, 70)).astype(np.float16)
A[RNG.random(A.shape) < 0.7] = 0
X = RNG.standard_normal((70, 12)).astype(np.float16)


@pytest.mark.parametrize("backend", ["reference", "emulator", "cpu", "auto"])
@pytest.mark.parametrize("encode", [encode_tiled_csl, Dense])
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_backends_agree_with_float64(backend: str, encode: Any, out_dtype: type) -> None:
    weights = encode(A)
    out = spmm(weights, X, backend=backend, out_dtype=out_dtype)
    assert out.dtype == out_dtype
    check_product(out, weights, X, backend)


def test_plain_array_means_dense() -> None:
    np.testing.assert_array_equal(spmm(A, X, backend="emulator"), spmm(Dense(A), X, backend="emulator"))


def test_dlpack_arrays_are_viewed_not_copied() -> None:
    class Foreign:
        """An array of another library: only DLPack."""

        def __dlpack__(self, **options: Any) -> Any:
            return X.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return X.__dlpack_device__()

    from kernels_numba.spmm import host_array

    assert np.shares_memory(host_array(Foreign(), "x"), X)
    np.testing.assert_array_equal(spmm(A, Foreign(), backend="reference"), spmm(A, X, backend="reference"))


def test_auto_chooses_the_cpu_without_a_gpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "is_available", lambda: False)
    weights = encode_tiled_csl(A)
    assert choose_backend(weights, X) == "cpu"
    with caplog.at_level(logging.INFO):
        spmm(weights, X)
    assert "backend cpu" in caplog.text


def test_auto_chooses_the_gpu_for_what_its_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "is_supported", lambda: True)
    assert choose_backend(encode_tiled_csl(A), X) == "cuda"
    assert choose_backend(encode_csr(A), X) == "cuda"
    assert choose_backend(encode_two_four(A), X) == "cuda"
    assert choose_backend(Dense(A.astype(np.float32)), X) == "cpu"
    assert choose_backend(encode_tiled_csl(A), X.astype(np.float32)) == "cpu"


class OnGpu:
    """Something that says it lies on the GPU."""

    def __init__(self, shape: tuple[int, ...], *, typestr: str = "<f2", address: int = 4096, strides: Any = None):
        self.shape = shape
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (address, False), "strides": strides, "version": 3,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X[:-1], {}, r"shape of x: \(69, 12\); allowed: \(70, n\)"),
        (X[:, 0], {}, "shape of x"),
        (X[:, :0], {}, "shape of x"),
        (X.T.copy().T, {}, "row-major"),
        (X.astype(np.int32), {}, "dtype of x: <i4"),
        (X.tolist(), {}, "x: list; allowed: an array"),
        (X, {"backend": "gpu"}, "backend: 'gpu'; allowed: auto, cuda"),
        *(
            (X, {"backend": backend, "split_k": split_k}, f"split_k: {split_k!r}; allowed: an integer from 1 to 65535")
            for backend in ("emulator", "cpu", "reference", "cuda")
            for split_k in (0, True, 2.0, np.True_)
        ),
        (X.astype(np.float64), {}, "dtype of x: <f8; allowed: float16, or float32 on the CPU, in native byte order"),
        (X.astype(">f2"), {"backend": "cpu"}, "dtype of x: >f2; allowed: float16"),
        (X.astype(np.float32), {"backend": "emulator"}, "dtype of x: float32; allowed: float16"),
        (X, {"out_dtype": np.int8}, "out_dtype: int8; allowed: float16 or float32"),
        (OnGpu((70, 8)), {"backend": "cpu"}, "backend: cpu; allowed: cuda"),
        (OnGpu((70, 8), typestr="<f4"), {}, "dtype of x: <f4"),
        (OnGpu((70, 8), address=4098), {}, "address of x: 0x1002; allowed: a multiple of 16"),
        (OnGpu((70, 8), strides=(2, 140)), {}, "strides of x"),
    ],
)
def test_wrong_input_is_refused_in_words(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spmm(encode_tiled_csl(A), x, **options)


@pytest.mark.parametrize("backend", ["reference", "emulator", "cpu"])
def test_a_result_may_be_the_next_x(backend: str) -> None:
    """Any n, also one that the kernels pad, and any integer as a bound for the split."""
    out = spmm(encode_tiled_csl(A), X, backend=backend, split_k=np.int64(2))
    assert out.flags.c_contiguous
    assert spmm(encode_tiled_csl(A.T.copy()), out, backend=backend).shape == (70, 12)


def test_plans_take_whole_numbers_only() -> None:
    weights = encode_tiled_csl(A)
    assert make_plan(weights, np.int32(9), split_k=np.int64(2)) == make_plan(weights, 9, split_k=2)
    for options in ({"n": 8.0}, {"n": 0}, {"n": 8, "split_k": "2"}):
        with pytest.raises(ValueError, match=r"(n|split_k): .*; allowed: an integer from 1 to"):
            make_plan(weights, **options)


def test_buffers_of_wrong_types_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"buffers of TwoFour: .*residual.*; allowed: the fields"):
        TwoFour.from_buffers(shape=(4, 4))
    weights = encode_two_four(A)
    fields = {name: getattr(weights, name) for name in weights.__dataclass_fields__}
    with pytest.raises(ValueError, match="buffers of TwoFour: "):
        TwoFour.from_buffers(**(fields | {"residual": None}))


def test_formats_without_a_gpu_kernel_are_refused() -> None:
    with pytest.raises(
        ValueError, match="format of weights: PanelCsr; allowed: TiledCsl, Bitmap, Csr, TwoFour or Dense"
    ):
        spmm(encode_panel_csr(A), X, backend="emulator")
    bits = Dense(A.view(np.uint16), Element.BFLOAT16)
    with pytest.raises(ValueError, match="element type of weights: bfloat16"):
        spmm(bits, X, backend="emulator")
    with pytest.raises(ValueError, match="split_k: 2; allowed: 1 for CSR"):
        spmm(encode_csr(A), X, backend="emulator", split_k=2)


@pytest.mark.skipif(device.is_available(), reason="has a GPU")
def test_cuda_backend_without_a_gpu_says_what_else_there_is() -> None:
    with pytest.raises(ValueError, match=r"backend: cuda; allowed: cpu, emulator, reference \(no NVIDIA GPU"):
        spmm(encode_tiled_csl(A), X, backend="cuda")


def empty_weights(m: int, k: int, words_per_tile: int) -> TiledCsl:
    """Only the sizes matter to a plan."""
    tiles = -(-m // 128) * -(-k // 64)
    return TiledCsl((m, k), np.empty(tiles * words_per_tile, np.uint32), np.empty(tiles + 2, np.int32))


def test_sizes_beyond_32_bits_are_refused() -> None:
    weights = Dense(np.broadcast_to(np.float16(1), (1, 70)).copy())
    with pytest.raises(ValueError, match=r"k \* n: .* allowed: at most 2147483647"):
        make_plan(weights, 2**31 // 70 + 8)


@pytest.mark.parametrize("split_k", [1, 2, 3, 7, 100])
def test_no_block_is_without_work(split_k: int) -> None:
    plan = make_plan(empty_weights(128, 640, 8), 8, split_k=split_k)
    assert plan.k_tiles_per_split * (plan.split_k - 1) < 10 <= plan.k_tiles_per_split * plan.split_k
    assert plan.split_k <= split_k


def test_split_k_fills_the_gpu_and_no_more() -> None:
    """One tile of output and much K: split. Far more tiles than slots: do not. Two tiles of K: at most two."""
    assert choose_split_k(output_tiles=1, k_tiles=512, tile_n=8, slots=432) > 8
    assert choose_split_k(output_tiles=4320, k_tiles=144, tile_n=8, slots=432) == 1
    assert choose_split_k(output_tiles=1, k_tiles=2, tile_n=8, slots=432) <= 2


def test_split_k_removes_an_expensive_tail() -> None:
    """433 tiles on 432 slots take two waves of 100; any split that fills waves better must win."""
    chosen = choose_split_k(output_tiles=433, k_tiles=100, tile_n=8, slots=432)
    waves = -(-433 * chosen // 432)
    assert waves * -(-100 // chosen) < 200


def test_choice_of_tile_and_registers() -> None:
    assert [tile_n_for(n) for n in (8, 16, 24, 32, 40, 64, 72)] == [8, 16, 32, 32, 64, 64, 64]
    assert [vectors_for(8192 * density) for density in (0.0, 0.25, 0.26, 0.5, 1.0)] == [4, 4, 8, 8, 8]


def test_grid_and_arguments_follow_the_plan() -> None:
    plan = make_plan(empty_weights(300, 500, 400), 70, split_k=2)
    assert plan.n_padded == 72
    assert plan.grid == (2, 3, 2)
    assert plan.workspace_shape == (2, 300, 72)
    buffers = {"words": "W", "tile_offsets": "T"}
    first, second = launches(plan, buffers, "X", "OUT", "WORK", as_fp32=False)
    assert isinstance(first, Launch)
    assert first.arguments == ("W", "T", "X", "WORK", 300, 500, 72, 4, 1)
    assert second.arguments == ("WORK", "OUT", 300 * 72, 2, 0)
    assert second.grid == (-(-300 * 72 // 512), 1, 1)


def test_check_product_names_the_worst_element() -> None:
    weights = Dense(A)
    out = spmm(weights, X, backend="reference", out_dtype=np.float32)
    out[17, 3] += 1
    with pytest.raises(AssertionError, match=r"1 of 1560 elements are wrong; worst at \(17, 3\): got"):
        check_product(out, weights, X)
    out[17, 3] = np.nan
    with pytest.raises(AssertionError, match=r"\(17, 3\): got np.float32\(nan\)"):
        check_product(out, weights, X)


@pytest.mark.gpu
@pytest.mark.skipif(not device.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("encode", [encode_tiled_csl, encode_csr, Dense])
def test_gpu_agrees_with_float64(encode: Any) -> None:
    weights = encode(A)
    check_product(spmm(weights, X, backend="cuda", out_dtype=np.float32), weights, X)


def test_uploaded_weights_are_freed_with_their_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.cuda.to_device", lambda buffer: buffer)
    monkeypatch.setattr(device, "current_ordinal", lambda: 0)
    monkeypatch.setattr(device, "_succeed", lambda result: None)
    monkeypatch.setattr("cuda.bindings.driver.cuCtxSynchronize", lambda: None)
    weights = encode_tiled_csl(np.eye(8, dtype=np.float16))
    seen = weakref.ref(weights)
    assert device.upload(weights)[0] is weights
    del weights
    gc.collect()
    assert seen() is None


def test_element_given_as_text_is_understood() -> None:
    bits = encode_csr(np.full((2, 2), 0x3F80, np.uint16), element=Element.BFLOAT16)
    fields = {name: getattr(bits, name) for name in bits.__dataclass_fields__}
    again = type(bits).from_buffers(**(fields | {"element": "bfloat16"}))
    assert again.element is Element.BFLOAT16
    with pytest.raises(ValueError, match="element: float17"):
        type(bits).from_buffers(**(fields | {"element": "float17"}))


@pytest.mark.parametrize("encode", [encode_tiled_csl, Dense])
def test_blocks_that_share_weights_start_together(encode) -> None:
    """Neighbouring blocks differ in columns, so that L2 serves the weights to all but the first of them."""
    plan = make_plan(encode(A), 128, split_k=1)
    rows, columns = -(-A.shape[0] // 128), 128 // plan.variant.tile_n
    assert columns > 1
    assert plan.grid == (columns, rows, 1)
