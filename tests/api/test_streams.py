"""Event streams: their messages, and the cost of a hundred of them or of a slow reader."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from reconciler.api import streams
from reconciler.core.model import Change
from tests.fakes.events import event as stored_event
from tests.fakes.fleet import builds, name_of
from tests.harness.pages import READER, Served

READ = {"Authorization": f"Bearer {READER}"}
BUILDING = builds(7)[0]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Served, str]]:
    server = Served(tmp_path, 9)
    yield server, server.start()
    server.stop()


class Stream:
    """Open stream, read message by message."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def next(self, kind: str) -> tuple[str, object]:
        """Return (id, data) of the next message of this kind."""
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif fields.get("event") == kind:
                return fields.get("id", ""), json.loads(fields["data"])
            else:
                fields = {}
        raise AssertionError(f"the stream ended without a {kind}")


@contextmanager
def opened(url: str, path: str = "/stream", **headers: str) -> Iterator[Stream]:
    with httpx.stream("GET", f"{url}{path}", headers={**READ, **headers}, timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


def happen(served: Served, message: str = "something") -> int:
    """Write an event; return its id."""
    lease = served.store.acquire("test", 60.0)
    assert lease is not None
    told = stored_event(time.time(), "Told", f"instance/{name_of(0)}", "red", "Told", message)
    served.store.write(lease, Change(events=(told,)))
    return served.store.last_event_id()


def test_a_change_is_told_to_every_open_page(site: tuple[Served, str]) -> None:
    """The current state at once, then each change with the id of the newest event."""
    served, url = site
    with opened(url) as one, opened(url) as two:
        newest = served.store.last_event_id()
        assert one.next("changed") == (str(newest), {"event": newest})
        assert two.next("changed") == (str(newest), {"event": newest})
        number = happen(served)
        assert one.next("changed")[1] == {"event": number}
        assert two.next("changed")[1] == {"event": number}


def test_a_hundred_open_streams_leave_room_for_pages(site: tuple[Served, str]) -> None:
    """Each is notified of a change, pages and the API respond, and stopping takes seconds."""
    served, url = site
    with ExitStack() as stack:
        many = [stack.enter_context(opened(url)) for _ in range(100)]
        for one in many:
            one.next("changed")
        assert httpx.get(f"{url}/", headers=READ, timeout=20).status_code == 200
        assert httpx.get(f"{url}/api/v1/status", headers=READ, timeout=20).status_code == 200
        number = happen(served)
        assert [one.next("changed")[1] for one in many] == [{"event": number}] * 100
        begun = time.monotonic()
        served.stop()
        assert time.monotonic() - begun < 6


def test_too_many_streams_are_refused_in_words(
    site: tuple[Served, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After; a closed one makes room again."""
    _, url = site
    monkeypatch.setattr(streams, "MOST", 2)
    with opened(url) as kept:
        kept.next("changed")
        with opened(url) as second:
            second.next("changed")
            refused = httpx.get(f"{url}/stream", headers=READ, timeout=20)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        deadline = time.monotonic() + 10
        while httpx.get(f"{url}/healthz", timeout=20).is_success:
            try:
                with opened(url) as third:
                    third.next("changed")
                    break
            except AssertionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_a_reader_that_takes_nothing_is_let_go_and_holds_up_nobody(
    site: tuple[Served, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never reads a log that grows by megabytes; others continue, and its stream ends."""
    served, url = site
    monkeypatch.setattr(streams, "PATIENCE", 1.0)
    monkeypatch.setattr(streams, "BEHIND", 1 << 40)
    log = served.logs / f"{BUILDING.key}.log"
    log.write_bytes(b"x" * 79 + b"\n" + b"y" * (40 << 20))
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((host, int(port)))
        silent.sendall(
            f"GET /stream/builds/{BUILDING.key} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {READER}\r\n\r\n".encode()
        )
        with opened(url) as other:
            other.next("changed")
            number = happen(served)
            assert other.next("changed")[1] == {"event": number}
            deadline = time.monotonic() + 20
            while served.app.state.streams.open > 1:
                assert time.monotonic() < deadline, "the silent reader is still served"
                time.sleep(0.1)


def test_a_log_is_followed_as_it_grows_and_to_its_end(site: tuple[Served, str]) -> None:
    """It continues where the page stopped, across a split character, until the build ends."""
    served, url = site
    log = served.logs / f"{BUILDING.key}.log"
    log.write_bytes(b"resolving\n")

    def grow() -> None:
        with log.open("ab") as file:
            for part in ("gefäß".encode()[:4], "gefäß".encode()[4:], b"\ndone\n"):
                file.write(part)
                file.flush()
                time.sleep(0.7)

    path = f"/stream/builds/{BUILDING.key}?from=10"
    with opened(url, path) as stream:
        thread = threading.Thread(target=grow)
        thread.start()
        text, last = "", ""
        while "done" not in text:
            last, part = stream.next("text")
            text += str(part)
        thread.join()
    assert text == "gefäß\ndone\n"
    assert last == str(log.stat().st_size)
    with opened(url, path, **{"Last-Event-ID": last}) as again:
        with log.open("ab") as file:
            file.write(b"more\n")
        assert again.next("text")[1] == "more\n"
        log.write_bytes(b"2nd\n")
        again.next("anew")
        assert again.next("text")[1] == "2nd\n"


def test_the_log_of_an_ended_build_ends(site: tuple[Served, str]) -> None:
    """The existing log, then `end`."""
    _, url = site
    with opened(url, f"/stream/builds/{builds(0)[0].key}") as stream:
        assert stream.next("text")[1] == "resolved 3 packages\nverified\n"
        stream.next("end")
