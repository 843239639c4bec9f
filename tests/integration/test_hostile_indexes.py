"""Pages, wheels and reports that take long to read only cost the build that asked for them."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reconciler import isolation
from reconciler.builder.index import proxy
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.index.simple_api import FILES_LIMIT, JSON, Page, Served, serve_page
from reconciler.builder.verify.readers import read_dag_errors, read_document
from reconciler.builder.verify.report import PATHS_LIMIT, PROBLEMS_LIMIT, Report
from reconciler.builder.wheels.contents import refuse_unsafe
from reconciler.core.definitions import Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed
from reconciler.isolation import Limits, Pool
from tests.fakes.answers import Answers
from tests.harness.wheels import make_wheel

ENDLESS = "endless-1.0-py3-none-any.whl"


def slow_page(page: Page, name: str, ours: str, sources: bool) -> Served:
    """Read as usual, but slowly for a page that represents the next quadratic surprise."""
    while ENDLESS.encode() in page.body:
        time.process_time()
    return serve_page(page, name, ours, sources)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    pool = Pool(Limits(cpu=1))
    monkeypatch.setattr(isolation, "shared_pool", lambda _: pool)
    yield pool
    pool.close()


def page_of(*names: str) -> bytes:
    rows = [{"filename": name, "url": name, "hashes": {}} for name in names]
    return json.dumps({"files": rows}).encode()


def asked(body: bytes, team: str = "red") -> tuple[httpx.Response, Indexes]:
    """Ask a team's indexes for a project's page to which their server answers `body`."""
    with Answers(body, {"Content-Type": JSON}) as upstream:
        indexes = Indexes(Recipe("x"), team, Path("/nowhere"), f"{upstream.url}/simple/")
        with indexes.serve(None) as url:
            answer = httpx.get(f"{url}a/", timeout=60)
        indexes.close()
    return answer, indexes


@pytest.mark.usefixtures("pool")
def test_a_page_that_takes_too_long_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "serve_page", slow_page)
    answer, indexes = asked(page_of(ENDLESS))
    assert answer.status_code == 403
    assert "CPU time" in answer.text
    assert "index default: the page of a cannot be read" in min(indexes.unreadable)
    answer, indexes = asked(page_of("a-1.0-py3-none-any.whl"))
    assert [row["filename"] for row in answer.json()["files"]] == ["a-1.0-py3-none-any.whl"]
    assert not indexes.unreadable


@pytest.mark.usefixtures("pool")
def test_a_page_names_so_many_files() -> None:
    answer, indexes = asked(page_of(*(f"a-{n}-py3-none-any.whl" for n in range(FILES_LIMIT + 1))))
    assert answer.status_code == 403
    assert f"more than {FILES_LIMIT} files" in min(indexes.unreadable)


@pytest.mark.usefixtures("pool")
def test_a_report_has_so_many_rows() -> None:
    """A report with more rows than the limit is refused, as the daemon would keep them all."""
    plain = {"modules": 1, "seconds": 1.0, "opens": 1, "files": 1, "fatal": [], "warnings": []}
    problem = {
        "kind": "import",
        "what": "a",
        "distribution": "",
        "error": "",
        "file": "",
        "line": 0,
        "traceback": "",
    }
    full = json.dumps({**plain, "warnings": [problem] * PROBLEMS_LIMIT}).encode()
    assert len(read_document("red", Report, full, "report").warnings) == PROBLEMS_LIMIT
    for more in (
        {"warnings": [problem] * (PROBLEMS_LIMIT + 1)},
        {"fatal": [problem] * (PROBLEMS_LIMIT + 1)},
        {"hot": [["a", ["b"] * PATHS_LIMIT]]},
    ):
        with pytest.raises(Malformed, match=r"report is invalid"):
            read_document("red", Report, json.dumps({**plain, **more}).encode(), "report")


@pytest.mark.usefixtures("pool")
def test_what_airflow_printed_is_read_elsewhere() -> None:
    rows = json.dumps([{"filepath": "/dags/a.py", "error": "no"}])
    assert read_dag_errors("red", f"a warning\n{rows}\n".encode()) == {"/dags/a.py": "no"}
    assert read_dag_errors("red", b"No data found\n") == {}
    assert read_dag_errors("red", b"[" * 100_000) is None
    assert read_dag_errors("red", b"[]\n" * 100_000) == {}


def test_metadata_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """It is read whole, and compresses well: 64 kB can expand to as many megabytes."""
    wheel = make_wheel(tmp_path, "a")
    with (
        zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a-1.0.dist-info/entry_points.txt", "w") as file,
    ):
        for _ in range(65):
            file.write(bytes(1 << 20))
    with pytest.raises(Stalled, match="metadata of more than 64 MiB") as caught:
        refuse_unsafe(wheel)
    assert caught.value.reason == Reason.UNSAFE_WHEEL
