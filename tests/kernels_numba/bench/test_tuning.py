"""The cache of measured choices on disk, under concurrency and corruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from kernels_numba.bench.tuning import Entry, TuningCache, TuningCacheWarning, cache_directory


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


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    code = "import sys, time\nfrom pathlib import Path\nfrom kernels_numba.bench import tuning\n" + code
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
