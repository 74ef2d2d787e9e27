"""The first view: what the page says before any script has run, and how it makes way for the live one."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import urlencode

import pytest

from lscd.explorer import first, html
from lscd.explorer.first import First, first_view
from lscd.explorer.state import PRESETS, State, linked, opening
from lscd.explorer.view import view
from tests.lscd.explorer.browser import Page
from tests.lscd.explorer.cases import facts
from tests.lscd.explorer.test_html import Balanced

MARIMO = '<html><body class="b"><div id="root"></div></body></html>'
Message = MutableMapping[str, Any]


async def marimo(scope: Message, receive: Any, send: Any) -> None:
    """Answers with its page, or refuses."""
    headers = [(b"content-type", b"text/html"), (b"content-length", str(len(MARIMO)).encode()), (b"etag", b"a")]
    status = 503 if scope["query_string"] == b"full" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": MARIMO.encode()})


def asked(path: str = "/", query: str = "", method: str = "GET") -> tuple[dict[bytes, bytes], str]:
    """Headers and text of what a client gets."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    asyncio.run(First(marimo, lambda text: text.replace("/home/me", ""))(scope, None, send))
    return dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:]).decode()


def test_the_page_opens_with_the_answer_of_its_link() -> None:
    state = State(gpu="h100", batch=4, system="vllm+fp8")
    headers, text = asked(query=state.to_query())
    head, rest = MARIMO.split('<div id="root">')
    assert text.startswith(f'{head}<main id="lscd-first"')
    assert text.endswith(f'</main><div id="root">{rest}')
    assert set(headers) == {b"content-type"}, "marimo's length and tag are of marimo's page"
    found = view(state)
    assert html.answer(found) in text
    assert html.tiles(found) in text


@pytest.mark.parametrize(
    ("path", "query", "method"),
    [("/assets/index.js", "", "GET"), ("/", "", "HEAD"), ("/health", "", "GET"), ("/", "full", "GET")],
)
def test_all_else_is_passed_on(path: str, query: str, method: str) -> None:
    headers, text = asked(path, query, method)
    assert text == MARIMO
    assert headers[b"etag"] == b"a"


def test_a_fault_costs_the_first_view_only(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError("in a model")

    monkeypatch.setattr(first, "first_view", broken)
    assert asked()[1] == MARIMO
    assert "no first view: in a model" in caplog.text


def test_folders_are_cut_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "first_view", lambda _: "of /home/me/data")
    assert "of /data" in asked()[1]


@pytest.mark.parametrize("name", PRESETS)
def test_charts_need_no_script(name: str) -> None:
    text = first_view(linked({key: str(value) for key, value in vars(PRESETS[name].state).items()}))
    tags = Balanced(text).tags
    assert "img" in tags
    assert not tags & {"script", "svg", "input", "select"}
    assert text.count('src="data:image/svg+xml;base64,') == html.panel(
        view(PRESETS[name].state), html.PANELS[0].name, lambda _: "[[chart]]"
    ).count("[[chart]]")


def test_nothing_asked_is_the_first_preset() -> None:
    _, text = asked()
    assert html.answer(view(opening())) in text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"batch": "<b>"}, "batch must be a whole number, got '<b>'"),
        (vars(replace(State(), model="opt-175b", gpus=5)), "gpus"),
        ({"matrix": "no<i>such"}, "unknown matrix"),
        ({"output_len": "1", "batch": "9999999"}, "does not fit"),
    ],
)
def test_what_cannot_be_answered_is_said(query: dict[str, Any], said: str) -> None:
    _, text = asked(query=urlencode(query))
    assert escape(said) in text
    Balanced(text)


def test_it_makes_way_for_the_live_page(page: Page) -> None:
    state = PRESETS["llama-8b-at-home"].state
    page.tab.set_viewport_size({"width": 1280, "height": 500})
    page.tab.goto(f"{page.address}?{state.to_query()}", wait_until="commit")
    early_view = page.tab.locator("#lscd-first")
    early = dict.fromkeys(facts(state), "")
    for name in early:
        early[name] = early_view.locator(f"[data-fact={name}] strong").inner_text()
    page.tab.evaluate("document.getElementById('lscd-first').scrollTop = 300")
    early_view.wait_for(state="detached")
    assert {name: page.fact(name) for name in early} == early == {name: one.value for name, one in facts(state).items()}
    assert page.tab.evaluate("!document.getElementById('root').inert")
    top = page.tab.locator(".lscd-tiles").bounding_box()["y"]
    assert 300 < top + 300 < 900, "where the reader has scrolled to"
    page.tab.set_viewport_size({"width": 1280, "height": 900})
    page.enter("batch", "3")
    page.wait_for(replace(state, batch=3))
    assert page.complaints == []
