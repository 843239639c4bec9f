"""Worst CPU time of the daemon's process that one hostile input costs, and 40 hostile clients.

`daemon's CPU time` is that of the process which holds the lease; worker processes that are killed
for what they use are not part of it.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.rows import Row
from gitsource.assemble import Assembly
from gitsource.parsers import IsolatedParser
from gitsource.tree import Checkout
from reconciler.api.admission import CLIENT_BURST
from reconciler.api.connections import COOKIES_LIMIT, HEAD_LIMIT
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.index.simple_api import JSON
from reconciler.core.definitions import Commit, Recipe
from reconciler.isolation import shared_pool
from tests.fakes.answers import Answers
from tests.harness.pages import Served

NAME = "hostile input"
LIMIT = 1.0  # seconds of CPU time
CLIENTS = 40
SECONDS = 20.0  # of each measurement with clients
LOOK = 0.1  # seconds between two looks at what the clients hold up
HEADER = "apiVersion: groundcrew/v1\nkind: Environment\nmetadata: {name: a}\nspec:\n"
MIB = 1 << 20


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    return [
        _worst("one commit of one team", _commits()),
        _worst("one answer of an index", _answers()),
        _worst("one request", _requests()),
        *_crowd(),
    ]


def short() -> list[Row]:
    """Return how many of one client's simultaneous requests are served."""
    with _served() as (_, url), _client(url) as client:
        total = int(CLIENT_BURST) + 40
        sockets = [client() for _ in range(total // 20)]
        worked = sum(_ask(one, 20).count(b"401 Unauthorized") for one in sockets)
    # Its bucket fills while it asks.
    most = CLIENT_BURST + 39
    return [
        Row(
            NAME, "requests of one client, worked on", worked, "", f"≤ {most:.0f}", most, count=True
        )
    ]


def _worst(what: str, costs: Mapping[str, float]) -> Row:
    name = max(costs, key=lambda key: costs[key])
    measure = f"{what}: daemon's CPU time, the worst of {len(costs)} ({name})"
    return Row(NAME, measure, costs[name], "s", "≤ 1 s", LIMIT)


def _cost(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


# ------------------------------------------------------------------------------------ commits


def _commits() -> dict[str, float]:
    """Return what reading each hostile commit costs in one turn."""
    costs = {}
    many = ", ".join(f"package-{n}>=1.{n}" for n in range(1000))
    for name, files in {
        "constraints of spaces": {
            "a.yaml": f"{HEADER}  constraints: [c.txt]\n",
            "c.txt": " " * (MIB - 1),
        },
        "constraints of brackets": {
            "a.yaml": f"{HEADER}  constraints: [c.txt]\n",
            "c.txt": ("a[" * 2000 + "\n") * 250,
        },
        "a deep file": {"a.yaml": f"{HEADER}  requirements: {'[' * (MIB // 2)}"},
        "a file of anchors": {"a.yaml": HEADER + "  a: &a [x]\n" + "  b: [*a, *a]\n" * 50_000},
        "a file of wrong keys": {"a.yaml": HEADER + "".join(f"  k{n}: 1\n" for n in range(90_000))},
        "300 large environments": {
            f"e{n}.yaml": _named(n) + f"  requirements: [{many}]\n" for n in range(300)
        },
        "2,000 environments": {
            f"e{n}.yaml": _named(n) + "  requirements: [pandas]\n" for n in range(2000)
        },
        "2,000 files with the same name": {
            f"e{n}.yaml": HEADER + "  requirements: [pandas]\n" for n in range(2000)
        },
        "1,000 globs and 2,000 packages": {
            "a.yaml": HEADER + _globs(1000),
            **{f"packages/p{n}/pyproject.toml": "" for n in range(2000)},
        },
    }.items():
        with tempfile.TemporaryDirectory() as directory:
            team = Path(directory) / "teams" / "red"
            team.mkdir(parents=True)
            for file, text in files.items():
                (team / file).parent.mkdir(parents=True, exist_ok=True)
                (team / file).write_text(text)
            assembly = Assembly(parser=IsolatedParser(shared_pool("definitions")))
            tree = Checkout(Path(directory))
            costs[name] = _cost(lambda a=assembly, t=tree: a.update(t, Commit("r")))  # type: ignore[misc]
    return costs


def _named(number: int) -> str:
    """Return the beginning of an environment's file with a name of its own."""
    return HEADER.replace("{name: a}", f"{{name: e{number}}}")


def _globs(count: int) -> str:
    """Return an environment's indexes with so many globs together."""
    globs = [f"'*a{n}*b{n}*'" for n in range(count)]
    rows = [
        f"    - {{name: i{n}, url: 'https://x.example/{n}', packages: [{', '.join(some)}]}}\n"
        for n, some in enumerate(globs[at : at + 200] for at in range(0, count, 200))
    ]
    return "  indexes:\n" + "".join(rows)


# ------------------------------------------------------------------------------------ indexes


def _answers() -> dict[str, float]:
    """Return what one page of an index costs, the server that sends it included."""
    link = b'<a href="a-1.0-py3-none-any.whl">a-1.0-py3-none-any.whl</a>\n'
    row = b'{"filename": "a-1.0-py3-none-any.whl", "url": "a-1.0-py3-none-any.whl"},'
    pages = {
        "50,000 links": ("text/html", link * 50_000),
        "60 MiB of links": ("text/html", link * (60 * MIB // len(link))),
        "60 MiB of open tags": ("text/html", b"<a " * (20 * MIB)),
        "60 MiB of rows": (JSON, b'{"files": [' + row * (60 * MIB // len(row)) + b"1]}"),
        "deep JSON": (JSON, b"[" * (60 * MIB)),
    }
    costs = {}
    for name, (kind, body) in pages.items():
        with Answers(body, {"Content-Type": kind}) as upstream:
            indexes = Indexes(Recipe("x"), "red", Path("/nowhere"), f"{upstream.url}/simple/")
            with indexes.serve(None) as url:
                costs[name] = _cost(lambda u=url: httpx.get(f"{u}a/", timeout=600))  # type: ignore[misc]
            indexes.close()
    return costs


# ----------------------------------------------------------------------------------- requests


@contextmanager
def _served() -> Iterator[tuple[Served, str]]:
    with tempfile.TemporaryDirectory() as directory:
        served = Served(Path(directory), 100)
        try:
            yield served, served.start()
        finally:
            served.stop()


@contextmanager
def _client(url: str) -> Iterator[Callable[[], socket.socket]]:
    """Give a function that connects from an address of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        connection = socket.create_connection((host, int(port)), 60, ("127.0.0.2", 0))
        opened.append(connection)
        return connection

    try:
        yield connect
    finally:
        for one in opened:
            one.close()


def _ask(connection: socket.socket, times: int) -> bytes:
    """Ask for the API's status so many times on one connection; the heads of all answers."""
    answers = b""
    for _ in range(times):
        connection.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers += connection.recv(65536)
    return answers


def _requests() -> dict[str, float]:
    """Return what each hostile request costs."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    hook = b"POST /hooks/github HTTP/1.1\r\nHost: x\r\n"
    room = HEAD_LIMIT - 200
    requests = {
        "a long address": b"GET /?" + b"a=&" * (room // 3) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "an address of the limit": b"GET /?" + b"a=&" * 1300 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "cookies of quotes": head + b'Cookie: a="' + b"\\" * (COOKIES_LIMIT - 10) + b'"\r\n\r\n',
        "many headers": head + b"a:b\r\n" * (room // 5) + b"\r\n",
        "a list of types": head.replace(b" / ", b" /metrics ")
        + b"Accept: "
        + b"a;q=1," * (room // 6)
        + b"\r\n\r\n",
        "a large body": hook + b"Content-Length: 25000000\r\n\r\n" + b"a" * 25_000_000,
        "a form": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-"
        b"urlencoded\r\nContent-Length: 8000\r\n\r\n" + b"a=&" * 2666 + b"aa",
        "a request of chunks": hook
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 20_000
        + b"0\r\n\r\n",
    }
    with _served() as (served, url), _client(url) as client:
        (served.root / "secrets" / "hooks").mkdir()
        (served.root / "secrets" / "hooks" / "github").write_text("secret")
        return {name: _cost(lambda r=data: _send(client(), r)) for name, data in requests.items()}  # type: ignore[misc]


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it may refuse what is left
        connection.sendall(data)
    with suppress(OSError):
        connection.recv(65536)
    connection.close()


# -------------------------------------------------------------------------------------- crowd

CROWD = """
import socket, sys, threading
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
paths = ["/", "/metrics", "/api/v1/status", "/healthz", "/?" + "a=&" * 1300, "/events", "/no/such"]
def run(number):
    while True:
        try:
            with socket.create_connection((host, port), 60, (f"127.0.2.{number + 1}", 0)) as one:
                for path in paths:
                    one.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
                    one.recv(65536)
        except OSError:
            pass
for number in range(count):
    threading.Thread(target=run, args=(number,), daemon=True).start()
print("begun", flush=True)
sys.stdin.read()
"""


@dataclass(slots=True)
class Seen:
    """Milliseconds that things took."""

    health: list[float] = field(default_factory=list)
    records: list[float] = field(default_factory=list)
    lease: list[float] = field(default_factory=list)
    cpu: float = 0.0  # seconds for each second


def _crowd() -> list[Row]:
    """Compare a quiet server with one that 40 clients ask as fast as they can."""
    with _served() as (served, url):
        quiet = _watch(served, url)
        host, _, port = url.removeprefix("http://").partition(":")
        crowd = subprocess.Popen(
            [sys.executable, "-c", CROWD, host, port, str(CLIENTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert crowd.stdout is not None
        crowd.stdout.readline()
        time.sleep(2.0)  # the bursts that each client has
        try:
            busy = _watch(served, url)
        finally:
            crowd.kill()
            crowd.communicate()
    what = f"{CLIENTS} hostile clients"
    rows = [
        Row(NAME, f"{what}: daemon's CPU time for each second", busy.cpu, "s"),
        Row(NAME, f"{what}: longest renewal of the lease", max(busy.lease), "ms", "≤ 5000 ms", 5e3),
    ]
    for name, before, now in (
        ("/healthz", quiet.health, busy.health),
        ("reading the records", quiet.records, busy.records),
    ):
        ratio = statistics.median(now) / statistics.median(before)
        rows.append(Row(NAME, f"{what}: {name}, times the quiet median", ratio, "", "≤ 2", 2.0))
    return rows


def _watch(served: Served, url: str) -> Seen:
    """Ask for health, read the records and renew the lease for a while."""
    seen, stop = Seen(), threading.Event()
    lease = served.store.acquire("bench", 600)
    assert lease is not None

    def renew() -> None:
        while not stop.wait(LOOK):
            seen.lease.append(_milliseconds(lambda: served.store.renew(lease, 600)))

    thread = threading.Thread(target=renew)
    thread.start()
    begun, used = time.monotonic(), time.process_time()
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() - begun < SECONDS:
            seen.health.append(_milliseconds(lambda: client.get("/healthz").raise_for_status()))
            seen.records.append(_milliseconds(served.store.load))
            time.sleep(LOOK)
    seen.cpu = (time.process_time() - used) / (time.monotonic() - begun)
    stop.set()
    thread.join()
    served.store.release(lease)
    return seen


def _milliseconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000
