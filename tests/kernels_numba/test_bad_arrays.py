"""Whatever array an encoder or a product is given: the right answer, or a ValueError that says what is allowed."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching
from numpy.typing import NDArray

from kernels_numba import jit, reference
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.kernels import spmm as cpu_spmm
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import (
    Csr,
    Dense,
    EncodedWeight,
    encode_bitmap,
    encode_condensed,
    encode_csr,
    encode_quantised_bitmap,
    encode_quantised_condensed,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.records import pack_bitmap, pack_quantised
from kernels_numba.formats.two_four_tiles import pack
from kernels_numba.plan import Candidate, plan
from kernels_numba.spmm import spmm

SHAPE, N = (48, 80), 4
A: NDArray[Any] = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float16)
A[np.random.default_rng(4).random(SHAPE) < 0.7] = 0
X: NDArray[Any] = np.random.default_rng(5).standard_normal((SHAPE[1], N)).astype(np.float16)
ENCODERS: dict[str, Callable[..., EncodedWeight]] = {
    "dense": Dense,
    "csr": encode_csr,
    "tiled-csl": encode_tiled_csl,
    "bitmap": encode_bitmap,
    "bitmap-pairs": lambda a, **how: encode_bitmap(a, 2, **how),
    "condensed": encode_condensed,
    "two-four": encode_two_four,
    "int8": lambda a, **how: encode_quantised_bitmap(a, 8, **how),
    "condensed-int4": lambda a, **how: encode_quantised_condensed(a, 4, **how),
    "panel-csr": encode_panel_csr,
    "cpu-bitmap": encode_cpu_bitmap,
    "bitmap-records": lambda a, **how: pack_bitmap(encode_bitmap(a, **how)),
    "e4m3-records": lambda a, **how: pack_quantised(encode_quantised_bitmap(a, "e4m3", **how)),
    "two-four-tiles": lambda a, **how: pack(encode_two_four(a, **how)),
}


def unaligned(a: NDArray[Any]) -> NDArray[Any]:
    """The same numbers at an odd address."""
    raw = np.zeros(a.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(a.tobytes(), np.uint8)
    return raw[1:].view(a.dtype).reshape(a.shape)


def read_only(a: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in memory that nobody may write."""
    return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)


class Subclass(np.ndarray[Any, Any]):
    """An array of a type of its own."""


# The same matrix in other memory: encoders must give the same for each.
SAME: dict[str, Callable[[NDArray[Any]], Any]] = {
    "read-only": read_only,
    "unaligned": unaligned,
    "unaligned read-only": lambda a: read_only(unaligned(a)),
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "subclass": lambda a: a.view(Subclass),
    "matrix": lambda a: a.view(np.matrix),
}
# What is no matrix that any of them takes.
BAD: dict[str, Callable[[NDArray[Any]], Any]] = {
    "masked": lambda a: np.ma.masked_array(a, a > 1),
    "unmasked but of the type": lambda a: np.ma.masked_array(a),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "object": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "complex": lambda a: a.astype(np.complex64),
    "float64": lambda a: a.astype(np.float64),
    "bool": lambda a: a != 0,
    "datetime": lambda a: a.astype(np.int64).astype("datetime64[s]"),
    "structured": lambda a: a.view([("x", np.float16)]),
    "0-d": lambda a: a[0, 0],
    "0-d array": lambda a: np.array(a[0, 0]),
    "1-d": lambda a: a[0],
    "3-d": lambda a: a[None],
    "no rows": lambda a: a[:0],
    "no columns": lambda a: a[:, :0],
    "of terabytes": lambda a: np.broadcast_to(a[:1, :1], (2**22, 2**22)),
    "list": lambda a: a.tolist(),
    "None": lambda a: None,
    "number": lambda a: 3,
    "words": lambda a: "banana",
}
OUT_DTYPES: list[Any] = [
    "banana", 3, object, object(), np.int8, np.complex64, "f4,banana", [], {}, (), b"f4", math.nan, "", "\ud800",
    np.float64, bool, "float16 ", [("x", "f4")], (np.float32, 2), lambda: None, 10**400, True, ("a", "b"),
]  # fmt: skip


def attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """What a call returns, or why it is a fault; None and None if it is refused in a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return call(), None
        except ValueError as error:
            return None, None if str(error) and "\n" not in str(error) else f"no sentence: {error!r}"
        except Exception as error:  # whatever else there is, is a fault
            return None, f"{type(error).__name__}: {str(error)[:200]}"


def same_encoding(encode: str, memory: str) -> str | None:
    """What is wrong with the encoding of the same numbers in other memory."""
    other = SAME[memory](A)
    found, why = attempt(lambda: ENCODERS[encode](other).validate())
    if found is None:
        return why or "refused"
    expected = ENCODERS[encode](A)
    aliased = any(np.shares_memory(one, other) for one in found.buffers.values()) and other.flags.writeable
    same = all(np.array_equal(one, found.buffers[name]) for name, one in expected.buffers.items())
    return None if same and not aliased else "aliases" if aliased else "another encoding"


def held_in(memory: Callable[[NDArray[Any]], Any], weights: EncodedWeight) -> EncodedWeight:
    """The same encoding with its buffers in other memory."""
    fields = {
        name: memory(value) if isinstance(value, np.ndarray) else value
        for name, value in vars(weights).items()
        if not (name == "shape" and isinstance(weights, Dense))
    }
    return type(weights).from_buffers(**fields)


every_encoder = pytest.mark.parametrize("encode", sorted(ENCODERS))


@every_encoder
def test_the_same_matrix_in_other_memory_is_encoded_the_same_and_copied(encode: str) -> None:
    faults = {memory: same_encoding(encode, memory) for memory in SAME}
    assert not any(faults.values()), faults


@every_encoder
def test_what_is_no_matrix_is_refused(encode: str) -> None:
    for what, make in BAD.items():
        found, why = attempt(lambda make=make: ENCODERS[encode](make(A)))
        assert why is None, f"{what}: {why}"
        assert found is None, f"{what} was taken"


@every_encoder
@pytest.mark.parametrize("memory", ["read-only", "unaligned", "subclass"])
def test_buffers_in_any_memory_decode_and_multiply(encode: str, memory: str) -> None:
    weights = ENCODERS[encode](A)
    given: list[NDArray[Any]] = []
    held = held_in(lambda buffer: given.append(SAME[memory](buffer)) or given[-1], weights)
    np.testing.assert_array_equal(held.decode(), weights.decode())
    np.testing.assert_array_equal(cpu_spmm(held, X), cpu_spmm(weights, X))
    assert not any(np.shares_memory(a, b) and a.flags.writeable for a in given for b in held.buffers.values())


@every_encoder
def test_a_decoded_matrix_does_not_change_its_weights(encode: str) -> None:
    weights = ENCODERS[encode](A)
    decoded = weights.decode()
    assert not decoded.flags.writeable or not any(np.shares_memory(decoded, b) for b in weights.buffers.values())


def test_a_dense_weight_keeps_its_values_when_the_caller_changes_his() -> None:
    a = A.copy()
    weights = Dense(a)
    a[:] = 0
    np.testing.assert_array_equal(weights.values, A)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(sorted(ENCODERS)), st.sampled_from(sorted(SAME | BAD)), st.sampled_from([np.float32, *OUT_DTYPES])
)
def test_products_are_right_or_refused(encode: str, memory: str, out_dtype: Any) -> None:
    weights, x = ENCODERS[encode](A), (SAME | BAD)[memory](X)
    found, why = attempt(lambda: spmm(weights, x, backend="cpu", out_dtype=out_dtype))
    assert why is None, why
    if found is None:
        return
    assert memory in SAME
    assert out_dtype is np.float32 or out_dtype == b"f4"
    np.testing.assert_allclose(found, reference.spmm(weights, X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("element", ["banana", 3, object(), [], {}, np.int8, np.float16, True])
@every_encoder
def test_elements_that_there_are_not_are_refused(encode: str, element: Any) -> None:
    assert attempt(lambda: ENCODERS[encode](A, element=element)) == (None, None)


def test_numpy_integers_are_numbers_and_bools_are_none() -> None:
    assert encode_bitmap(A, np.int64(2)).width == 2
    assert encode_csr(A, index_bits=np.array(16)).col_idx.dtype == np.uint16
    for bad in (True, 1.0, "1", None, [], math.nan, 10**400):
        assert attempt(lambda bad=bad: encode_bitmap(A, bad)) == (None, None)
        assert attempt(lambda bad=bad: encode_condensed(A, bad)) == (None, None)
        assert attempt(lambda bad=bad: encode_csr(A, index_bits=bad)) == (None, None)
        assert attempt(lambda bad=bad: plan(A, 8, [Candidate("csr", split_k=bad)], measure=bad))[1] is None


def test_what_needs_terabytes_is_refused_before_it_is_allocated() -> None:
    no_weights = np.zeros(0, np.float16)
    wide = Csr.from_buffers(shape=(1, 2**40), row_ptr=np.zeros(2, np.int32), col_idx=no_weights.astype(np.int32),
                            values=no_weights)  # fmt: skip
    with pytest.raises(ValueError, match=r"2,199\.0 GB; allowed: at most the .* GB of memory"):
        wide.decode()
    with pytest.raises(ValueError, match="GB of memory"):
        plan(A, 2**31 - 1, [Candidate("csr")], backend="cpu", measure=lambda *_: 1.0)


def test_loops_are_compiled_without_a_place_to_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert jit.serial(lambda x: x + 1)(1) == 2


FORKED = """
import os, numpy as np
from kernels_numba.formats import encode_csr
a = np.eye(64, dtype=np.float16)
before = encode_csr(a).values
child = os.fork()
if child == 0:
    os._exit(0 if (encode_csr(a).values == before).all() and os.getppid() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
THREADED = """
import threading, numpy as np
from kernels_numba.formats import encode_csr
a = np.eye(512, dtype=np.float16)
workers = [threading.Thread(target=lambda: [encode_csr(a) for _ in range(50)]) for _ in range(4)]
[worker.start() for worker in workers], [worker.join() for worker in workers]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize(("script", "layer"), [(FORKED, "omp"), (FORKED, "workqueue"), (THREADED, "workqueue")])
def test_forks_and_threads_do_not_end_the_process(script: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_THREADING_LAYER", layer)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
