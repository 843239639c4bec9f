"""Responses of other servers stay within limits, however they are compressed."""

from __future__ import annotations

import gzip
import itertools
import socket
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from metrics.channels import Outcome, WebhookChannel
from reconciler import http_client
from reconciler.airflow.rest import AirflowApi
from reconciler.cli.preview import runtimes
from reconciler.cli.preview.advisories import ask
from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.http_client import STEP, Client, TooLarge, Unreadable, read
from tests.fakes.answers import Answers

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
BOMB = gzip.compress(gzip.compress(bytes(256 << 20), mtime=0), mtime=0)
DOUBLE = {**JSON, "Content-Encoding": "gzip, gzip"}


def test_the_bomb_is_one() -> None:
    """A few hundred bytes, of which any other client makes 256 MiB."""
    assert len(BOMB) < 2000


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "deflate", "zstd", "gzip,br", "x"])
def test_only_one_layer_of_gzip_is_read(coding: str) -> None:
    """Everything else was not requested."""
    with (
        Answers(BOMB, {"Content-Encoding": coding}) as server,
        Client(timeout=20) as client,
        pytest.raises(Unreadable, match="Content-Encoding"),
    ):
        client.get(server.url)
    assert server.asked[0]["accept-encoding"] == "gzip"


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_that_is_read_whole_has_a_limit(packed: bool) -> None:
    """The limit applies after decompression; memory stays near it."""
    body = bytes(64 << 20)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with (
        Answers(gzip.compress(body) if packed else body, headers) as server,
        Client(timeout=60, limit=4 << 20) as client,
    ):
        tracemalloc.start()
        with pytest.raises(TooLarge, match="more than 4194304 bytes"):
            client.get(server.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100 << 20 if not packed else peak < 16 << 20


def test_a_streamed_answer_comes_in_steps() -> None:
    """Its reader can stop after any step."""
    body = bytes(range(256)) * (5 * STEP // 256)
    with (
        Answers(gzip.compress(body), {"Content-Encoding": "gzip"}) as server,
        Client(timeout=20) as client,
    ):
        with client.stream("GET", server.url) as answer:
            pieces = list(answer.iter_bytes())
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= STEP
        with client.stream("GET", server.url) as answer, pytest.raises(TooLarge):
            read(answer, 3 * STEP)


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b"a", mtime=0) + gzip.compress(b"b" * 5, mtime=0),
        gzip.compress(b"abbbbb", mtime=0),
    ],
)
def test_gzip_may_have_several_members(body: bytes) -> None:
    """The format allows that."""
    with Answers(body, {"Content-Encoding": "gzip"}) as server, Client(timeout=20) as client:
        assert client.get(server.url).text == "abbbbb"


@pytest.mark.parametrize(
    "body", [gzip.compress(b"a" * 9, mtime=0)[:-4], b"no gzip", b"\x1f\x8b\x08"]
)
def test_broken_gzip_is_told(body: bytes) -> None:
    """Truncated, or not gzip at all."""
    with (
        Answers(body, {"Content-Encoding": "gzip"}) as server,
        Client(timeout=20) as client,
        pytest.raises(Unreadable, match="gzip"),
    ):
        client.get(server.url)


def test_redirects_are_not_followed() -> None:
    """Httpx would read the response before it is limited; callers follow redirects themselves."""
    with (
        Answers(b"", {"Location": "http://127.0.0.1:1/"}, 302) as server,
        Client(timeout=20) as client,
    ):
        assert client.get(server.url, follow_redirects=True).status_code == 302


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """Run a server that sends `head`, then a byte every few milliseconds, for ever."""
    done = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(head)
            for number in itertools.count():
                if done.wait(0.02):
                    return
                try:
                    connection.sendall(b"x" if number % 50 else b"\r\nX-More: ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Head: ", ENDLESS])
def test_an_answer_that_drips_ends(head: bytes) -> None:
    """Each read is in time, in the head or in the body; the whole is not."""
    with (
        dripping(head) as url,
        Client(timeout=20, whole_time=0.3) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(url)


def test_a_streamed_answer_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "STREAM_TIME", 0.3)
    with (
        dripping(ENDLESS) as url,
        Client(timeout=20) as client,
        client.stream("GET", url) as answer,
        pytest.raises(httpx.ReadTimeout, match="too slowly"),
    ):
        read(answer, STEP)


def test_every_reader_refuses_a_bomb(tmp_path: Path) -> None:
    """Airflow, an advisory service, a daemon's runtimes and a webhook."""
    with Answers(BOMB, DOUBLE) as server:
        with AirflowApi(server.url, None) as api, pytest.raises(Retryable) as caught:
            api.health()
        assert caught.value.reason == Reason.AIRFLOW_UNREACHABLE
        with pytest.raises(httpx.HTTPError):
            ask([("a", "1")], server.url)
        with pytest.raises(Retryable, match="Content-Encoding"):
            runtimes.read(server.url)
        (tmp_path / "url").write_text(server.url)
        assert WebhookChannel(tmp_path).send(()).outcome is Outcome.LATER
    with Answers(gzip.compress(bytes(80 << 20)), {**JSON, "Content-Encoding": "gzip"}) as server:
        with AirflowApi(server.url, None) as api, pytest.raises(Retryable) as caught:
            api.health()
        assert caught.value.reason == Reason.AIRFLOW_UNEXPECTED


@pytest.mark.parametrize(
    "line",
    ["httpx.Client()", "httpx.get('x')", "httpx.stream('GET', 'x')", "httpx.request('GET', 'x')"],
)
def test_a_client_of_another_kind_is_found(line: str) -> None:
    """The rule of ruff finds it in any module of the product."""
    completed = subprocess.run(
        [
            ROOT / ".venv/bin/ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            "reconciler/airflow/other.py",
            "-",
        ],
        input=f"import httpx\n{line}\n",
        text=True,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert "TID251" in completed.stdout
