"""The page's strings: every panel of every model and preset is whole, and no text is markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from lscd.explorer import html, words
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import NOTHING, Files, View, view
from perfmodel.catalog import load_gpu, model_from_text, model_names, sparsities_from_text
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import layer_matrices
from tests.lscd.explorer.cases import CENSUS, CONFIG, drawn

VOID = {"br", "hr", "img", "input", "meta", "link"}
HOSTILE = CONFIG.replace("own/<b>llama</b>", "</p><script>alert(1)</script><img src=x onerror=alert(1)> & 'co'")
CARD = "h200"  # the largest of those that every kernel of the paper runs on


class Balanced(HTMLParser):
    """Reads markup, and complains of a tag that is not closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole_page(found: View) -> str:
    panels = {panel.name: html.panel(found, panel.name, drawn) for panel in html.PANELS}
    for name, text in panels.items():
        figures = re.findall(r"<figure .*?</figure>", text, flags=re.DOTALL)
        assert len(figures) >= (2 if name != "latency" or found.state.output_len > 1 else 1)
        assert all(re.search("<b data-chart|<tr data-|One token", figure) for figure in figures)
    return html.answer(found) + html.tiles(found) + "".join(panels.values())


def checked(text: str) -> str:
    parsed = Balanced(text)
    assert not parsed.tags & {"script", "img", "iframe", "object"}
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", re.sub(r"<[^>]*>", " ", text))
    return text


@pytest.mark.parametrize("name", PRESETS)
def test_every_panel_of_every_preset_is_whole(name: str) -> None:
    found = view(PRESETS[name].state)
    text = checked(whole_page(found) + html.needs(found) + html.comparison(found, view(State(batch=4))))
    assert all(f'data-fact="{fact.name}"' in text for fact in words.facts(found))
    assert all(f'data-kernel="{kernel}"' in text for kernel in found.kernels["kernel"])
    assert text.count("data-operator=") == len(found.operators)
    assert text.count("data-front=") == found.tradeoff["front"].sum()


def gpus_needed(model: str) -> int:
    """The fewest GPUs, a power of two, that hold a model; one where so many cannot share it."""
    for gpus in (1, 2, 4, 8, 16, 32):
        try:
            run = evaluate(model, CARD, "vllm", batch=1, gpus=gpus, input_len=64, output_len=64)
        except ValueError:
            break
        if run.memory.fits:
            return gpus
    return 1


@pytest.mark.parametrize("model", model_names())
def test_every_model_has_a_whole_page(model: str) -> None:
    state = State(model, CARD, gpus_needed(model), "vllm", 0.5, batch=4, input_len=64, output_len=64)
    checked(whole_page(view(state)))


@pytest.mark.parametrize("output_len", [1, 2])
def test_one_token_is_a_whole_page_too(output_len: int) -> None:
    checked(whole_page(view(State(output_len=output_len))))


def test_a_hostile_name_is_text() -> None:
    files = Files(model_from_text(HOSTILE, "config.json"), sparsities_from_text(CENSUS, "<i>census.csv"))
    found = view(State(), files)
    text = checked(whole_page(found) + html.needs(found) + html.comparison(found, view(State(), NOTHING)))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in html.message(found.model.name)


def test_files_of_ones_own_take_the_place_of_model_and_slider() -> None:
    model, zeros = model_from_text(CONFIG, "config.json"), sparsities_from_text(CENSUS, "census.csv")
    found = view(State(sparsity=0.1), Files(model, zeros))
    assert found.model is model
    sizes = {one.name: float(one.m * one.k) for one in layer_matrices(model.shape)}
    named = sum(sizes[name] for name in ("qkv", "mlp-in", "mlp-out"))
    assert found.mean_zeros == pytest.approx((0.5 + 0.05 * 3.5) * named / sum(sizes.values()))
    asked = {"batch": 16, "input_len": 64, "output_len": 512}
    run = evaluate(model, load_gpu("a100-80gb"), "flash-llm", sparsity=zeros, **asked)
    assert float(found.run.tokens_per_gpu_s) == float(run.tokens_per_gpu_s)
    assert "own/<b>llama</b> on 1 x" in words.question(found)
    assert f"With {found.mean_zeros:.0%} zeros." in words.facts(found)[0].note
