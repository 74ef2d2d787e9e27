"""The explorer's verdicts in words."""

from __future__ import annotations

import pytest

from lscd.explorer import charts, words
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import view
from perfmodel import worth_words
from perfmodel.evidence.relatives import family_and_size
from perfmodel.worth import worth
from tests.lscd.explorer.cases import facts


def test_the_verdict_follows_the_memory() -> None:
    assert facts(PRESETS["opt-66b-two-gpus"].state)["fits"].value == "✓ fits"
    too_big = facts(PRESETS["too-big"].state)
    assert too_big["fits"].value == "✗ does not fit"
    assert "if it did fit" in too_big["throughput"].note


@pytest.mark.parametrize(
    ("model", "system", "sparsity", "value", "good"),
    [
        ("opt-30b", "flash-llm", 0.8, "1.4 points lost retrained", True),
        ("opt-30b", "fastertransformer", 0.8, "all of it", True),
        ("opt-30b", "flash-llm", 0.9, "nothing published", False),
        ("gpt-oss-20b", "flash-llm", 0.5, "nothing published", False),
        ("llama-3.1-8b", "fastertransformer+int4", 0.5, "1.1 points lost", True),
    ],
)
def test_the_accuracy_tile_follows_published_results(
    model: str, system: str, sparsity: float, value: str, good: bool
) -> None:
    found = facts(State(model=model, system=system, sparsity=sparsity))["accuracy"]
    assert value in found.value
    assert found.good is good


@pytest.mark.parametrize("model", ["opt-30b", "llama-3.1-8b", "qwen3-8b", "gemma-2-9b", "gpt-oss-20b"])
def test_no_line_of_another_family_is_drawn(model: str) -> None:
    """Bands, captions and tiles rest on results of the model or its own family, or there are none."""
    shown = view(State(model=model, sparsity=0.5))
    for limit in (*shown.reach.values(), *shown.losses.values()):
        assert family_and_size(limit.model)[0] == family_and_size(model)[0]
    chart = charts.speedups(shown)
    bands = [row for layer in chart.spec["layer"] for row in layer.get("data", {}).get("values", []) if "to" in row]
    bands = list({row["label"]: row for row in bands}.values())  # once as areas, once as their names
    ends = [limit.sparsity for limit in shown.reach.values()]
    drawn = [end for i, end in enumerate(ends) if end > max([0.0, *ends[:i]])]
    assert [band["to"] for band in bands] == pytest.approx(drawn)
    assert all(limit.words in chart.spec["description"] for limit in shown.reach.values())
    assert ("Nothing is shaded" in chart.spec["description"]) == (not ends)


@pytest.mark.parametrize(("sparsity", "tie"), [(0.5, True), (0.9, False)])
def test_the_throughput_tile_says_tie_where_intervals_overlap(sparsity: float, tie: bool) -> None:
    note = facts(State(model="opt-30b", gpus=2, batch=16, sparsity=sparsity))["throughput"].note
    assert note.startswith("90 % interval")
    assert ("a tie: their intervals overlap" in note) == tie


def test_reasons_of_kernels_left_out_are_said_once() -> None:
    amd = words.refusals(view(State(gpu="mi300x")))
    assert len(amd) == 1
    assert amd[0].endswith("only dense and 2:4 products are modelled there")
    a100 = words.refusals(view(State(gpu="a100-80gb")))
    assert "macko: takes N of 1" in a100
    assert any(line.startswith("fp8, fp8-block: ") and "no FP8 Tensor Cores" in line for line in a100)


@pytest.mark.parametrize(
    ("state", "words_"),
    [
        (State(gpu="rtx-3090"), "Out of memory at batch 16 on every kernel"),
        (State(gpu="mi300x", sparsity=0.6), "no kernel that keeps all weights is faster than dense"),
        (State(), "both keep all weights"),
    ],
)
def test_the_verdict_names_who_was_compared(state: State, words_: str) -> None:
    assert words_ in facts(state)["worth"].note


@pytest.mark.parametrize(
    ("system", "words_"),
    [
        (
            "fastertransformer+gqsa-w4s50",
            "not measured: no kernel of this format has been timed, and a real one is",
        ),
        ("fastertransformer+lscd-bitmap", "not measured: from counts alone"),
        ("fastertransformer+lscd-bitmap-8", "not measured: from counts alone"),
    ],
)
def test_what_nobody_measured_is_marked_where_it_is_shown(system: str, words_: str) -> None:
    tiles = facts(State(system=system))
    assert words_ in tiles["throughput"].note
    if not system.endswith("gqsa-w4s50"):
        assert tiles["crossover"].note.endswith(words_.split(":")[0])
    measured = facts(State(system="fastertransformer+bitmap"))
    assert "not" not in measured["throughput"].note


def test_a_format_that_does_not_pay_in_bytes_is_kept_dense_in_words() -> None:
    assert "too little for its format: weights dense" in words.question(view(State(sparsity=0.3)))
    assert "weights rounded (the slider does not apply to it)" in words.question(
        view(State(system="fastertransformer+int8"))
    )


def test_a_single_token_has_no_verdict() -> None:
    assert facts(State(output_len=1))["worth"].value == "–"
    assert facts(State(output_len=2))["worth"].value in {"yes", "no", "tie"}


@pytest.mark.parametrize("name", ["llama-70b-h100", "llama-8b-at-home", "opt-30b-one-gpu", "too-big"])
def test_the_verdict_is_in_the_words_of_worth(name: str) -> None:
    found = view(PRESETS[name].state)
    s = found.state
    expected = worth(s.model, s.gpu, batches=[s.batch], sparsity=s.sparsity, gpus=s.gpus, input_len=s.input_len,
                     output_len=s.output_len)  # fmt: skip
    fact = words.facts(found)[0]
    assert fact.value == expected.verdict
    assert fact.note == f"With {s.sparsity:.0%} zeros. {worth_words.compared(expected.headline)}"
    said = words.needs(found)
    needed = worth_words.needs(expected)
    assert said == (f"What would change it: {needed[0].lower()}{needed[1:]}" if needed else "")


def test_a_comparison_has_what_differs_and_the_numbers_of_both() -> None:
    first, second = view(State()), view(State(gpu="h100", batch=32))
    rows = {row.name: row for row in words.compared(first, second)}
    assert [name for name in rows if name in vars(State())] == ["gpu", "batch"]
    assert (rows["gpu"].pinned, rows["gpu"].now) == ("a100-80gb", "h100")
    assert (rows["worth"].pinned, rows["worth"].now) == tuple(str(one.at.verdict) for one in (first, second) if one.at)
    rates = [float(one.run.tokens_per_gpu_s) for one in (first, second)]
    row = rows["throughput"]
    assert (row.pinned, row.now, row.change) == (*(f"{rate:,.1f}" for rate in rates), f"{rates[1] / rates[0]:.2f}x")
    same = words.compared(first, first)
    assert {row.change for row in same if row.change} == {"1.00x"}
    assert not {row.name for row in same} & set(vars(State()))


def test_what_is_not_known_of_one_side_is_a_dash_without_a_ratio() -> None:
    rows = {row.name: row for row in words.compared(view(State()), view(State(output_len=1, gpu="v100")))}
    assert rows["worth"].now == rows["tpot"].now == "–"
    assert rows["tpot"].change == ""


def test_a_comparison_as_markdown_is_its_table() -> None:
    first, second = view(State()), view(PRESETS["deepseek-h200"].state)
    lines = words.markdown(first, second).splitlines()
    assert lines[0] == f"A: {words.question(first)}"
    assert lines[1] == f"B: {words.question(second)}"
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert table[0] == ["", "A", "B", "B over A"]
    assert table[1] == ["---"] * 4
    assert table[2:] == [[row.title, row.pinned, row.now, row.change] for row in words.compared(first, second)]


def test_what_is_not_shown_is_said() -> None:
    shown = view(State())
    assert words.hidden(shown) == f"{len(shown.hidden)} kernels that nobody has measured are not shown."
    assert words.hidden(view(State(unmeasured=True))) == ""
