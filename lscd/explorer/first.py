"""The first view: the answer as plain HTML in the page itself, seen before marimo's front end has started.

That takes seconds in any browser, whatever it shows. Until its own charts stand there, what a link asks is on screen as
words and pictures, from the same `view` and in the same words; `explorer.html` then takes it away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from html import escape
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl

from lscd.explorer import html, words
from lscd.explorer.state import Address, State, linked, parted
from lscd.explorer.view import view
from perfmodel.plotting import vega

Message = MutableMapping[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]

QUESTION = ("model", "gpu", "gpus", "engine", "sparsity", "batch", "input_len", "output_len")
WEIGHTS = ("format", "matrix")
WAITING = '<p class="lscd-needs">What would change it is being worked out.</p>'
PANEL = html.PANELS[0].name
CHART_PX = 480  # of the axes, about what a chart has on a wide screen
OK = 200
BODY = re.compile(r"<body[^>]*>")

log = logging.getLogger(__name__)


class First:
    """An ASGI application before another that puts the first view into its page.

    Parameters
    ----------
    app : ASGI application
        What is served; its page comes in one piece.
    clean : callable
        Cuts from a text what no page may say.
    """

    def __init__(self, app: App, clean: Callable[[str], str]) -> None:
        self.app, self.clean = app, clean

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Pass on all but the page."""
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        shown: str | None = None

        async def dressed(message: Message) -> None:
            nonlocal shown
            if message["type"] == "http.response.start" and message["status"] == OK:
                shown = await asyncio.to_thread(self._shown, scope["query_string"])
                headers = [(k, v) for k, v in message["headers"] if k.lower() not in (b"content-length", b"etag")]
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body" and shown is not None:
                added = shown
                text = BODY.sub(lambda body: body[0] + added, message["body"].decode(), count=1)
                message = {**message, "body": text.encode()}
            await send(message)

        await self.app(scope, receive, dressed)

    def _shown(self, query: bytes) -> str:
        """The first view; none where it fails, since the live page says what is wrong."""
        try:
            return self.clean(first_view(linked(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))))
        except Exception as error:
            log.error("lscd explore: no first view: %s", error, exc_info=bool(os.environ.get("LSCD_DEBUG")))
            return ""


def first_view(start: Address) -> str:
    """What a link asks, and the answer; without the latter where there is none."""
    try:
        found = view(start.state)
        parts = html.answer(found), WAITING, html.tiles(found), '<p class="lscd-tabs"></p>'
        answered = "".join([*parts, html.panel(found, PANEL, picture)])
    except ValueError as error:  # the page says it again, beside the setting
        answered = html.message(str(error))
    return (
        f'<main id="lscd-first" aria-busy="true">{html.header(start)}'
        f"{_settings(start.state, QUESTION)}{_settings(start.state, WEIGHTS)}"
        f'<p class="lscd-more" role="status">The controls are loading.</p>{answered}</main>'
    )


def _settings(state: State, names: Sequence[str]) -> str:
    """Labels and values where the controls will be."""
    values = vars(state) | dict(zip(("engine", "format"), parted(state.system), strict=True))
    cells = (f"<div><span>{words.LABELS[name]}</span><b>{escape(str(values[name]))}</b></div>" for name in names)
    return f'<div class="lscd-controls">{"".join(cells)}</div>'


def picture(chart: vega.Chart) -> str:
    """A chart that needs no script; empty without the library that draws it."""
    if find_spec("vl_convert") is None:
        return ""
    from vl_convert import vegalite_to_svg

    drawn = vegalite_to_svg(chart.spec | {"width": CHART_PX}, vl_version=vega.VERSION, allowed_base_urls=[])
    source = f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}"
    return f'<img src="{source}" alt="{escape(chart.spec["description"])}">'
