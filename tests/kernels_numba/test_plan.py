"""Choosing by measurement: order, splits, the cache on disk under concurrency and corruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.bench import library as gpu_library
from kernels_numba.bench import measure
from kernels_numba.bench.tuning import Entry, TuningCache, TuningCacheWarning, cache_directory
from kernels_numba.formats import Csr, EncodedWeight, encode_csr, encode_tiled_csl
from kernels_numba.gpu import device
from kernels_numba.gpu.launch import make_plan
from kernels_numba.plan import ENCODERS, FORMATS, Candidate, estimated_bytes, format_name, plan
from kernels_numba.spmm import spmm
from lscd.choose import OUR_FORMATS, measurable
from perfmodel.choice import choose

RNG = np.random.default_rng(3)
A = RNG.standard_normal((130, 200)).astype(np.float16)
A[RNG.random(A.shape) < 0.8] = 0


@pytest.fixture
def cache(tmp_path: Path) -> TuningCache:
    return TuningCache("a device", tmp_path)


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


def test_only_the_best_predicted_are_measured(cache: TuningCache) -> None:
    candidates = [Candidate(name, 1e-6 * i) for i, name in enumerate(FORMATS["cpu"], 1)]
    watch = Stopwatch(dense=5, tiled_csl=4, two_four=3, csr=2)
    assert plan(A, 8, candidates, backend="cpu", measure=watch, cache=cache).format == "csr"
    assert [name for name, _, _ in watch.asked] == ["dense", "tiled-csl", "two-four", "csr"]


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


def test_the_model_hands_over_what_has_a_kernel_here() -> None:
    """Time of one product, in our own names; the quantised kernels, which have no code here, are left out."""
    matrix = choose("opt-13b", "h100", batch=16, sparsity=0.8, unmeasured=True).free[0]
    candidates = {candidate.format: candidate.time_s for candidate in measurable(matrix)}
    assert set(candidates) == set(OUR_FORMATS.values()) == set(FORMATS["cuda"])
    flash = matrix.of("flash-llm")
    assert flash is not None
    assert candidates["tiled-csl"] == pytest.approx(flash.span.time_s / 40)


# --- the cache ---


def test_entries_come_back(cache: TuningCache) -> None:
    assert cache.get("k") is None
    assert not cache.path.exists()
    for entry in (Entry("csr", None, 1.5), Entry("dense", 7, 2)):
        assert cache.put("k", entry)
        assert cache.get("k") == entry
    assert TuningCache("another device", cache.path.parent).get("k") is None
    assert "-1-" in cache.path.name


@pytest.mark.parametrize("entry", [Entry("csr", None, float("nan")), Entry("csr", None, -1), Entry("csr", 0, 1)])
def test_entries_that_could_not_be_read_back_are_refused(cache: TuningCache, entry: Entry) -> None:
    with pytest.raises(ValueError, match="entry: "):
        cache.put("k", entry)
    assert not cache.path.exists()


def test_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSCD_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv("LSCD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "lscd"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "lscd"


def broken(**changes: object) -> bytes:
    """A file with one good and one broken entry."""
    good = {"format": "csr", "split_k": None, "time_us": 1.0}
    return json.dumps({"schema": 1, "devices": {"a device": {"k": good, "bad": good | changes}}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"schema": 2, "devices": {}}', b'{"schema": 1, "devices": []}',
        b'{"schema": 1, "devices": {"a device": {"k": 3}}}', b"[" * 100_000, broken(time_us="fast"), broken(time_us=0),
        broken(time_us=True), broken(split_k=0), broken(split_k=1.5), broken(format=3), broken(extra=1),
        broken(time_us=float("nan")),
    ],
)  # fmt: skip
def test_a_corrupt_cache_is_ignored_with_a_warning_and_written_anew(cache: TuningCache, content: bytes) -> None:
    cache.path.write_bytes(content)
    with pytest.warns(TuningCacheWarning, match="ignored"):
        assert cache.get("k") is None
    with pytest.warns(TuningCacheWarning, match="ignored"):
        assert cache.put("k", Entry("dense", 1, 5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get("k") == Entry("dense", 1, 5.0)


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TuningCache("a device", tmp_path / "file")
    with pytest.warns(TuningCacheWarning, match="not kept"):
        assert not cache.put("k", Entry("csr", None, 1.0))
    with pytest.warns(TuningCacheWarning):
        choice = plan(A, 8, [Candidate("csr")], backend="cpu", measure=Stopwatch(csr=1), cache=cache)
    assert choice.source == "measured"


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    code = "import sys, time\nfrom pathlib import Path\nfrom kernels_numba import tuning\n" + code
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, *map(str, arguments)], stderr=subprocess.PIPE)


def test_many_processes_lose_nothing(cache: TuningCache) -> None:
    """Four writers of 12 entries each; whoever reads meanwhile sees a whole file."""
    code = (
        "cache = tuning.TuningCache(f'device {int(sys.argv[2]) % 2}', Path(sys.argv[1]))\n"
        "for i in range(12):\n    assert cache.put(f'{sys.argv[2]}-{i}', tuning.Entry('csr', None, i + 1.0))\n"
    )
    writers = [start(code, cache.path.parent, number) for number in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(writer.poll() is None for writer in writers):
            cache.get("k")
            time.sleep(0.002)
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors.decode()
    tables = json.loads(cache.path.read_text())["devices"]
    assert {device: len(table) for device, table in tables.items()} == {"device 0": 24, "device 1": 24}
    assert {path.name for path in cache.path.parent.iterdir()} == {cache.path.name, cache.path.stem + ".lock"}


def test_a_writer_that_dies_holding_the_lock_blocks_nobody(cache: TuningCache) -> None:
    assert cache.put("before", Entry("csr", None, 1.0))
    code = "with tuning._locked(Path(sys.argv[1])):\n    Path(sys.argv[1] + '.held').touch()\n    time.sleep(60)\n"
    lock = cache.path.with_suffix(".lock")
    holder = start(code, lock)
    held = Path(f"{lock}.held")
    end = time.monotonic() + 30
    while not held.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert held.exists()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert cache.put("after", Entry("csr", None, 2.0))
    assert cache.get("before") == Entry("csr", None, 1.0)


def test_both_bitmaps_are_formats_of_their_own() -> None:
    for name in ("bitmap", "bitmap-pairs"):
        choice = plan(A, 8, [Candidate(name)], measure=False, backend="cuda")
        encoded = choice.encode(A)
        assert format_name(encoded) == choice.format == name
        assert plan(encoded, 8, measure=False, backend="cuda").format == name
