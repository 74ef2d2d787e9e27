"""`lscd sweep` and `lscd query` as processes: stopped, out of disk, resumed, asked."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lscd.cli import app
from perfmodel.sweep import Plan, run
from perfmodel.sweep.table import chunk_table
from tests.perfmodel.sweep.cases import AXES, plan

ROOT = Path(__file__).resolve().parents[2]


RUNNER = CliRunner()


MANY = """[sweep]
target = "predict"
[axes]
gpu = "a100-80gb"
kernel = ["flash-llm", "sputnik"]
m = {start = 1024, stop = 20480, step = 1024}
k = {start = 1024, stop = 20480, step = 1024}
n = [8, 16, 32, 64]
sparsity = {start = 0.0, stop = 0.998, step = 0.002}
"""


def start_sweep(tmp_path: Path, out: Path) -> subprocess.Popen[str]:
    """The command line with small chunks in a process of its own."""
    spec = tmp_path / "many.toml"
    spec.write_text(MANY)
    code = (
        "import sys; from perfmodel.sweep import grid; grid.CHUNK_POINTS = 1 << 15; from lscd.cli import main; "
        f"sys.argv = ['lscd', 'sweep', {str(spec)!r}, '--out', {str(out)!r}]; main()"
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for_chunks(process: subprocess.Popen[str], parts: Path, chunks: int) -> None:
    deadline = time.monotonic() + 30
    while not parts.exists() or len(list(parts.glob("chunk-*"))) < chunks:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no chunk appeared in 30 s"
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_resume_after_a_stop_gives_the_same_file(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    process = start_sweep(tmp_path, out)
    wait_for_chunks(process, parts, 3)
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130), said
    if how is signal.SIGINT:
        assert "chunks are stored, the same command goes on from there" in said
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("chunk-*")}
    assert len(done) >= 3
    assert not out.exists()
    again = start_sweep(tmp_path, out)
    wait_for_chunks(again, parts, len(done) + 1)
    # What was stored is not computed again.
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in parts.glob("chunk-*")}.items()
    finish(again)
    whole = tmp_path / "whole.parquet"
    finish(start_sweep(tmp_path, whole))
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize(("limit", "chunks"), [(50_000, 0), (2_000_000, 80)], ids=["first chunk", "join"])
def test_a_full_disk_leaves_whole_chunks_and_a_hint(tmp_path: Path, limit: int, chunks: int) -> None:
    """A limit on file size stands in for the full disk: writes fail midway just the same."""
    spec, out = tmp_path / "many.toml", tmp_path / "out.parquet"
    spec.write_text(MANY)
    code = (
        "import resource, signal, sys; from perfmodel.sweep import grid; grid.CHUNK_POINTS = 1 << 15\n"
        "from lscd.cli import main\n"
        f"sys.argv = ['lscd', 'sweep', {str(spec)!r}, '--out', {str(out)!r}]\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "main()"
    )
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert stopped.returncode == 2, stopped
    assert "File too large" in stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert not out.exists()
    left = sorted(path.name for path in (tmp_path / "out.parquet.parts").iterdir())
    assert left == [f"chunk-{index:08d}.parquet" for index in range(chunks)] + ["plan.json"]
    finish(start_sweep(tmp_path, out))
    assert pq.read_metadata(out).num_rows == 2 * 20 * 20 * 4 * 500


def test_sweep_then_query(tmp_path: Path) -> None:
    spec, out, csv = tmp_path / "s.toml", tmp_path / "out.parquet", tmp_path / "best.csv"
    spec.write_text(MANY.replace("stop = 20480", "stop = 3072").replace("step = 0.002", "step = 0.1"))
    result = RUNNER.invoke(app, ["sweep", str(spec), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "720 rows of 720 points" in result.output
    sql = "SELECT kernel, count(*) AS points FROM results GROUP BY kernel ORDER BY kernel"
    assert "flash-llm     360" in RUNNER.invoke(app, ["query", str(out), sql]).output
    assert RUNNER.invoke(app, ["query", str(out), sql, "--output", str(csv)]).exit_code == 0
    assert csv.read_text() == "kernel,points\nflash-llm,360\nsputnik,360\n"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT tme_us FROM results", "the table results has kernel|tme_us"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE x (i INT)", "a query is one SELECT"),
        ("SELECT 1; DROP VIEW results", "a query is one SELECT"),
        ("", "a query is one SELECT"),
    ],
)
def test_query_explains_wrong_sql(tmp_path: Path, sql: str, message: str) -> None:
    out = tmp_path / "out.parquet"
    run(plan(axes=AXES | {"kernel": "cublas"}), out)
    with pytest.raises(ValueError, match=message):
        RUNNER.invoke(app, ["query", str(out), sql], catch_exceptions=False)


@pytest.mark.parametrize("text", ["not toml", "[sweep]\ntarget = 'predict'\n"])
def test_sweep_names_the_broken_spec(tmp_path: Path, text: str) -> None:
    spec = tmp_path / "s.toml"
    spec.write_text(text)
    with pytest.raises(ValueError, match=r"s.toml: (not a TOML file|missing axes gpu, kernel, m, k, n, sparsity)"):
        RUNNER.invoke(app, ["sweep", str(spec), "--out", str(tmp_path / "o.parquet")], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == [spec]


def test_every_example_spec_runs(tmp_path: Path) -> None:
    import tomllib

    specs = sorted((ROOT / "data" / "sweeps").glob("*.toml"))
    assert len(specs) >= 5
    for path in specs:
        made = Plan.of(tomllib.loads(path.read_text()))
        assert made.spec.grid.points <= 2_000_000, path
        rows = chunk_table(made, 0)
        assert rows.num_rows > 0, path
        assert json.loads(made.identity)["points"] == made.spec.grid.points


def test_the_answers_in_the_documentation_are_what_its_queries_give(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    out = tmp_path / "plan.parquet"
    made = RUNNER.invoke(app, ["sweep", str(ROOT / "data/sweeps/serving-plan.toml"), "--out", str(out)])
    assert re.search(r"[\d,]+ rows of [\d,]+ points", made.output)[0] in page  # type: ignore[index]
    asked = re.findall(r"```sql\n(.*?)\n```\n\n```text\n(.*?)\n```", page, flags=re.DOTALL)
    assert len(asked) == 2
    for sql, answer in asked:
        told = RUNNER.invoke(app, ["query", str(out), sql]).output
        assert [line.split() for line in told.splitlines()] == [line.split() for line in answer.splitlines()]
