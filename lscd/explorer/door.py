"""Who may come in: an ASGI application before marimo's, which alone serves any page of any origin all that it can do.

Nothing here knows marimo: the door sees requests, sentences and bytes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HOSTS = ("localhost", "127.0.0.1", "[::1]")  # any other name that leads here is a page's trick (DNS rebinding)
ROUTES = {  # what the page asks for; marimo would also run, export and list notebooks
    "GET": re.compile(r"/|/health|/assets/.+|/@file/\d+-[\w.-]+|/[\w-]+\.(ico|png|json|js)"),
    "POST": re.compile(r"/api/kernel/set_ui_element_value"),
    "websocket": re.compile(r"/ws"),
}
MOST_PAGES = 50
KEPT_S = 30  # a session whose page is gone; the address holds all settings, so a later visit loses nothing
LONGEST_QUERY = 8_000  # characters
LONGEST_LINE = 2**21  # bytes of an address and its headers that are read, to be refused in a sentence
LARGEST_BODY, LARGEST_DISCARDED = 10**6, 3 * 10**7  # bytes; a sender hears the refusal only where it is read to its end
SHOWN = 60  # characters that a sentence repeats of a request
TEXT = (b"text/html", b"application/json")

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that is answered with an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class GoneError(Exception):
    """The client has left before its request was complete."""


class Door:
    """An ASGI application that lets in browsers of this machine, at most `MOST_PAGES` at a time.

    Parameters
    ----------
    app : ASGI application
        What is served.
    hidden : iterable of path
        Folders whose names are cut from every page and message.
    """

    def __init__(self, app: App, hidden: Iterable[Path] = ()) -> None:
        self.app, self.clean = app, Eraser(hidden)
        self.open: list[str] = []  # sessions of the pages that are connected
        self.left: dict[str, float] = {}  # sessions whose page is gone, and until when they are kept

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, refuse or drop one connection; never raise, so that no server prints a traceback."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        answer = Answer(send, self.clean)
        try:
            self._check(scope)
            serve = self._page if scope["type"] == "websocket" else self._request
            await serve(scope, receive, answer)
        except RefusedError as refused:
            await answer.refuse(scope, refused)
        except GoneError:  # nobody waits for an answer
            pass
        except Exception as error:
            if not answer.closed:
                log.error("lscd explore: %s", _line(error), exc_info=bool(os.environ.get("LSCD_DEBUG")))
            await answer.refuse(scope, RefusedError(500, "this request could not be answered; the terminal says why"))

    def _check(self, scope: Message) -> None:
        check_visitor(scope)
        check_address(scope)
        if scope["path"] in ("/", "/ws") and self._is_full(session_of(scope)):
            raise RefusedError(
                503, f"{MOST_PAGES} pages are open, the most at a time: close one and reload in {KEPT_S} s"
            )

    def _is_full(self, session: str) -> bool:
        now = time.monotonic()
        self.left = {known: until for known, until in self.left.items() if until > now}
        return session not in self.left and len(self.open) + len(self.left) >= MOST_PAGES

    async def _page(self, scope: Message, receive: Receive, answer: Answer) -> None:
        session = session_of(scope)
        self.left.pop(session, None)
        self.open.append(session)
        try:
            await self.app(scope, _deaf(receive), answer)
        finally:
            self.open.remove(session)
            self.left[session] = time.monotonic() + KEPT_S

    async def _request(self, scope: Message, receive: Receive, answer: Answer) -> None:
        if scope["method"] == "POST":
            body = await body_of(receive)
            self._check_update(scope, body)
            receive = _replay(body, receive)
        await self.app(scope, receive, answer)

    def _check_update(self, scope: Message, body: bytes) -> None:
        session = dict(scope["headers"]).get(b"marimo-session-id", b"").decode("latin-1")
        if session not in (*self.open, *self.left):
            raise RefusedError(404, f"no page is open as {_shown(session)}; reload it")
        check_update(body)


class Answer:
    """What is sent back: no leave for other origins, no folder's name, nothing once it is closed."""

    def __init__(self, send: Send, clean: Callable[[str], str]) -> None:
        self.send, self.clean = send, clean
        self.started: Message | None = None
        self.body: bytearray | None = None  # of a text, whose length is known only when it is clean
        self.begun = self.closed = False

    async def __call__(self, message: Message) -> None:
        """Pass a message of the application on to the server."""
        kind = message["type"]
        if kind == "http.response.start":
            await self._start(message)
        elif kind == "http.response.body" and self.body is not None:
            await self._text(message)
        elif kind == "websocket.send" and message.get("text"):
            await self._pass({**message, "text": self.clean(message["text"])})
        else:
            await self._pass(message)

    async def _start(self, message: Message) -> None:
        headers = [(k.lower(), v) for k, v in message["headers"]]
        headers = [(k, v) for k, v in headers if not k.startswith(b"access-control-")]
        headers.append((b"cross-origin-resource-policy", b"same-origin"))
        self.started = {**message, "headers": headers}
        if dict(headers).get(b"content-type", b"").startswith(TEXT):
            self.body = bytearray()
        else:
            await self._pass(self.started)

    async def _text(self, message: Message) -> None:
        assert self.body is not None
        assert self.started is not None
        self.body += message.get("body", b"")
        if message.get("more_body"):
            return
        text = self.clean(self.body.decode("utf-8", "replace")).encode()
        length = str(len(text)).encode()
        headers = [(k, length if k == b"content-length" else v) for k, v in self.started["headers"]]
        await self._pass({**self.started, "headers": headers})
        await self._pass({**message, "body": text})

    async def _pass(self, message: Message) -> None:
        self.begun = True
        if self.closed:
            return
        self.closed = message["type"] == "websocket.close"
        try:
            await self.send(message)
        except OSError:  # so servers say that the client left
            self.closed = True

    async def refuse(self, scope: Message, refused: RefusedError) -> None:
        """Answer with a status and a sentence, if nothing has been answered yet."""
        if self.begun:
            return
        kind = "http" if scope["type"] == "http" else "websocket.http"
        sentence = f"{refused}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-length", str(len(sentence)).encode()),
        ]
        await self._pass({"type": f"{kind}.response.start", "status": refused.status, "headers": headers})
        await self._pass({"type": f"{kind}.response.body", "body": sentence})


class Eraser:
    """Cuts the names of folders from a text, as they are written in sentences, JSON, addresses and links."""

    def __init__(self, folders: Iterable[Path]) -> None:
        names = {str(folder) for folder in folders if len(folder.parts) > 1}
        self.spelled = {kind(name) for name in names for kind in (str, _in_json, quote, _in_query)}
        longest_first = "|".join(re.escape(name) for name in sorted(self.spelled, key=len, reverse=True))
        # a name that goes on before or behind is another one: ./assets/root.js is not in /root
        self.pattern = re.compile(rf"(?<![\w.%-])(?:{longest_first})(?![\w.-])")

    def __call__(self, text: str) -> str:
        """The text without them."""
        found = any(name in text for name in self.spelled)  # charts are long, and mostly name none
        return self.pattern.sub("", text) if found else text


def check_visitor(scope: Message) -> None:
    """Refuse names of other machines, and pages of other origins.

    Raises
    ------
    RefusedError
        With the host or origin in the sentence.
    """
    headers = scope["headers"]
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    if len(hosts) != 1 or re.sub(r":\d+$", "", hosts[0]) not in HOSTS:
        raise RefusedError(421, f"this page answers to {', '.join(HOSTS)}, not to {_shown(' and '.join(hosts))}")
    for name, value in headers:
        if name == b"origin" and value.decode("latin-1") != f"http://{hosts[0]}":
            raise RefusedError(403, f"a page of {_shown(value.decode('latin-1'))} may not read this one")


def check_address(scope: Message) -> None:
    """Refuse what the page never asks for.

    Raises
    ------
    RefusedError
        With the address, or its length, in the sentence.
    """
    if len(scope["query_string"]) > LONGEST_QUERY:
        length = len(scope["query_string"])
        raise RefusedError(
            414, f"the settings in the address are {length:,} characters long, allowed are {LONGEST_QUERY:,}"
        )
    method = "websocket" if scope["type"] == "websocket" else scope["method"].replace("HEAD", "GET")
    if method not in ROUTES or not ROUTES[method].fullmatch(scope["path"]):
        raise RefusedError(404, f"there is nothing at {method} {_shown(scope['path'])}")


def session_of(scope: Message) -> str:
    """The session that a page asks for; empty before it has one."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)).get("session_id", "")


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises
    ------
    RefusedError
        If it is longer than `LARGEST_BODY`.
    GoneError
        If the client leaves before its end.
    """
    body, length, more = bytearray(), 0, True
    while more and length <= LARGEST_DISCARDED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        chunk = message.get("body", b"")
        length, more = length + len(chunk), message.get("more_body", False)
        body += chunk if length <= LARGEST_BODY else b""
    if length > LARGEST_BODY:
        raise RefusedError(413, f"the request is longer than the {LARGEST_BODY:,} bytes allowed")
    return bytes(body)


def check_update(body: bytes) -> None:
    """Refuse what is no news of widgets.

    Raises
    ------
    RefusedError
        With the form expected in the sentence.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    match asked:
        case {"objectIds": [*names], "values": [*values]} if len(names) == len(values):
            return
    raise RefusedError(400, 'allowed is {"objectIds": [...], "values": [...]} in JSON, with one value an object')


def _replay(body: bytes, receive: Receive) -> Receive:
    """``receive`` of a request whose body has been read."""
    told: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return told.pop() if told else await receive()

    return again


def _deaf(receive: Receive) -> Receive:
    """``receive`` of a socket on which only the server speaks."""

    async def control() -> Message:
        while (message := await receive())["type"] == "websocket.receive":
            pass
        return message

    return control


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[: 2 * SHOWN]}"


def _in_json(name: str) -> str:
    return json.dumps(name)[1:-1]


def _in_query(name: str) -> str:
    return quote(name, safe="")
