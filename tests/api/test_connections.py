"""Real sockets that send nothing, too little or too much: health checks are still answered."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from reconciler.api import admission, connections
from tests.harness.pages import READER, Served

HEALTH = ("/healthz", "/readyz")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Three instances behind the server."""
    server = Served(tmp_path, 3)
    yield server.start()
    server.stop()


def opened(url: str, sent: bytes = b"") -> socket.socket:
    """Return a connection on which no more than this is sent."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(sent)
    return connection


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


class Clients:
    """Clients with addresses of their own: loopback has many."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._stack = stack

    def at(self, address: str) -> httpx.Client:
        """Return a client that connects from this address."""
        transport = httpx.HTTPTransport(local_address=address)
        client = httpx.Client(base_url=self._url, timeout=30, transport=transport)
        return self._stack.enter_context(client)


@pytest.fixture
def clients(url: str) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(url, stack)


def statuses(client: httpx.Client, path: str, times: int, **headers: str) -> Counter[int]:
    """Ask again and again, and count the answers by status."""
    return Counter(client.get(path, headers=headers).status_code for _ in range(times))


def test_a_client_that_asks_too_often_is_refused_and_nobody_else(
    url: str, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its burst, and then waits for its refusals; health is answered all the same."""
    monkeypatch.setattr(admission, "CLIENT_BURST", 20.0)
    monkeypatch.setattr(admission, "CLIENT_RATE", 0.001)
    monkeypatch.setattr(connections, "PAUSE", 0.1)
    monkeypatch.setattr(connections, "SPARED_PAUSE", 0.1)
    hostile = clients.at("127.0.0.2")
    assert statuses(hostile, "/api/v1/status", 40) == {401: 20, 429: 20}
    assert statuses(hostile, "/healthz", 3) == {200: 3}
    refused = hostile.get("/")
    assert refused.json()["reason"] == "TooManyRequests"
    assert refused.headers["retry-after"]
    assert statuses(clients.at("127.0.0.3"), "/api/v1/status", 3) == {401: 3}
    read = {"Authorization": f"Bearer {READER}"}
    assert httpx.get(f"{url}/api/v1/status", headers=read, timeout=20).status_code == 200


def test_all_clients_together_have_a_rate(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many addresses do no more than one; health is answered still."""
    monkeypatch.setattr(connections, "PAUSE", 0.1)
    many = [clients.at(f"127.0.1.{number}") for number in range(1, 5)]
    monkeypatch.setattr(admission.Bucket, "take", _taking(20))
    answers = sum((statuses(one, "/api/v1/status", 8) for one in many), Counter[int]())
    assert answers == {401: 10, 429: 22}, "each request counts for its client and for all"
    assert statuses(many[0], "/readyz", 2) == {200: 2}


def _taking(most: int) -> Callable[[object, float], bool]:
    """Stand for buckets that hold so much together and are not filled again."""
    left = iter(range(most))
    return lambda _bucket, _now: next(left, None) is not None


def test_a_client_has_so_many_requests_open(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams count; another client still gets one."""
    monkeypatch.setattr(admission, "CLIENT_REQUESTS", 2)
    read = {"Authorization": f"Bearer {READER}"}
    first, other = clients.at("127.0.0.2"), clients.at("127.0.0.3")
    with ExitStack() as stack:
        for _ in range(2):
            stream = stack.enter_context(first.stream("GET", "/stream", headers=read))
            assert stream.status_code == 200
        assert first.get("/api/v1/status", headers=read).status_code == 429
        assert first.get("/healthz").status_code == 200
        assert other.get("/api/v1/status", headers=read).status_code == 200


def test_a_proxy_speaks_for_its_clients(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address that a trusted proxy forwards for is a client; the proxy itself is none."""
    monkeypatch.setattr(admission, "CLIENT_BURST", 5.0)
    monkeypatch.setattr(admission, "CLIENT_RATE", 0.001)
    monkeypatch.setattr(connections, "PAUSE", 0.1)
    proxy, stranger = clients.at("127.0.0.1"), clients.at("127.0.0.9")
    one = {"X-Forwarded-For": "10.0.0.7, 10.0.0.1"}
    assert statuses(proxy, "/api/v1/status", 8, **one) == {401: 5, 429: 3}
    assert statuses(proxy, "/api/v1/status", 8) == {401: 8}
    for number in range(8):  # what a client claims is not believed
        statuses(stranger, "/api/v1/status", 1, **{"X-Forwarded-For": f"10.0.1.{number}"})
    assert statuses(stranger, "/api/v1/status", 1) == {429: 1}


def test_cookies_that_are_too_long_are_refused_unread(url: str) -> None:
    """Quoted cookies once took quadratic time."""
    cookie = 'a="' + "\\" * connections.COOKIES_LIMIT + '"'
    assert httpx.get(f"{url}/", headers={"Cookie": cookie}, timeout=20).status_code == 431


def test_the_client_that_has_most_connections_loses_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was quiet for longer keeps its own."""
    monkeypatch.setattr(connections, "CONNECTIONS", 10)
    host, _, port = url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        quiet = stack.enter_context(opened(url))
        hostile = [
            stack.enter_context(
                socket.create_connection((host, int(port)), 20, source_address=("127.0.0.2", 0))
            )
            for _ in range(12)
        ]
        assert ended(hostile[0])
        quiet.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in quiet.recv(4096)
