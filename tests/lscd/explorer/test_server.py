"""The explorer's server, met by clients that are no browsers."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any
from urllib.parse import quote, urlencode

import pytest

import lscd
from lscd.explorer import server
from lscd.explorer.door import MOST_PAGES
from perfmodel.catalog.files import data_directory
from tests.lscd.explorer.clients import Explorer, running, shown

UPDATE = "/api/kernel/set_ui_element_value"
LAST = "lscd-downloads"  # of the page's parts
HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    with running(tmp_path_factory.mktemp("explorer") / "log") as found:
        yield found


def folders() -> list[str]:
    return [str(Path(lscd.__file__).parents[1]), str(data_directory()), str(Path.home()), str(Path.cwd())]


def test_it_says_where_it_listens_and_that_it_asks_for_no_token(explorer: Explorer) -> None:
    assert "listens on 127.0.0.1 only and asks for no token" in explorer.said
    addresses = {
        Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6") if Path(f"/proc/net/{kind}").exists()
    }
    listening = re.findall(rf"([0-9A-F]+):{explorer.port:04X} \S+ 0A ", "".join(addresses))
    assert set(listening) <= {"0100007F"}


def test_a_taken_port_is_a_sentence(explorer: Explorer) -> None:
    command = [sys.executable, "-m", "lscd", "explore", "--no-browser", "--port", str(explorer.port)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.fullmatch(rf"lscd: port {explorer.port} is not free \(.*\); choose another with --port\n", found.stderr)


def test_the_page_names_no_folder_and_lets_no_other_origin_in(explorer: Explorer) -> None:
    status, headers, text = explorer.ask("GET", "/")
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control")]
    for folder in folders():
        for written in (folder, quote(folder), quote(folder, safe="")):
            assert not re.search(rf"(?<![\w.]){re.escape(written)}(?![\w.-])", text)
    assert explorer.ask("GET", "/", Origin="http://evil.example")[0] == 403
    assert explorer.ask("GET", "/", Host="evil.example")[0] == 421
    assert explorer.ask("OPTIONS", UPDATE, Origin="http://evil.example")[0] == 403
    assert explorer.ask("POST", "/api/home/workspace_files", b"{}")[0] == 404


def test_a_page_of_another_origin_opens_no_websocket(explorer: Explorer) -> None:
    for origin in ("http://evil.example", f"http://localhost:{explorer.port + 1}", "null"):
        status, sentence = refusal(explorer, origin=origin)
        assert (status, sentence) == (403, f"a page of {origin!r} may not read this one\n")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sparsity=2", "sparsity must lie in [0, 1], got 2.0"),
        ("sparsity=nan&sparsity=1e400", "sparsity must lie in [0, 1], got inf"),
        ("batch=-1", "batch must be a whole number from 1 to"),
        ("model=../../etc/passwd", "unknown model '../../etc/passwd'"),
        ("gpu=<script>alert(1)</script>", "unknown gpu '<script>alert(1)</script>'"),
        ("what=%00", "unknown setting 'what'"),
        ("gpus=5", "cannot be shared by 5"),
    ],
)
def test_hostile_links_show_a_sentence(explorer: Explorer, query: str, said: str) -> None:
    with explorer.page(query=query) as page:
        text = shown(page, said)
    assert "internal error" not in text
    assert "<script>alert" not in text
    assert not [folder for folder in folders() if re.search(rf"(?<![\w.]){re.escape(folder)}(?![\w.-])", text)]


def test_addresses_name_no_file_and_long_ones_are_refused(explorer: Explorer) -> None:
    for name in ("/etc/passwd", "../../../../etc/passwd", "app.py", str(Path(lscd.__file__)), "\0", "x" * 3000):
        status, _, text = explorer.ask("GET", f"/?{urlencode({'file': name})}")
        assert "root:" not in text
        assert status == 404
    for path in (
        "/assets/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/x",
        "/@file/9-../../etc/passwd",
        "/public/app.py",
    ):
        status, _, text = explorer.ask("GET", path)
        assert (status == 404, "root:" in text) == (True, False)
    status, _, text = explorer.ask("GET", f"/?sparsity={'1' * 10**6}")
    assert (status, "allowed are 8,000" in text) == (414, True)


def test_uploads_are_bounded_and_news_of_widgets_checked(explorer: Explorer) -> None:
    with explorer.page("news") as page:
        text = shown(page, LAST)
        for body, expected in ((b"x" * 5 * 10**6, 413), (b"{", 400), (b"[" * 10**5, 400), (b"\xff", 400)):
            status, _, sentence = explorer.ask("POST", UPDATE, body, marimo_session_id="news")
            assert (status, sentence.count("\n")) == (expected, 1)
        assert explorer.ask("POST", UPDATE, b"{}", marimo_session_id="other")[0] == 404
        slider = re.findall(r"""lscd-sparsity\\?".*?object-id='([^']+)'[^>]*><marimo-slider""", text, flags=re.DOTALL)
        assert len(slider) == 1
        assert news(explorer, slider[0], "5") == 200
        assert "internal error" not in shown(page, "sparsity must lie in [0, 1], got 5")
        for widget in re.findall(r"object-id='([^']+)'", text):
            for value in ('"abc"', "-5", "1e308", "{}", '"../../etc/passwd"', "[[]]"):
                assert news(explorer, widget, value) == 200
    with explorer.page() as page:
        assert "internal error" not in shown(page, LAST)


def news(explorer: Explorer, widget: str, value: str) -> int:
    body = f'{{"objectIds": ["{widget}"], "values": [{value}]}}'.encode()
    return explorer.ask("POST", UPDATE, body, marimo_session_id="news")[0]


@pytest.mark.parametrize("after_s", [0, 0.02, 0.3])
def test_dropped_connections_leave_no_traceback(explorer: Explorer, after_s: float) -> None:
    host = f"Host: localhost:{explorer.port}\r\n"
    before = len(explorer.said)
    for read in (0, 20):
        explorer.drop(f"GET / HTTP/1.1\r\n{host}\r\n", after_s, read)
        explorer.drop(f"GET /ws?session_id=drop{read} HTTP/1.1\r\n{host}{HANDSHAKE}\r\n", after_s, read)
        explorer.drop(f"GET /ws?session_id=junk{read} HTTP/1.1\r\n{host}{HANDSHAKE}\r\n\xff\xff\xff", after_s, read)
    for rest in (
        "Content-Length: 100\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Content-Length: -1\r\n\r\n",
    ):
        explorer.drop(f"POST {UPDATE} HTTP/1.1\r\n{host}{rest}", after_s)
    explorer.drop("GET / HT", after_s)
    explorer.drop("\0\xff" * 100, after_s)
    with explorer.page() as page:
        page.send(b"\0")
        page.send("[")
        shown(page, LAST)
    assert explorer.said[before:] == ""


@pytest.mark.slow
def test_fifty_pages_are_answered_and_the_next_is_told_why_not(tmp_path: Path) -> None:
    with running(tmp_path / "log") as explorer, ExitStack() as stack:
        pages = [stack.enter_context(explorer.page(query=f"batch={i + 1}")) for i in range(MOST_PAGES)]
        assert refusal(explorer)[0] == 503
        status, _, text = explorer.ask("GET", "/")
        assert (status, "50 pages are open" in text) == (503, True)
        for page in pages:
            shown(page, LAST, within_s=300)
        resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{explorer.process.pid}/status").read_text())
        assert resident
        assert int(resident[1]) < 2 * 10**6


@pytest.mark.parametrize("pages", [0, 2])
@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_it_quietly(tmp_path: Path, pages: int, ending: signal.Signals, status: int) -> None:
    with running(tmp_path / "log") as explorer, ExitStack() as stack:
        for _ in range(pages):
            shown(stack.enter_context(explorer.page()), LAST)
        explorer.process.send_signal(ending)
        assert explorer.process.wait(20) == status
        assert explorer.said.endswith("stop it with Ctrl+C\n")
        with pytest.raises(ConnectionRefusedError):
            explorer.ask("GET", "/")


def refusal(explorer: Explorer, **how: Any) -> tuple[int, str]:
    """Status and sentence with which a websocket is refused."""
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as refused, explorer.page(**how):
        pass
    return refused.value.response.status_code, bytes(refused.value.response.body).decode()


def test_small_answers_do_not_wait_for_more() -> None:
    """With Nagle's algorithm each of them waited 40 ms for an acknowledgement; asyncio turns it off only for some."""

    async def delayed() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=server._listening(0)) as serving:
            _, writer = await asyncio.open_connection(*serving.sockets[0].getsockname())
            writer.close()
            return await found

    assert asyncio.run(delayed()) == 1
