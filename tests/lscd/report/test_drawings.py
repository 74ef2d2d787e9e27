"""Drawings of a layer and of a model's time: sizes of the catalogue, to scale, legible, marked where predicted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lscd.report.drawings import CHAPTER, WHOLE, layer_table, opt_30b_breakdown, time_by_part
from lscd.report.exhibit import Context, Exhibit
from perfmodel.catalog import load_model
from perfmodel.plotting import drawings as draw
from perfmodel.plotting.style import PAGE, house_style
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import kv_bytes_per_token
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps, texts

MODELS = ("opt-30b", "opt-66b", "opt-175b", "gpt-neox-20b")


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def breakdown(context: Context) -> Exhibit:
    with house_style():
        return opt_30b_breakdown(context)


def boxes(figure: Figure, name: str) -> list[Rectangle]:
    return [box for box in figure.findobj(Rectangle) if box.get_gid() == name]


def written(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


@pytest.mark.parametrize("maker", CHAPTER.makers, ids=lambda maker: maker.__name__)
def test_every_drawing_can_be_read_at_its_size(maker, context: Context) -> None:
    figure = maker(context).figure
    assert figure.get_figwidth() == PAGE
    assert [*faults(figure), *overlaps(figure)] == []


@pytest.mark.parametrize("model", MODELS)
def test_layers_of_other_models_can_be_read_too(model: str) -> None:
    figure = draw.decoder_layer(layer_table(model, 16, 576), model)
    assert [*faults(figure), *overlaps(figure)] == []


@pytest.mark.parametrize("model", MODELS)
def test_a_layer_has_the_catalogue_s_weights_and_cache(model: str) -> None:
    """All layers together: the model's parameters but embeddings, norms and biases; the cache that serving counts."""
    shape = load_model(model).shape
    table = layer_table(model, 16, 576)
    total = table.groupby("kind")["bytes"].sum() * shape.usual.count
    embeddings = (2 - shape.tied_embeddings) * shape.vocab_size * shape.hidden_size
    assert total["weights"] / 2 == pytest.approx(load_model(model).parameters - embeddings, rel=0.01)
    assert total["kv-cache"] == 16 * 576 * kv_bytes_per_token(shape)
    assert table["share"].sum() == pytest.approx(1)


def test_opt_s_products_have_the_paper_s_shapes() -> None:
    table = layer_table("opt-30b", 16, 576)
    hidden = load_model("opt-30b").shape.hidden_size
    weights = table[table["kind"] == "weights"]
    shapes = list(zip(weights["rows"] / hidden, weights["columns"] / hidden, strict=True))
    assert shapes == [(3, 1), (1, 1), (4, 1), (1, 4)]
    assert list(table["columns"][table["kind"] == "activations"].unique()) == [16]


def test_areas_are_to_one_scale_and_carry_their_sizes() -> None:
    table = layer_table("opt-66b", 16, 576)
    figure = draw.decoder_layer(table, "OPT-66B")
    areas = table[table["kind"] != "activations"]
    drawn = [sum(box.get_width() * box.get_height() for box in boxes(figure, title)) for title in areas["title"]]
    np.testing.assert_allclose(np.divide(drawn, drawn[0]), areas["bytes"] / areas["bytes"].iloc[0])
    for row in areas.itertuples():
        assert f"{row.rows:,} x {row.columns:,}\n{row.bytes / 1e6:,.0f} MB" in written(figure)


def test_another_model_changes_the_picture() -> None:
    one, other = (written(draw.decoder_layer(layer_table(model, 16, 576), "")) for model in ("opt-30b", "opt-66b"))
    assert "28,672 x 7,168" in one
    assert "36,864 x 9,216" in other
    assert "7,168" not in other


def test_the_magnifier_keeps_proportions() -> None:
    figure = draw.decoder_layer(layer_table("opt-30b", 64, 576), "")
    (corner,), (piece,) = boxes(figure, "corner"), boxes(figure, "piece")
    assert piece.get_width() / corner.get_width() == pytest.approx(64 / draw.PIECE)


def test_parts_sum_to_the_run(context: Context) -> None:
    table = time_by_part(context.parts)
    whole = table[table["part"] == WHOLE].set_index(["panel", "label"])
    parts = table[table["part"] != WHOLE].groupby(["panel", "label"], sort=False)
    np.testing.assert_allclose(parts["predicted_ms"].sum(), whole["predicted_ms"])
    assert parts["published_ms"].count().isin([0, 3]).all()
    known = parts["published_ms"].sum(min_count=3).dropna()
    np.testing.assert_allclose(known, whole["published_ms"][known.index])


def test_times_are_those_of_the_csv_and_of_fig_13(context: Context) -> None:
    """Quant-LLM: 68.4 s for 1536 tokens at batch 1; Fig 13: 488 tokens a second of 16 sequences in Flash-LLM."""
    table = time_by_part(context.parts)
    whole = table[table["part"] == WHOLE].set_index("label")
    assert whole.loc["dense 16 bits, batch 1", "published_ms"] == pytest.approx(68.4 / 1536 * 1e3, rel=0.01)
    assert whole.loc["Flash-LLM, batch 16", "published_ms"] == pytest.approx(16 / 488 * 1e3)
    run = evaluate("opt-30b", "a100-80gb", "flash-llm", batch=16, sparsity=0.8, gpus=1, input_len=64, output_len=512)
    assert whole.loc["Flash-LLM, batch 16", "predicted_ms"] == pytest.approx(float(run.total_s) / 512 * 1e3)


def test_what_is_only_predicted_is_hatched(breakdown: Exhibit) -> None:
    above, below = breakdown.figure.axes
    bars = [[patch for patch in axes.patches if patch.get_width() > 0] for axes in (above, below)]
    assert {bar.get_hatch() for bar in bars[0]} == {None}
    assert {bar.get_hatch() for bar in bars[1]} == {draw.ALONE["hatch"]}
    assert {bar.get_facecolor()[3] for bar in bars[1]} == {1.0}, "or an SVG draws the hatching as pale"
    assert len(below.containers) > len(below.get_yticks()), "a published total beside every bar"
