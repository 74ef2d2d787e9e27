"""The one call: backends agree with float64, wrong input is refused in words, plans fill the GPU."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import Dense, Element, encode_bitmap, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.formats.encoded import narrowed
from kernels_numba.gpu import device
from kernels_numba.reference import check_product
from kernels_numba.spmm import choose_backend, host_array, spmm
from tests.kernels_numba.problems import ml_dtypes_array

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


def test_formats_without_a_gpu_kernel_are_refused() -> None:
    with pytest.raises(
        ValueError, match="format of weights: PanelCsr; allowed: TiledCsl, Bitmap, Condensed, Csr, TwoFour or Dense"
    ):
        spmm(encode_panel_csr(A), X, backend="emulator")
    with pytest.raises(ValueError, match="element type of weights: float32; allowed: float16 or bfloat16"):
        spmm(Dense(A.astype(np.float32)), X, backend="emulator")
    with pytest.raises(ValueError, match="split_k: 2; allowed: 1 for CSR"):
        spmm(encode_csr(A), X, backend="emulator", split_k=2)


BITS_A, BITS_X = narrowed(A.astype(np.float32), Element.BFLOAT16), narrowed(X.astype(np.float32), Element.BFLOAT16)
BFLOAT16_WEIGHTS = encode_bitmap(BITS_A, element=Element.BFLOAT16)


@pytest.mark.parametrize("backend", ["reference", "emulator", "cpu", "auto"])
@pytest.mark.parametrize("encode", [encode_tiled_csl, encode_bitmap, encode_two_four, Dense])
@pytest.mark.parametrize("out_dtype", [None, "bfloat16", np.float32])
def test_backends_agree_on_bfloat16(backend: str, encode: Any, out_dtype: Any) -> None:
    weights = encode(BITS_A, element=Element.BFLOAT16)
    out = spmm(weights, BITS_X, backend=backend, out_dtype=out_dtype)
    assert out.dtype == (np.float32 if out_dtype is np.float32 else np.uint16)
    assert out.flags.c_contiguous
    check_product(out, weights, BITS_X, backend)


def test_bfloat16_of_ml_dtypes_goes_in_and_comes_out() -> None:
    a, x = ml_dtypes_array(BITS_A), ml_dtypes_array(BITS_X)
    out = spmm(a, x, backend="emulator")
    assert out.dtype == x.dtype
    expected = spmm(Dense(BITS_A, Element.BFLOAT16), BITS_X, backend="emulator")
    np.testing.assert_array_equal(out.view(np.uint16), expected)
    assert spmm(a, x, backend="emulator", out_dtype=np.float32).dtype == np.float32


def test_bfloat16_tensors_of_the_cpu_are_viewed() -> None:
    torch = pytest.importorskip("torch")
    a, x = (torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16) for bits in (BITS_A, BITS_X))
    assert np.shares_memory(host_array(x, "x"), BITS_X)
    expected = spmm(Dense(BITS_A, Element.BFLOAT16), BITS_X, backend="reference")
    np.testing.assert_array_equal(spmm(a, x, backend="reference", out_dtype=torch.bfloat16), expected)


def test_auto_takes_the_gpu_where_weights_and_activations_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "is_supported", lambda: True)
    assert choose_backend(BFLOAT16_WEIGHTS, BITS_X) == "cuda"
    assert choose_backend(BFLOAT16_WEIGHTS, X) == "cpu"


def test_the_cpu_multiplies_bfloat16_weights_with_other_activations() -> None:
    for x in (X, X.astype(np.float32)):
        out = spmm(BFLOAT16_WEIGHTS, x, backend="cpu")
        assert out.dtype == np.float16
        check_product(out, BFLOAT16_WEIGHTS, x)


@pytest.mark.parametrize(
    ("weights", "x", "options", "message"),
    [
        (encode_tiled_csl(A), BITS_X, {}, r"dtype of x: <u2; allowed: float16, or float32 .* for float16 weights"),
        (BFLOAT16_WEIGHTS, X, {"backend": "emulator"}, "float16; allowed: uint16 bit patterns of bfloat16 for GPU"),
        (BFLOAT16_WEIGHTS, X, {"backend": "cuda"}, "float16; allowed: uint16 bit patterns of bfloat16 for GPU"),
        (BFLOAT16_WEIGHTS, X.astype(np.int16), {}, r"dtype of x: <i2; allowed: bfloat16 \(uint16\), or float16, or"),
        (BFLOAT16_WEIGHTS, BITS_X, {"out_dtype": np.float16}, "out_dtype: float16; allowed: bfloat16 or float32"),
        (encode_tiled_csl(A), X, {"out_dtype": "bfloat16"}, "out_dtype: bfloat16; allowed: float16 or float32"),
        (BFLOAT16_WEIGHTS, OnGpu((70, 8)), {}, "dtype of x: <f2; allowed: bfloat16 on the GPU for bfloat16 weights"),
        (encode_tiled_csl(A), OnGpu((70, 8), typestr="<V2"), {}, "dtype of x: <V2; allowed: float16 on the GPU"),
        (BFLOAT16_WEIGHTS, OnGpu((70, 8), typestr="<V2", strides=(2, 140)), {}, "strides of x"),
    ],
)
def test_mixed_elements_are_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, weights: Any, x: Any, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(device, "is_available", lambda: options.get("backend") == "cuda")
    with pytest.raises(ValueError, match=message):
        spmm(weights, x, **options)


@pytest.mark.skipif(device.is_available(), reason="has a GPU")
def test_cuda_backend_without_a_gpu_says_what_else_there_is() -> None:
    with pytest.raises(ValueError, match=r"backend: cuda; allowed: cpu, emulator, reference \(no NVIDIA GPU"):
        spmm(encode_tiled_csl(A), X, backend="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not device.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("encode", [encode_tiled_csl, encode_csr, Dense])
def test_gpu_agrees_with_float64(encode: Any) -> None:
    weights = encode(A)
    check_product(spmm(weights, X, backend="cuda", out_dtype=np.float32), weights, X)
