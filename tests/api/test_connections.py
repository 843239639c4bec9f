"""Real sockets that send nothing, too little or too much: health checks are still answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from reconciler.api import connections
from tests.fakes.pages import READER, Served

HEALTH = ("/healthz", "/readyz")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Three instances behind the server."""
    found = Served(tmp_path, 3)
    yield found.start()
    found.stop()


def opened(url: str, sent: bytes = b"") -> socket.socket:
    """Return a connection on which no more than this is sent."""
    host, _, port = url.removeprefix("http://").partition(":")
    found = socket.create_connection((host, int(port)), timeout=20)
    found.sendall(sent)
    return found


def ended(connection: socket.socket) -> bool:
    """Return True if the other side closes it within the socket's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_connections_that_send_nothing_leave_room_for_health(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are kept: /healthz, /readyz and the API are answered all the time."""
    monkeypatch.setattr(connections, "CONNECTIONS", 200)
    with ExitStack() as stack:
        silent = [stack.enter_context(opened(url)) for _ in range(420)]
        time.sleep(0.5)
        for path in HEALTH:
            assert httpx.get(f"{url}{path}", timeout=5).text == "ok\n"
        read = {"Authorization": f"Bearer {READER}"}
        assert httpx.get(f"{url}/api/v1/status", headers=read, timeout=5).status_code == 200
        assert ended(silent[0])


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /",
    ],
    ids=["nothing", "half a request", "one and a half requests"],
)
def test_a_connection_without_a_whole_request_is_let_go(
    sent: bytes, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes it after some seconds, whatever arrives meanwhile."""
    monkeypatch.setattr(connections, "SILENCE", 1.0)
    with opened(url, sent) as connection:
        if sent.endswith(b"GET /"):
            assert b"200 OK" in connection.recv(4096)
        time.sleep(0.7)
        if sent:
            connection.sendall(b"X")
        connection.settimeout(4.0)
        while not ended(connection):
            pass


def test_a_connection_that_asks_again_and_again_is_kept(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for each request, not for the connection."""
    monkeypatch.setattr(connections, "SILENCE", 1.0)
    with httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(4):
            answer = client.get("/healthz")
            assert answer.text == "ok\n"
            time.sleep(0.5)
            assert not answer.extensions["network_stream"].get_extra_info("is_readable")


def test_too_many_open_requests_are_refused_but_for_health(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with a message and Retry-After, until one of them ends."""
    monkeypatch.setattr(connections, "REQUESTS", 1)
    read = {"Authorization": f"Bearer {READER}"}
    with httpx.stream("GET", f"{url}/stream", headers=read, timeout=20) as stream:
        assert stream.status_code == 200
        refused = httpx.get(f"{url}/api/v1/status", headers=read, timeout=5)
        assert (refused.status_code, refused.json()["reason"]) == (503, "Unavailable")
        assert refused.headers["retry-after"]
        for path in HEALTH:
            assert httpx.get(f"{url}{path}", timeout=5).text == "ok\n"
    deadline = time.monotonic() + 10
    while httpx.get(f"{url}/api/v1/status", headers=read, timeout=5).status_code != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("path", ["/", "/api/v1/instances", "/history", "/metrics", "/no/such"])
def test_a_long_address_is_refused_unread(path: str, url: str) -> None:
    """Parsing tens of thousands of parameters once blocked the daemon, even without a token."""
    many = "&".join(f"p{number}=" for number in range(1500))
    refused = httpx.get(f"{url}{path}?{many}", timeout=20)
    assert refused.status_code == 414
    assert str(connections.TARGET_LIMIT) in refused.json()["message"]


def test_a_long_head_ends_its_connection(url: str) -> None:
    """A request with an endless line and headers is not kept in memory."""
    line = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "
    with opened(url, line + b"a" * (2 * connections.HEAD_LIMIT)) as connection:
        answer = connection.recv(64)
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""
