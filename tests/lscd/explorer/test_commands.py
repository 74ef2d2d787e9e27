"""The page's answers are those of the command line: verdict, run, operators, front, kernels, for twenty settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lscd.cli import app
from lscd.explorer import words
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import NOTHING, Files, View, view
from perfmodel.catalog import model_from_text, sparsities_from_text
from perfmodel.catalog.altered import toml_of
from perfmodel.serving.systems import load_system
from perfmodel.serving.tradeoff import BATCHES
from tests.lscd.explorer.cases import CENSUS, CONFIG

LLAMA_8B = State("llama-3.1-8b", "h100", 1, "vllm+fp8", sparsity=0.6, input_len=1024, output_len=256)
SETTINGS: dict[str, State] = {
    **{name: one.state for name, one in PRESETS.items()},
    "dense": replace(LLAMA_8B, system="vllm"),
    "one sequence": replace(LLAMA_8B, system="vllm+bitmap", batch=1),
    "a pattern": replace(LLAMA_8B, system="sglang+two-four", sparsity=0.5),
    "too few zeros": State(sparsity=0.3),
    "mixture on one card": State("gpt-oss-20b", "l40s", 1, "vllm+int4", sparsity=0.5, batch=8),
    "latent attention": State("deepseek-v2-lite", "a100-80gb", 1, "vllm", sparsity=0.5, batch=32),
    "an AMD card": State("llama-3.1-8b", "mi300x", 1, "vllm", sparsity=0.6, batch=64),
    "a system refused": State("llama-3.1-8b", "a100-80gb", 1, "vllm+fp8", sparsity=0.6, batch=4),
    "more bandwidth": replace(LLAMA_8B, bandwidth=2.0, price=1.5),
    "a smaller card": replace(LLAMA_8B, sms=0.5, clock=0.8, l2=0.5, memory=0.5),
    "a loaded server": replace(LLAMA_8B, served=True, batch=24),
    "tight limits": replace(LLAMA_8B, served=True, ttft_ms=100, tpot_ms=10),
    "limits of batches": replace(LLAMA_8B, ttft_ms=500, tpot_ms=8),
    "unmeasured kernels": replace(LLAMA_8B, system="vllm+lscd-bitmap", unmeasured=True),
}


OWN = model_from_text(CONFIG, "config.json")
BROUGHT = {
    "a model of one's own": Files(OWN),
    "a census": Files(OWN, sparsities_from_text(CENSUS, "census.csv")),
}


@pytest.fixture(scope="module", params=[*SETTINGS, *BROUGHT])
def page(request: pytest.FixtureRequest) -> View:
    name = request.param
    return view(SETTINGS.get(name, LLAMA_8B), BROUGHT.get(name, NOTHING))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files")
    (found / "config.json").write_text(CONFIG)
    (found / "census.csv").write_text(CENSUS)
    return found


def lscd(*arguments: object) -> Any:
    """What a command says as JSON."""
    found = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert found.exit_code == 0, (arguments, found.output, found.exception)
    return json.loads(found.stdout)


def card(page: View, folder: Path) -> str:
    """What ``--gpu`` is given: a name, or the file that the page offers of a card that the catalogue lacks."""
    if page.gpu.key == page.state.gpu:
        return page.state.gpu
    path = folder / f"{page.gpu.key}.toml"
    path.write_text(toml_of(page.gpu))
    return str(path)


def asked(page: View, folder: Path) -> list[object]:
    state = page.state
    model = state.model if page.files.model is None else folder / "config.json"
    return [
        "--model", model, "--gpu", card(page, folder), "--gpus", state.gpus,
        "--input-len", state.input_len, "--output-len", state.output_len,
    ]  # fmt: skip


def zeros(page: View, folder: Path) -> list[object]:
    """How a command is told what pruning reaches."""
    if page.files.zeros is None:
        return ["--sparsity", page.state.sparsity]
    return ["--sparsity-file", folder / "census.csv"]


def test_the_verdict_is_that_of_worth(page: View, folder: Path) -> None:
    state = page.state
    said = lscd("worth", *asked(page, folder), "--batch", state.batch, *zeros(page, folder))
    tile = words.facts(page)[0]
    assert tile.value == said["verdict"] == said["batches"][0]["verdict"]
    assert said["answer"].startswith(f"Worth it: {tile.value}. {tile.note.partition('zeros. ')[2]}")
    assert page.at is not None
    steps = {rival.kernel: rival.step_s for rival in page.at.rivals}
    assert steps == {rival["kernel"]: rival["step_s"] for rival in said["batches"][0]["rivals"]}


@pytest.mark.parametrize("name", ["opt-30b-one-gpu", "one sequence", "an AMD card", "more bandwidth"])
def test_what_would_change_the_verdict_is_what_worth_says(name: str, folder: Path) -> None:
    page = view(SETTINGS[name])
    found = page.worth
    assert found is not None
    said = lscd("worth", *asked(page, folder), "--batch", page.state.batch, "--sparsity", page.state.sparsity)
    assert said["needed_sparsity"] == found.needed_sparsity
    assert said["needed_bandwidth_bytes_per_s"] == found.needed_bandwidth
    needs = words.needs(page).removeprefix("What would change it: ")
    assert (needs[1:] in said["answer"]) == (said["verdict"] != "yes")


def run_by_command(page: View, folder: Path, system: str, *more: str) -> Any:
    pruned = zeros(page, folder)
    if load_system(system).patterns or system == page.engine:  # each has its own
        pruned = []
    how = ["--system", system, "--batch", page.state.batch, *pruned, *more]
    return lscd("e2e", *asked(page, folder), *how)


def test_the_run_is_that_of_e2e(page: View, folder: Path) -> None:
    said = run_by_command(page, folder, page.system)
    tiles = {fact.name: fact for fact in words.facts(page)}
    assert said["fits"] == bool(page.run.memory.fits) == (tiles["fits"].value == "✓ fits")
    needed, size = said["memory_bytes"]["total"] / 1e9, said["memory_bytes"]["capacity"] / 1e9
    assert tiles["fits"].note.startswith(f"{needed:.1f} of {size:.1f} GB")
    assert list(page.memory["gigabytes"]) == [said["memory_bytes"][p.lower().replace(" ", "_")] / 1e9
                                              for p in page.memory["part"]]  # fmt: skip
    if not said["fits"]:
        assert "if it did fit" in tiles["throughput"].note
        return
    ends = [said[f"{end}_tokens_per_gpu_s"] for end in ("lo", "hi")]
    assert tiles["throughput"].value.removeprefix("at most ") == f"{said['tokens_per_gpu_s']:,.1f}"
    assert " – ".join(f"{end:,.1f}" for end in ends) in tiles["throughput"].note
    assert ("extrapolated" in tiles["throughput"].note) == said["extrapolated"]
    assert tiles["latency"].value == f"{said['tpot_ms']:,.1f} ms"
    assert tiles["latency"].note == f"first token after {said['ttft_ms']:,.0f} ms"
    dollars, joules = said["usd_per_million_tokens"], said["joules_per_token"]
    assert tiles["cost"].value == (f"${dollars[0]:,.2f} – {dollars[1]:,.2f}" if dollars else "no price known")
    assert tiles["cost"].note == (f"{joules[1]:,.2f} J a token" if joules else "")
    curve = page.throughput.query("system == @page.system and batch == @page.state.batch")
    assert curve["tokens_per_gpu_s"].item() == pytest.approx(said["tokens_per_gpu_s"], rel=1e-12)


def test_dense_is_that_of_e2e(page: View, folder: Path) -> None:
    said = run_by_command(page, folder, page.engine)
    assert said["fits"] == bool(page.dense.memory.fits)
    if said["fits"]:
        assert float(page.dense.tokens_per_gpu_s) == said["tokens_per_gpu_s"]


def test_operators_are_those_of_e2e(page: View, folder: Path) -> None:
    if not page.run.memory.fits:
        pytest.skip("the command shows no operators of a run that does not fit")
    said = run_by_command(page, folder, page.system, "--operators")["operators"]
    columns = ("phase", "operator", "count", "flop", "bytes", "intensity", "bound", "time_s", "share")
    rows = page.operators.to_dict("records")
    assert len(said) == len(rows)
    for row, told in zip(rows, said, strict=True):
        for name in columns:
            same(row[name], told[name])
    for phase, total in (("prefill", page.run.ttft_s), ("decode", page.run.tpot_s)):
        assert sum(row["time_s"] for row in said if row["phase"] == phase) == pytest.approx(float(total), rel=1e-9)


def test_throughput_against_latency_is_that_of_tradeoff(page: View, folder: Path) -> None:
    state = page.state
    loads = ",".join(map(str, sorted({*BATCHES, state.batch})))
    how = [*zeros(page, folder), "--engine", page.engine, "--ttft", state.ttft_ms, "--tpot", state.tpot_ms]
    how += ["--users" if state.served else "--batch", loads, *["--unmeasured"] * state.unmeasured]
    said = lscd("tradeoff", *asked(page, folder), *how)["rows"]
    rows = page.tradeoff.to_dict("records")
    assert len(said) == len(rows)
    for row, told in zip(rows, said, strict=True):
        for name, value in told.items():
            same(row[name], value)


def test_kernel_times_are_those_of_predict(page: View, folder: Path) -> None:
    m, k, n = page.product
    how = ["--gpu", card(page, folder), "--m", m, "--k", k, "--n", n, "--sparsity", page.mean_zeros]
    said = {kernel["kernel"]: kernel for kernel in lscd("predict", *how)["kernels"]}
    for row in page.kernels.itertuples():
        told = said[row.kernel]
        assert (row.n, row.bound, row.measured, row.at_least) == tuple(
            told[name] for name in ("n", "bound", "measured", "at_least")
        )
        assert (row.time_us, row.lo_us, row.speedup_vs_dense) == pytest.approx(
            tuple(told[name] for name in ("time_us", "lo_us", "speedup_vs_dense")), rel=1e-12
        )


def same(own: Any, told: Any) -> None:
    """A value of a table, and of JSON, which has null for what is no number."""
    if told is None:
        assert not isinstance(own, str)
        assert not math.isfinite(own)
    else:
        assert own == told


def test_a_loaded_servers_user_waits_as_serve_says(folder: Path) -> None:
    page = view(SETTINGS["a loaded server"])
    how = ["--system", page.system, "--users", page.state.batch]
    said = lscd("serve", *asked(page, folder), *how)
    row = page.tradeoff.query("system == @page.system and batch == @page.state.batch").iloc[0]
    told = said["loads"][0]
    assert row["tokens_per_gpu_s"] == told["tokens_per_gpu_s"]
    assert (row["ttft_s"] * 1e3, row["tpot_s"] * 1e3) == pytest.approx((told["ttft_ms"], told["tpot_ms"]), rel=1e-12)
