"""`lscd query`: right answers, and SQL that reaches one table and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lscd.cli import app
from lscd.query import answer, confined, in_words
from perfmodel.sweep import run
from perfmodel.sweep.store import opened_results
from tests.perfmodel.sweep.cases import AXES, plan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROOT = Path(__file__).resolve().parents[2]
RUNNER = CliRunner()
SPEC = """[sweep]
target = "predict"
[axes]
gpu = "a100-80gb"
kernel = ["flash-llm", "sputnik"]
m = {start = 1024, stop = 3072, step = 1024}
k = {start = 1024, stop = 3072, step = 1024}
n = [8, 16, 32, 64]
sparsity = {start = 0.0, stop = 0.998, step = 0.1}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out.parquet"
    run(plan(axes=AXES | {"kernel": ["cublas", "sputnik"]}), out)
    return out


def asked(results: Path, sql: str, *more: str) -> str:
    return RUNNER.invoke(app, ["query", str(results), sql, *more], catch_exceptions=False).output


def test_sweep_then_query(tmp_path: Path) -> None:
    spec, out, csv = tmp_path / "s.toml", tmp_path / "out.parquet", tmp_path / "best.csv"
    spec.write_text(SPEC)
    result = RUNNER.invoke(app, ["sweep", str(spec), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "720 rows of 720 points" in result.output
    sql = "SELECT kernel, count(*) AS points FROM results GROUP BY kernel ORDER BY kernel"
    assert "flash-llm     360" in asked(out, sql)
    assert "2 rows" in asked(out, sql, "--output", str(csv))
    assert csv.read_text() == "kernel,points\nflash-llm,360\nsputnik,360\n"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT tme_us FROM results", "the table results has at_least|tme_us"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE x (i INT)", "a query is one SELECT"),
        ("SELECT 1; DROP VIEW results", "a query is one SELECT"),
        ("", "a query is one SELECT"),
        ("\udcff", "a query is text in UTF-8"),
    ],
)
def test_query_explains_wrong_sql(results: Path, sql: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked(results, sql)


def test_the_answers_in_the_documentation_are_what_its_queries_give(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    out = tmp_path / "plan.parquet"
    made = RUNNER.invoke(app, ["sweep", str(ROOT / "data/sweeps/serving-plan.toml"), "--out", str(out)])
    assert re.search(r"[\d,]+ rows of [\d,]+ points", made.output)[0] in page  # type: ignore[index]
    questions = re.findall(r"```sql\n(.*?)\n```\n\n```text\n(.*?)\n```", page, flags=re.DOTALL)
    assert len(questions) == 2
    for sql, told in questions:
        assert [line.split() for line in asked(out, sql).splitlines()] == [line.split() for line in told.splitlines()]


def test_columns_and_ranges_asked_for_give_what_pandas_gives(results: Path) -> None:
    rows = pd.read_parquet(results)
    kernel = rows["kernel"].astype(str)
    with opened_results(results) as (_, table), confined(table) as connection:
        for where, wanted in (
            ("kernel = 'cublas' AND n > 8", (kernel == "cublas") & (rows["n"] > 8)),
            ("kernel < 'd' AND bound <> 'memory'", (kernel < "d") & (rows["bound"].astype(str) != "memory")),
            ("sparsity BETWEEN 0.2 AND 0.7 OR extrapolated", rows["sparsity"].between(0.2, 0.7) | rows["extrapolated"]),
            ("gpu IN ('rtx-4090') AND time_us IS NOT NULL", rows["gpu"].astype(str) == "rtx-4090"),
        ):
            sql = f"SELECT count(*) AS n, sum(m)::BIGINT AS m, max(time_us) AS t FROM results WHERE {where}"
            (told,) = answer(connection, sql).read_all().to_pylist()
            assert told["n"] == wanted.sum() > 0
            assert told["m"] == rows["m"][wanted].sum()
            assert told["t"] == rows["time_us"][wanted].max()


CONFINED_SQL = [
    "SELECT * FROM '{path}'",
    "SELECT * FROM read_csv('{path}')",
    "SELECT * FROM read_text('{path}')",
    "SELECT * FROM read_blob('{path}')",
    "SELECT * FROM read_parquet('{path}')",
    "SELECT * FROM parquet_metadata('{path}')",
    "SELECT * FROM glob('{path}')",
    "SELECT * FROM sniff_csv('{path}')",
    "SELECT * FROM 'https://127.0.0.1:9/x.csv'",
    "SELECT * FROM st_read('{path}')",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM enable_logging(storage = 'file', storage_config = {{'path': '{path}'}})",
    "SELECT * FROM enable_profiling('json', save_location = '{path}')",
    "SELECT * FROM query('COPY results TO ''{path}''')",
    "SELECT * FROM secret_of_this_program",
    "COPY results TO '{path}'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "ATTACH '{path}'",
    "EXPORT DATABASE '{path}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET lock_configuration = false",
    "PRAGMA version",
    "CALL enable_logging()",
    "EXPLAIN ANALYZE COPY results TO '{path}'",
    "CREATE OR REPLACE TEMP VIEW results AS SELECT 1",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SELECT 2",
]


@pytest.mark.parametrize("sql", CONFINED_SQL)
def test_sql_reaches_nothing_but_the_table(results: Path, tmp_path: Path, sql: str) -> None:
    secret_of_this_program = pd.DataFrame({"x": [1]})
    path = tmp_path / "x.csv"
    path.write_text("secret")
    before = {file: file.read_bytes() for file in (results, path)}
    with pytest.raises(ValueError, match=r"Error: |a query is one SELECT") as refusal:
        asked(results, sql.format(path=path))
    assert "\n" not in str(refusal.value)
    assert {file: file.read_bytes() for file in (results, path)} == before
    assert [*tmp_path.iterdir(), *results.parent.iterdir()] == [path, results]
    assert len(secret_of_this_program) == 1


def test_the_database_is_locked_whatever_slips_through(results: Path, tmp_path: Path) -> None:
    import duckdb

    with opened_results(results) as (_, table), confined(table) as connection:
        for sql in CONFINED_SQL[:-3]:
            with suppress(duckdb.Error):
                connection.execute(sql.format(path=tmp_path / "x.csv")).fetchall()
        refused = [sql for sql in CONFINED_SQL if sql.startswith(("COPY results", "SET", "LOAD", "INSTALL", "ATTACH"))]
        for sql in refused:
            with pytest.raises(duckdb.Error, match=r"disabled (by|through) configuration|has been locked"):
                connection.execute(sql.format(path=tmp_path / "x.csv"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT " + "(" * 50_000 + "1" + ")" * 50_000, "expression depth"),
        ("SELECT " + "1+" * 50_000 + "1", "expression depth"),
        ("SELECT error('one\ntwo')", "one; the table"),
        ("SELECT union_value(k := 1)", "sparse_union"),
    ],
)
def test_hard_queries_end_in_a_sentence(results: Path, sql: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        asked(results, sql)
    assert "\n" not in str(refusal.value)


def test_an_answer_larger_than_memory_is_a_sentence() -> None:
    import duckdb

    for error in (MemoryError(), duckdb.OutOfMemoryException("could not allocate 5 GiB")):
        with pytest.raises(ValueError, match="more memory than there is"), in_words([]):
            raise error


def test_whole_numbers_stay_whole_in_a_file_with_gaps(results: Path, tmp_path: Path) -> None:
    sql = "SELECT * FROM (VALUES (1, true, 'a'), (NULL, NULL, NULL), (9007199254740993, false, '')) AS t(i, b, s)"
    asked(results, sql, "--output", str(tmp_path / "o.csv"))
    assert (tmp_path / "o.csv").read_text().splitlines() == ["i,b,s", "1,True,a", ",,", "9007199254740993,False,"]
    asked(results, "SELECT 1 AS a, 2 AS b WHERE false", "--output", str(tmp_path / "none.csv"))
    assert (tmp_path / "none.csv").read_text() == "a,b\n"


@pytest.mark.parametrize("output", ["loop", "/dev/null", "fifo", "missing/o.csv"])
def test_answers_go_to_files_alone(results: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    refusal = "leads back to itself|is a (device|pipe), no file|no such directory"
    with pytest.raises(ValueError, match=refusal):
        asked(results, "SELECT 1", "--output", str(tmp_path / output))
    with pytest.raises(ValueError, match="is the input itself"):
        asked(results, "SELECT 1", "--output", str(results))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "loop"]


@pytest.mark.parametrize(
    "sql",
    ["SELECT count(*) FROM range(1000000000000)", "SELECT levenshtein(repeat('ab', 300000), repeat('ba', 300000))"],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_heard_at_once_and_leaves_nothing(
    results: Path, tmp_path: Path, sql: str, number: int, code: int
) -> None:
    """The second is one function of one row, which DuckDB does not stop."""
    out = tmp_path / "o.csv"
    script = (
        "import signal, sys; from lscd.cli import main; from lscd import query; start = query.Thread.start\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which shells take from what they put aside
        "query.Thread.start = lambda thread: (start(thread), print('asked', flush=True))\n"
        f"sys.argv = ['lscd', 'query', {str(results)!r}, {sql!r}, '--output', {str(out)!r}]; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    time.sleep(1)
    start_s = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - start_s < 5  # a second, and patience with a busy machine
    assert (process.returncode, said) == (code, "lscd: stopped\n")
    assert not list(tmp_path.iterdir())


WORDS = """SELECT FROM results WHERE m n time_us kernel , ( ) * = < + 1 0.5 'x' NULL AND NOT COPY TO SET WITH t AS LIMIT
GROUP BY ORDER count max list [ ] { } ; -- $1 read_csv CASE WHEN THEN END :: INT DATE UNNEST range UNION"""


@pytest.fixture(scope="module")
def connection(results: Path) -> Iterator[DuckDBPyConnection]:
    with opened_results(results) as (_, rows), confined(rows) as connection:
        yield connection


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join) | st.text(max_size=20), st.booleans())
def test_any_sql_is_an_answer_or_a_sentence(connection: DuckDBPyConnection, words: str, started: bool) -> None:
    with suppress(StopIteration, ValueError), in_words([]):
        answer(connection, ("SELECT " if started else "") + words).read_next_batch()
