"""Answers of pages to odd requests, large logs, and stores and shares that do not answer."""

from __future__ import annotations

import asyncio
import html
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.api import share_reader
from reconciler.api.pages.forms import local
from reconciler.api.pages.phrases import ago
from reconciler.api.share_reader import ShareReader, last_lines, part
from reconciler.core.model import Change
from reconciler.core.phases import BuildPhase
from tests.fakes.fleet import builds, environment
from tests.harness.pages import Served

READY = builds(0)[0]
MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path, 12, read="anyone")
    yield server
    server.stop()


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.start(), timeout=30) as client:
        yield client


# ------------------------------------------------------------------------------------- odd requests


def test_the_cause_of_a_failure_leads_to_its_line_on_the_forge(
    served: Served, http: httpx.Client
) -> None:
    """The page of a failed build links the position in the environments repo at its commit."""
    failed = next(b for b in served.store.load().builds.values() if b.problem and b.problem.place)
    assert failed.problem is not None
    position = failed.problem.place
    assert position is not None
    link = f"https://git.example/envs/blob/{failed.revision}/{position.file}#L{position.line}"
    assert f'href="{link}"' in http.get(f"/builds/{failed.key}").text


@pytest.mark.parametrize(
    "path",
    [
        "/instances/none",
        "/instances/..%2f..%2fetc%2fpasswd",
        "/instances/%00",
        "/instances/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/environments/none",
        "/builds/none",
        "/builds/0123456789abcdef",
        "/builds/0123456789abcdef/log",
        "/nope",
        "/static/x/pages.css",
        f"/builds/{builds(8)[0].key}/sbom",
        "/instances/" + "x" * 3000,
    ],
)
def test_what_there_is_not_is_answered_404_in_words(path: str, http: httpx.Client) -> None:
    """The answer is a page in which parts of the request only appear as text."""
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script>alert" not in answer.text
    assert len(answer.text) < 10_000
    assert ">Not Found</p>" not in answer.text, "a sentence"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/builds/none/lock", "There is no build none; "),
        ("/builds/none/files", "There is no build none; "),
        (f"/builds/{builds(8)[0].key}/lock", "and has no pylock.toml."),
        (f"/builds/{builds(8)[0].key}/sbom", "and has no sbom.cdx.json."),
    ],
)
def test_api_and_pages_give_the_same_message(path: str, message: str, http: httpx.Client) -> None:
    """A build or document that does not exist is reported in one wording."""
    page, api = http.get(path), http.get(f"/api/v1{path}")
    assert (page.status_code, api.status_code) == (404, 404)
    assert message in api.json()["message"]
    assert api.json()["message"] in html.unescape(page.text)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/?page=99999", 200),
        ("/?page=-1", 200),
        ("/?page=9" + "9" * 30, 200),
        ("/?q=" + "x" * 301, 422),
        ("/?health=Fine", 422),
        ("/?q=%00", 422),
        ("/events?before=x&object=%00&kind=%00", 200),
        ("/?team=nobody", 200),
        ("/events?before=0", 200),
        ("/login?next=//evil.example", 200),
    ],
)
def test_odd_queries_break_nothing(path: str, code: int, http: httpx.Client) -> None:
    """The answer is a page all the same, or a refusal with a message."""
    assert http.get(path).status_code == code


def test_forms_of_the_wrong_kind_are_refused(http: httpx.Client) -> None:
    """They are too large, of another type, no form at all, or have far too many fields."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content, headers in (
        (b"x" * 9000, form),
        (b"{}", {"content-type": "application/json"}),
        (b"", {}),
        (b"&".join(b"a=b" for _ in range(100)), form),
    ):
        assert http.post("/act", content=content, headers=headers).status_code == 422
    assert http.post("/act", content=b"\xff=\xfe", headers=form).status_code == 403
    assert http.get("/act").status_code == 405


def test_history_is_turned_page_by_page(served: Served, http: httpx.Client) -> None:
    """Every event is on exactly one of the pages."""
    whole = {e.id for e in served.store.events()}
    assert len(whole) == 36
    lease = served.store.acquire("test", 60)
    assert lease is not None
    more = tuple(
        replace(e, message=f"event-{n:03d}-") for n, e in enumerate(served.store.events() * 3)
    )
    served.store.write(lease, Change(events=more))
    text, path, pages = "", "/events", 0
    while path:
        page = http.get(path).text
        text, pages = text + page, pages + 1
        rest = page.partition('rel="next" href="')[2]
        path = rest.partition('"')[0].replace("&amp;", "&")
    assert pages == 2
    assert [text.count(f"event-{n:03d}-") for n in range(len(more))] == [1] * len(more)


# ------------------------------------------------------------------------------------------- a log


def test_the_log_of_a_running_build_is_said_to_be_where_the_leader_is(
    served: Served, http: httpx.Client
) -> None:
    """A standby has it neither on its disk nor on the share: page and API name the leader."""
    lease = served.store.acquire("groundcrew-7d9:12", 60)
    assert lease is not None
    stored = served.store.load().builds[READY.key]
    running = replace(stored, phase=BuildPhase.BUILDING, build_id=None)
    served.store.write(lease, Change(builds=(running,)))
    message = "the daemon leads (groundcrew-7d9)"
    assert message in http.get(f"/builds/{READY.key}").text
    answer = http.get(f"/api/v1/builds/{READY.key}/log")
    assert answer.status_code == 404
    assert message in answer.text


def test_a_log_of_200_mb_costs_a_page_nothing(served: Served, http: httpx.Client) -> None:
    """The page shows its last lines; the whole log is sent in pieces, and `tail` sends its end."""
    log = served.logs / f"{READY.key}.log"
    with log.open("wb") as file:
        for _ in range(200):
            file.write((b"a line of a log " * 4 + b"\n") * (MIB // 65))
        file.write(b"the last line\n")
    size = log.stat().st_size
    tracemalloc.start()
    try:
        page = http.get(f"/builds/{READY.key}")
        with http.stream("GET", f"/builds/{READY.key}/log") as answer:
            received = sum(len(chunk) for chunk in answer.iter_raw())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "the last line" in page.text
    assert "Only the end is shown" in page.text
    assert len(page.text) < 100_000
    assert received >= size
    assert peak < 20 * MIB
    assert http.get(f"/api/v1/builds/{READY.key}/log?tail=14").text == "the last line\n"


def test_a_log_that_grows_or_shrinks_while_it_is_sent_is_sent_whole(served: Served) -> None:
    """Only the part that existed at first is sent; a shorter file is not padded."""
    log = served.logs / f"{READY.key}.log"
    reading = ShareReader(served.share, lambda key: log)

    async def sent(meanwhile: Callable[[], object]) -> bytes:
        begin = reading.log_begin(READY)
        assert begin is not None
        sending = reading.log_pieces(READY, begin)
        data = await anext(sending)
        meanwhile()
        return data + b"".join([piece async for piece in sending])

    def grow() -> None:
        with log.open("ab") as file:
            file.write(b"y" * 100_000)

    log.write_bytes(b"x" * 2 * MIB)
    with ThreadPoolExecutor(1) as thread:  # this thread may have a loop: the browser's
        assert thread.submit(asyncio.run, sent(grow)).result() == b"x" * 2 * MIB
        shrinking = sent(lambda: log.write_bytes(b""))
        assert thread.submit(asyncio.run, shrinking).result() == b"x" * share_reader.CHUNK
    reading.close()


def test_the_last_lines_are_whole_ones(tmp_path: Path) -> None:
    """The cut is at the start of a line; one endless line is cut anywhere; odd bytes are shown."""
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthree\n")
    assert shown(log, 100) == ("one\ntwo\nthree\n", 14, False)
    assert shown(log, 8) == ("three\n", 14, True)
    log.write_bytes(b"x" * 50)
    assert shown(log, 8) == ("x" * 8, 50, True)
    log.write_bytes(b"\xff\n")
    assert shown(log, 8) == ("\N{REPLACEMENT CHARACTER}\n", 2, False)


def shown(log: Path, most: int) -> tuple[str, int, bool]:
    """Return (what a page shows of a log, where that ends, True if something was left out)."""
    excerpt = part(log, -most, most)
    assert excerpt is not None
    text, cut = last_lines(excerpt)
    return text, excerpt.end, cut


# ---------------------------------------------------------------------------- unresponsive services


@pytest.mark.parametrize("path", ["/builds/{}", "/builds/{}/log", "/api/v1/builds/{}/log"])
def test_a_share_that_hangs_while_logs_are_read_holds_up_nobody_else(
    path: str, served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """45 requests wait for the share: health, metrics and the fleet are answered as usual."""
    answers = threading.Event()
    whole = Path.open

    def hangs(self: Path, *args: Any, **named: Any) -> Any:
        if self.name == "build.log":
            answers.wait(30)
        return whole(self, *args, **named)

    monkeypatch.setattr(Path, "open", hangs)
    monkeypatch.setattr(share_reader, "PATIENCE", 6.0)
    address = path.format(READY.key)
    codes: list[int] = []

    def ask() -> None:
        codes.append(http.get(address).status_code)

    asking = [threading.Thread(target=ask) for _ in range(45)]
    for thread in asking:
        thread.start()
    time.sleep(1)
    try:
        for other in ("/healthz", "/readyz", "/metrics", "/"):
            assert http.get(other, timeout=4).status_code == 200, other
        for thread in asking:
            thread.join(20)
        assert codes == [200 if path == "/builds/{}" else 503] * 45
    finally:
        answers.set()
    deadline = time.monotonic() + 10
    while "resolved 3 packages" not in http.get(address).text:
        assert time.monotonic() < deadline


def test_a_share_that_hangs_costs_its_own_pages_only(
    served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds say that the share does not answer; other pages work, and later builds do, too."""
    answers = threading.Event()
    monkeypatch.setattr(share_reader, "PATIENCE", 0.2)
    for name in ("_read", "read_document"):
        monkeypatch.setattr(share_reader, name, lambda *_: answers.wait(30) and None)
    for _ in range(6):
        page = http.get(f"/builds/{READY.key}")
        assert page.status_code == 200
        assert "share" in page.text
        assert http.get(f"/api/v1/builds/{READY.key}/lock").status_code == 503
    assert http.get("/").status_code == 200
    monkeypatch.undo()
    answers.set()
    deadline = time.monotonic() + 10
    while "812 modules" not in http.get(f"/builds/{READY.key}").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_database_that_does_not_answer_is_told_and_passes(
    served: Served, http: httpx.Client
) -> None:
    """People and programs get 503 with Retry-After and a message; then all is as before."""
    with served.store.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE instances RENAME TO gone")
    for path in ("/", "/api/v1/instances"):
        answer = http.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    with served.store.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO instances")
    assert http.get("/").status_code == 200


def test_nothing_is_recorded_yet(tmp_path: Path) -> None:
    """An empty fleet says what to do."""
    served = Served(tmp_path, 0, read="anyone")
    with httpx.Client(base_url=served.start(), timeout=20) as client:
        assert "No instance is defined yet" in client.get("/").text
        assert client.get("/environments").status_code == 200
        assert client.get("/events").status_code == 200
    served.stop()


def test_passwords_in_addresses_are_not_shown(served: Served, http: httpx.Client) -> None:
    """The user part of an index's or a requirement's address is masked."""
    record = environment(0)
    recipe = record.definition.recipe
    leaky = replace(
        recipe,
        requirements=(
            replace(recipe.requirements[0], text="x @ https://u:s3cret@host.example/x.whl"),
        ),
        env=(("ACME_TOKEN", "s3cret"),),
    )
    stored = served.store.load().environments[record.name]
    changed = replace(stored, definition=replace(stored.definition, recipe=leaky))
    lease = served.store.acquire("test", 60)
    assert lease is not None
    served.store.write(lease, Change(environments=(changed,)))
    page = http.get(f"/environments/{record.name}").text
    assert "host.example/x.whl" in page
    assert "s3cret" not in page


# -------------------------------------------------------------------------------------------- texts


def test_times_are_told_from_now() -> None:
    """They are in whole seconds; future times are "just now"."""
    assert (ago(100, 100.5), ago(100, 105.7), ago(100, 90)) == ("just now", "5s ago", "just now")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/events?object=x", "/events?object=x"),
        ("", "/"),
        ("//x", "/"),
        ("https://x", "/"),
        ("/\\x", "/"),
        ("/a\nb", "/"),
    ],
)
def test_only_paths_of_ours_are_led_back_to(path: str, found: str) -> None:
    """Anything else leads to the first page."""
    assert local(path) == found
