"""Choosing by measurement: order, splits, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.bench import library as gpu_library
from kernels_numba.bench import measure
from kernels_numba.bench.tuning import Entry, TuningCache, TuningCacheWarning
from kernels_numba.formats import Csr, Element, EncodedWeight, encode_csr, encode_tiled_csl
from kernels_numba.formats.encoded import narrowed
from kernels_numba.gpu import device
from kernels_numba.gpu.launch import make_plan
from kernels_numba.plan import ENCODERS, FORMATS, Candidate, estimated_bytes, format_name, plan
from kernels_numba.spmm import spmm
from tests.kernels_numba.problems import random_matrix

RNG = np.random.default_rng(3)
A = RNG.standard_normal((130, 200)).astype(np.float16)
A[RNG.random(A.shape) < 0.8] = 0


class Stopwatch:
    """Pretends to measure: microseconds by format, and remembers what it was asked."""

    def __init__(self, **times: float) -> None:
        self.times = {name.replace("_", "-"): value for name, value in times.items()}
        self.asked: list[tuple[str, int, int | None]] = []

    def __call__(self, weights: EncodedWeight, n: int, split_k: int | None) -> float:
        name = format_name(weights)
        self.asked.append((name, n, split_k))
        return self.times[name] + (split_k or 0)


def test_without_measurement_the_prediction_decides() -> None:
    candidates = [Candidate("dense", 3e-6), Candidate("tiled-csl", 1e-6, split_k=4), Candidate("csr")]
    choice = plan(A, 8, candidates, measure=False, backend="cuda")
    assert (choice.format, choice.split_k, choice.source, choice.time_us) == ("tiled-csl", 4, "model", 1.0)
    assert plan(A, 8, [Candidate("dense"), Candidate("tiled-csl")], measure=False).source == "bytes"


def test_estimated_bytes_are_close_to_the_encoders() -> None:
    a = RNG.standard_normal((512, 512)).astype(np.float16)
    a[RNG.random(a.shape) < 0.7] = 0
    sizes = estimated_bytes(a.shape, np.count_nonzero(a))
    for name, encode in ENCODERS.items():
        assert sizes[name] == pytest.approx(encode(a).nbytes, rel=0.06), name


def test_measurement_overrules_the_prediction_and_is_kept(cache: TuningCache) -> None:
    candidates = [Candidate("dense", 1e-6), Candidate("tiled-csl", 2e-6), Candidate("csr", 3e-6)]
    watch = Stopwatch(dense=30, tiled_csl=20, csr=10)
    first = plan(A, 8, candidates, backend="cpu", measure=watch, cache=cache)
    assert (first.format, first.source, first.time_us) == ("csr", "measured", 10)
    assert first.tried == {("dense", None): 30, ("tiled-csl", None): 20, ("csr", None): 10}
    assert len(watch.asked) == 3
    again = plan(A, 8, candidates, backend="cpu", measure=watch, cache=TuningCache("a device", cache.path.parent))
    assert (again.format, again.source, again.time_us) == ("csr", "cache", 10)
    assert len(watch.asked) == 3
    elsewhere = TuningCache("another device", cache.path.parent)
    for n, store in ((16, cache), (8, elsewhere)):
        assert plan(A, n, candidates, backend="cpu", measure=watch, cache=store).source == "measured"


def test_bfloat16_is_planned_apart_from_float16(cache: TuningCache) -> None:
    """A measurement of one type answers no question about the other; the choice encodes its own type."""
    bits, candidates = narrowed(A.astype(np.float32), Element.BFLOAT16), [Candidate("dense"), Candidate("csr")]
    plan(A, 8, candidates, backend="cpu", measure=Stopwatch(dense=1, csr=2), cache=cache)
    watch = Stopwatch(dense=30, csr=10)
    choice = plan(bits, 8, candidates, backend="cpu", measure=watch, cache=cache, element=Element.BFLOAT16)
    assert (choice.format, choice.source, choice.element) == ("csr", "measured", Element.BFLOAT16)
    np.testing.assert_array_equal(choice.encode(bits).decode(), np.where(bits == 0x8000, 0, bits))
    encoded = plan(choice.encode(bits), 8, backend="cpu", cache=cache)
    assert (encoded.format, encoded.element) == ("csr", Element.BFLOAT16)
    for name, encode in ENCODERS.items():
        own = Element.FLOAT32 if name == "dense-fp32" else Element.BFLOAT16
        assert encode(bits, element=Element.BFLOAT16).element is own, name


def test_only_the_best_predicted_are_measured(cache: TuningCache) -> None:
    candidates = [Candidate(name, 1e-6 * i) for i, name in enumerate(FORMATS["cpu"], 1)]
    watch = Stopwatch(dense=5, tiled_csl=4, two_four=3, csr=2, dense_fp32=6)
    assert plan(A, 8, candidates, backend="cpu", measure=watch, cache=cache).format == "csr"
    assert [name for name, _, _ in watch.asked] == ["dense", "tiled-csl", "two-four", "csr", "dense-fp32"]


def test_gpu_candidates_try_splits_around_the_launchers_own(
    cache: TuningCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "current_arch", lambda: "sm_80")
    monkeypatch.setattr(device, "sm_count", lambda: 2)
    a = np.tile(A, (1, 10))
    own = make_plan(encode_tiled_csl(a), 8, arch="sm_80", sm_count=2).split_k
    watch = Stopwatch(tiled_csl=10, csr=50, dense=40)
    candidates = [Candidate("tiled-csl", 1e-6), Candidate("dense", 1e-5, split_k=3), Candidate("csr", 1e-4)]
    choice = plan(a, 8, candidates, backend="cuda", measure=watch, cache=cache)
    splits = [split for name, _, split in watch.asked if name == "tiled-csl"]
    assert splits[0] == own > 1
    assert len(set(splits)) == len(splits) == 3
    assert min(splits) < own < max(splits)
    assert [ask[2] for ask in watch.asked if ask[0] != "tiled-csl"] == [3, None]
    assert (choice.format, choice.split_k) == ("tiled-csl", min(splits))
    assert cache.get(next(iter(json.loads(cache.path.read_text())["devices"]["a device"]))) == Entry(
        "tiled-csl", min(splits), 10 + min(splits)
    )


def test_an_encoded_weight_keeps_its_format(cache: TuningCache) -> None:
    candidates = [Candidate("dense", 1e-6), Candidate("tiled-csl", 2e-6)]
    watch = Stopwatch(dense=1, tiled_csl=20)
    choice = plan(encode_tiled_csl(A), 8, candidates, backend="cpu", measure=watch, cache=cache)
    assert choice.format == "tiled-csl"
    with pytest.raises(ValueError, match="candidates: dense, tiled-csl; allowed: some of csr"):
        plan(encode_csr(A), 8, candidates, backend="cpu", measure=watch, cache=cache)


def test_a_candidate_that_fails_is_left_out(cache: TuningCache) -> None:
    def broken(weights: EncodedWeight, n: int, split_k: int | None) -> float:
        if isinstance(weights, Csr):
            return 9.0
        raise RuntimeError("out of memory")

    candidates = [Candidate("dense", 1e-6), Candidate("csr", 2e-6)]
    assert plan(A, 8, candidates, backend="cpu", measure=broken, cache=cache).format == "csr"
    fallback = plan(A, 8, candidates[:1], backend="cpu", measure=broken, cache=cache)
    assert (fallback.format, fallback.source) == ("dense", "model")


def test_real_measurement_on_the_cpu(cache: TuningCache) -> None:
    choice = plan(A, 8, backend="cpu", cache=cache)
    assert choice.source == "measured"
    assert choice.time_us == min(choice.tried.values()) > 0
    x = RNG.standard_normal((200, 8)).astype(np.float16)
    weights = choice.encode(A)
    np.testing.assert_array_equal(weights.decode(), A)
    assert spmm(weights, x, backend="cpu").shape == (130, 8)
    assert "threads" in measure.device_identity("cpu")


def test_a_gpu_without_a_timing_library_leaves_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing():
        raise RuntimeError("neither PyTorch nor CuPy")

    monkeypatch.setattr(gpu_library, "open_library", missing)
    choice = plan(A, 8, [Candidate("dense", 1e-6)], backend="cuda")
    assert (choice.source, choice.format) == ("model", "dense")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((A, 0), {}, "n: 0; allowed: an integer from 1 to"),
        ((A.astype(np.float32), 8), {}, "dtype: float32; allowed: float16"),
        ((A, 8), {"backend": "tpu"}, "backend: 'tpu'; allowed: auto, cuda, cpu"),
        ((A, 8, [Candidate("coo")]), {}, "format: 'coo'; allowed: dense"),
        ((A, 8, [Candidate("dense", split_k=0)]), {}, "split_k: 0; allowed: an integer from 1 to"),
        ((A, 8, [Candidate("dense", float("nan"))]), {}, "time_s: nan; allowed: a positive number"),
        ((A, 8, []), {"backend": "cpu"}, "candidates: none; allowed: some of dense"),
        ((A, 8, [Candidate("panel-csr")]), {"backend": "cuda"}, "candidates: panel-csr; allowed: some of dense"),
    ],
)
def test_bad_input_is_refused_in_words(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(*arguments, **{"measure": False, **options})


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TuningCache("a device", tmp_path / "file")
    with pytest.warns(TuningCacheWarning, match="not kept"):
        assert not cache.put("k", Entry("csr", None, 1.0))
    with pytest.warns(TuningCacheWarning):
        choice = plan(A, 8, [Candidate("csr")], backend="cpu", measure=Stopwatch(csr=1), cache=cache)
    assert choice.source == "measured"


@pytest.mark.parametrize("name", ["bitmap", "bitmap-pairs", "condensed", "condensed-pairs"])
def test_formats_with_pairs_are_formats_of_their_own(name: str) -> None:
    choice = plan(A, 8, [Candidate(name)], measure=False, backend="cuda")
    encoded = choice.encode(A)
    assert format_name(encoded) == choice.format == name
    assert plan(encoded, 8, measure=False, backend="cuda").format == name


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["condensed", "condensed-pairs"])
def test_estimated_bytes_of_condensed_strips(name: str, density: float) -> None:
    """Within 10 %, tails or not."""
    a = random_matrix(512, 512, density)
    estimate = estimated_bytes(a.shape, np.count_nonzero(a))[name]
    assert ENCODERS[name](a).nbytes == pytest.approx(estimate, rel=0.1)


def test_a_cpu_is_compared_with_the_library_whatever_is_smaller(cache: TuningCache) -> None:
    """NumPy's product in float32 has the most bytes of all, so an order by bytes alone would never try it."""
    watch = Stopwatch(cpu_bitmap=50, panel_csr=56, two_four=99, tiled_csl=70, dense_fp32=10)
    choice = plan(A, 8, backend="cpu", measure=watch, cache=cache)
    assert choice.format == "dense-fp32"
    assert len(watch.asked) == 5
    encoded = choice.encode(A)
    x = RNG.standard_normal((A.shape[1], 8)).astype(np.float32)
    np.testing.assert_array_equal(spmm(encoded, x, backend="cpu"), (A.astype(np.float32) @ x).astype(np.float16))
    assert "dense-fp32" not in FORMATS["cuda"]
