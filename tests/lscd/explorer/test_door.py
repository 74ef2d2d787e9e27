"""The door before the explorer's server: who comes in, how much they may send, and what they get to see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lscd.explorer import door as doors
from lscd.explorer.door import LARGEST_BODY, LONGEST_QUERY, MOST_PAGES, Door, Eraser

HOST = (b"host", b"localhost:2718")
UPDATE = "/api/kernel/set_ui_element_value"
NEWS = b'{"objectIds": ["a"], "values": [1]}'


def scope(
    method: str, path: str, query: str = "", headers: tuple[tuple[bytes, bytes], ...] = (HOST,)
) -> dict[str, Any]:
    kind = "websocket" if method == "websocket" else "http"
    return {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": list(headers)}


async def page(scope: Any, receive: Any, send: Any) -> None:
    """As open as marimo: any origin, the folder in every text; an open page until it leaves."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"file": "/home/me/lab/app.py"}'})
        assert (await receive())["type"] == "websocket.disconnect"
        return
    headers = [(b"content-type", b"text/html"), (b"Access-Control-Allow-Origin", b"*"), (b"content-length", b"33")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'<html>"/home/me', "more_body": True})
    await send({"type": "http.response.body", "body": b'/lab/app.py"</html>'})


async def met(door: Door, asked: dict[str, Any], *heard: dict[str, Any]) -> list[dict[str, Any]]:
    """What the door sends to one who asked and was heard so."""
    told, sent = list(heard), []

    async def receive() -> dict[str, Any]:
        return told.pop(0) if told else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await door(asked, receive, send)
    return sent


def answer(asked: dict[str, Any], *heard: dict[str, Any], door: Door | None = None) -> tuple[int, str]:
    sent = asyncio.run(met(door or Door(page, [Path("/home/me/lab")]), asked, *heard))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode()


def body(*chunks: bytes) -> list[dict[str, Any]]:
    last = len(chunks) - 1
    return [{"type": "http.request", "body": c, "more_body": i < last} for i, c in enumerate(chunks)]


def test_a_browser_of_this_machine_sees_the_page_without_its_folder_and_no_leave_for_others() -> None:
    for host in (b"localhost:2718", b"127.0.0.1:9", b"[::1]:2718", b"LOCALHOST"):
        origin = (b"origin", b"http://" + host.lower())
        sent = asyncio.run(
            met(Door(page, [Path("/home/me/lab")]), scope("GET", "/", headers=((b"host", host), origin)))
        )
        headers = dict(sent[0]["headers"])
        assert sent[1]["body"] == b'<html>"/app.py"</html>'
        assert headers[b"content-length"] == b"22"
        assert headers[b"cross-origin-resource-policy"] == b"same-origin"
        assert not [name for name in headers if name.startswith(b"access-control")]


@pytest.mark.parametrize(
    "host", [b"evil.example", b"localhost.evil.example:2718", b"192.168.0.1:2718", b"", b"127.0.0.1:2718@evil"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "websocket"])
def test_other_names_of_this_machine_are_refused(host: bytes, method: str) -> None:
    status, sentence = answer(scope(method, "/", headers=((b"host", host),)))
    assert status == 421
    assert repr(host.decode()) in sentence
    assert answer(scope(method, "/", headers=(HOST, (b"host", host))))[0] == 421
    assert answer(scope(method, "/", headers=()))[0] == 421


@pytest.mark.parametrize(
    "origin",
    [b"http://evil.example", b"null", b"http://localhost:8888", b"https://localhost:2718", b"http://127.0.0.1:2718"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", UPDATE), ("OPTIONS", "/"), ("websocket", "/ws")])
def test_pages_of_other_origins_read_and_open_nothing(origin: bytes, method: str, path: str) -> None:
    status, sentence = answer(scope(method, path, headers=(HOST, (b"origin", origin))))
    assert status == 403
    assert sentence == f"a page of {origin.decode()!r} may not read this one\n"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("PUT", UPDATE),
        ("POST", "/api/kernel/execute"),
        ("POST", "/api/home/workspace_files"),
        ("GET", "/api/status"),
        ("GET", "/public/../app.py"),
        ("GET", "/sse"),
        ("GET", "/\n/assets/x"),
        ("websocket", "/ws_sync"),
        ("websocket", "/terminal/ws"),
        ("GET", f"/{'x' * 10**5}"),
    ],
)
def test_what_the_page_never_asks_for_is_not_there(method: str, path: str) -> None:
    status, sentence = answer(scope(method, path))
    assert status == 404
    assert len(sentence) < 200
    assert sentence.count("\n") == 1


def test_bodies_and_addresses_are_bounded() -> None:
    status, sentence = answer(scope("GET", "/", query="x" * 10**6))
    assert (status, "1,000,000 characters long, allowed are 8,000" in sentence) == (414, True)
    assert answer(scope("GET", "/", query="x" * LONGEST_QUERY))[0] == 200
    status, sentence = answer(scope("POST", UPDATE), *body(*[b"x" * 10**5] * 11))
    assert (status, "1,000,000 bytes" in sentence) == (413, True)
    endless = ({"type": "http.request", "body": b"x" * 10**6, "more_body": True} for _ in range(10**6))
    asked, sent = scope("POST", UPDATE), []

    async def forever() -> dict[str, Any]:
        return next(endless)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Door(page)(asked, forever, send))
    assert sent[0]["status"] == 413
    assert next(endless)  # it was not read to its end


@pytest.mark.parametrize(
    "news",
    [
        b"",
        b"[",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 10**5,
        b'{"objectIds": [], "values": [1]}',
        b'{"objectIds": "a", "values": "b"}',
        b'{"objectIds": ["a"], "values": [1' + b"0" * 5000 + b"]}",
        b"x" * LARGEST_BODY,
    ],
)
def test_news_of_widgets_have_their_form(news: bytes) -> None:
    door = Door(page)
    door.open.append("mine")
    headers = (HOST, (b"marimo-session-id", b"mine"))
    status, sentence = answer(scope("POST", UPDATE, headers=headers), *body(news), door=door)
    assert (status, "one value an object" in sentence) == (400, True)
    assert answer(scope("POST", UPDATE, headers=headers), *body(NEWS[:9], NEWS[9:]), door=door)[0] == 200
    status, sentence = answer(scope("POST", UPDATE), *body(NEWS), door=door)
    assert (status, sentence) == (404, "no page is open as ''; reload it\n")


def test_a_client_that_leaves_amid_its_request_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    unfinished = {"type": "http.request", "body": b"{", "more_body": True}
    assert asyncio.run(met(Door(page), scope("POST", UPDATE), unfinished)) == []

    async def lost(message: Any) -> None:
        raise ConnectionResetError(f"nobody hears {message['type']}")

    async def left() -> dict[str, Any]:
        return {"type": "websocket.disconnect"}

    asyncio.run(Door(page)(scope("GET", "/"), left, lost))
    asyncio.run(Door(page)(scope("websocket", "/ws", "session_id=a"), left, lost))
    assert caplog.records == []


def test_a_fault_of_the_page_is_one_line_and_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise FileNotFoundError(2, "No such file", "/home/me/lab/x.py")

    status, sentence = answer(scope("GET", "/"), door=Door(broken))
    assert (status, sentence.count("\n")) == (500, 1)
    assert "/home/me" not in sentence
    assert [(record.exc_info, "\n" in record.getMessage()) for record in caplog.records] == [(False, False)]


def opened(
    door: Door, session: str, run: Callable[..., Coroutine[Any, Any, Any]]
) -> tuple[Any, asyncio.Event, list[Any]]:
    """A page that stays until the event is set, and what it has been sent."""
    leaving, sent, first = (
        asyncio.Event(),
        [],
        [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "x"}],
    )

    async def receive() -> dict[str, Any]:
        if first:
            return first.pop(0)
        await leaving.wait()
        return {"type": "websocket.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    return asyncio.create_task(run(scope("websocket", "/ws", f"session_id={session}"), receive, send)), leaving, sent


def test_the_fifty_first_page_is_refused_until_one_has_been_left_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(doors.time, "monotonic", lambda: now[0])

    async def visit() -> None:
        door = Door(page, [Path("/home/me/lab")])
        pages = [opened(door, f"s{i}", door) for i in range(MOST_PAGES)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [sent[1]["text"] for _, _, sent in pages] == ['{"file": "/app.py"}'] * MOST_PAGES
        assert await status(door, scope("websocket", "/ws", "session_id=new")) == 503
        assert await status(door, scope("websocket", "/ws", "session_id=s0&session_id=new")) == 503
        assert await status(door, scope("GET", "/")) == 503
        pages[7][1].set()
        await pages[7][0]
        assert await status(door, scope("GET", "/")) == 503  # its session may come back
        again = opened(door, "s7", door)
        await asyncio.sleep(0)
        again[1].set()
        await again[0]
        now[0] += doors.KEPT_S + 1
        assert await status(door, scope("GET", "/")) == 200
        for task, leaving, _ in pages:
            leaving.set()
            await task
        now[0] += doors.KEPT_S + 1
        assert await status(door, scope("GET", "/")) == 200
        assert (door.open, door.left) == ([], {})

    asyncio.run(visit())


async def status(door: Door, asked: dict[str, Any]) -> int:
    return int((await met(door, asked))[0]["status"])


def test_folders_are_cut_as_they_are_written_and_nothing_else() -> None:
    folder = Path("/home/m e/lab")
    clean = Eraser([folder, folder / "lscd", Path("/")])
    for spelled in (str, lambda name: json.dumps(name)[1:-1], quote, lambda name: quote(name, safe="")):
        assert clean(f'"{spelled(str(folder))}/a", "{spelled(str(folder))}"') == '"/a", ""'
        assert clean(spelled(str(folder / "lscd" / "a"))) == spelled("/a")
    assert clean("file:///home/m%20e/lab/lscd/app.py") == "file:///app.py"
    for other in ("/home/m e/laboratory", "./home/m e/lab", "/mnt/home/m e/lab-2", "/"):
        assert clean(other) == other
    assert Eraser([])("/home") == "/home"
