"""Server time of the status pages and the API at 1,000 instances, over loopback.

`settled` requests are made while nothing changes, as is usual; `changing` requests are made while a
record changes every second and the records are read again every second.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from sqlalchemy import event

from benchmarks.rows import Row
from reconciler.core.model import Change
from reconciler.core.waits import Wait, WaitOn
from tests.fakes.fleet import builds, digest, name_of, place_package
from tests.harness.pages import READER, Served

INSTANCES = 1000
FILES = 20_000  # of one package; its RECORD is one more file
TURNS = 50
LIMIT = 50.0  # milliseconds
STATEMENTS = 3  # to the database, for one page
PAGES = {
    "fleet": "/",
    "fleet, searched": "/?q=team-03",
    "environments": "/environments",
    "instance": f"/instances/{name_of(3)}",
    "environment": f"/environments/{name_of(8)}",
    "build": f"/builds/{builds(0)[0].key}",
    "events": "/events",
    "compare": f"/compare?old={name_of(1)}&new={name_of(0)}",
    "system": "/system",
    "files of a package": f"/builds/{builds(0)[0].key}/files?package=huge",
}
READ = {"Authorization": f"Bearer {READER}"}


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with _serving(INSTANCES) as (served, client):
        return [*_measure(served, client), *_counts(served, client, INSTANCES)]


def short() -> list[Row]:
    """Return the counts for thirty instances."""
    with _serving(30) as (served, client):
        return _counts(served, client, 30)


@contextmanager
def _serving(count: int) -> Iterator[tuple[Served, httpx.Client]]:
    with tempfile.TemporaryDirectory() as directory:
        served = Served(Path(directory), count)
        _place_files(served)
        try:
            with httpx.Client(base_url=served.start(), headers=READ, timeout=60) as client:
                yield served, client
        finally:
            served.stop()


def _place_files(served: Served) -> None:
    """Add one package of many files to the first build."""
    entry = place_package(served.share, "huge", "1.0", FILES)
    path = served.share.build_path(str(builds(0)[0].build_id)) / "build.json"
    document = json.loads(path.read_text())
    document["distributions"].append({"name": "huge", "version": "1.0", "sha256": digest("huge")})
    document["entries"].append(entry)
    path.write_text(json.dumps(document))


def _counts(served: Served, client: httpx.Client, count: int) -> list[Row]:
    """Return the number of database statements for each page while nothing changes."""
    asked: list[str] = []
    event.listen(
        served.store.engine,
        "before_cursor_execute",
        lambda _c, _u, statement, *_: asked.append(statement),
    )
    rows = []
    for name, path in PAGES.items():
        client.get(path).raise_for_status()
        asked.clear()
        client.get(path).raise_for_status()
        rows.append(
            Row(
                f"pages, {count} instances",
                f"{name}: settled, statements",
                len(asked),
                "",
                f"≤ {STATEMENTS}",
                STATEMENTS,
                count=True,
            )
        )
    return rows


def _measure(served: Served, client: httpx.Client) -> list[Row]:
    rows = []
    client.get("/").raise_for_status()
    for name, path in PAGES.items():
        taken = [_timed(client, path) for _ in range(TURNS)]
        rows.append(_row(f"{name}: settled, median", statistics.median(taken)))
    ended = threading.Event()
    changing = threading.Thread(target=_changing, args=(served, ended))
    changing.start()
    for name in ("fleet", "instance"):
        taken = [_paced(client, PAGES[name]) for _ in range(TURNS)]
        rows.append(_row(f"{name}: changing, median", statistics.median(taken)))
    ended.set()
    changing.join()
    return rows


def _timed(client: httpx.Client, path: str) -> float:
    begun = time.perf_counter()
    client.get(path).raise_for_status()
    return (time.perf_counter() - begun) * 1000


def _paced(client: httpx.Client, path: str) -> float:
    time.sleep(0.1)
    return _timed(client, path)


def _changing(served: Served, ended: threading.Event) -> None:
    """Record a change of one instance every second."""
    lease = served.store.acquire("bench", 600)
    assert lease is not None
    while not ended.wait(1.0):
        record = served.store.load().instances[name_of(0)]
        served.store.write(
            lease, Change(instances=(replace(record, wait=Wait(WaitOn.WAVE, f"{time.time()}")),))
        )


def _row(measure: str, value: float) -> Row:
    return Row(f"pages, {INSTANCES} instances", measure, value, "ms", "≤ 50 ms", LIMIT)
