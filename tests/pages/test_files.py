"""The files of a build: all are found, however many there are, wherever their package is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from reconciler.builder.wheels.contents import unpack
from reconciler.builder.wheels.download import entry_digest
from reconciler.builder.wheels.overlap import merge, merged_digest
from reconciler.core.model import BuildRecord
from reconciler.share.share import Share
from tests.fakes.fleet import MARKUP, PACKAGES, builds, digest, place_package
from tests.harness.pages import Served
from tests.harness.wheels import make_wheel

READY, BUILDING = builds(0)[0], builds(7)[0]
MANY = 20_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"), 12, read="anyone")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.start(), timeout=30) as client:
        yield client


def of(package: str | None = None, build: BuildRecord = READY, **more: Any) -> str:
    """Return the address of the files, relative to the root of the API or of the pages."""
    given: dict[str, Any] = {"package": package, **more}
    return f"/builds/{build.key}/files?{httpx.QueryParams({k: v for k, v in given.items() if v})}"


def asked(http: httpx.Client, path: str) -> dict[str, Any]:
    answer = http.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@contextmanager
def rebuilt(share: Share, **changes: object) -> Iterator[None]:
    """Replace the build.json of READY for a while."""
    path = share.build_path(str(READY.build_id)) / "build.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **changes}))
    try:
        yield
    finally:
        path.write_text(before)


def test_every_package_leads_to_its_files(http: httpx.Client) -> None:
    """Each name on the build's page is a link; the list is that of the RECORD."""
    page = http.get(f"/builds/{READY.key}").text
    for name, _ in PACKAGES:
        assert f'href="{of(name)}"' in page
        listing = asked(http, of(name))
        assert (listing["total"], len(listing["files"])) == (61, 61)
        assert {"path": f"{name}/__init__.py", "bytes": 2400} in listing["files"]
        assert listing["bytes"] == sum(f["bytes"] or 0 for f in listing["files"])
        assert f"{name}/part1/module_1.py" in http.get(of(name)).text


def test_the_definitions_own_files_are_listed(http: httpx.Client, served: Served) -> None:
    """A jar has its size, and its place on the share."""
    assert f'href="/builds/{READY.key}/files"' in http.get(f"/builds/{READY.key}").text
    listing = asked(http, of())
    assert listing["files"] == [{"path": "jars/postgresql-42.7.4.jar", "bytes": 1_000_000}]
    assert (served.share.root / listing["where"] / listing["files"][0]["path"]).is_file()
    assert "977 KiB" in http.get(of()).text


def test_a_real_wheel_is_listed_packed_spread_and_merged(
    http: httpx.Client, served: Served, tmp_path: Path
) -> None:
    """The files are the same in each state of the store entry; names have odd characters."""
    share, odd = served.share, 'real/a, "b" <b>.txt'
    files = {"real/__init__.py": "x = 1\n", "real/<script>.py": ""}
    files["real-1.0.data/scripts/real-tool"] = "#!python\n"
    folders = []
    for wheel in (
        make_wheel(tmp_path, "real", files=files),
        make_wheel(tmp_path, "other", files={"real/more.py": ""}),
    ):
        name = wheel.name.partition("-")[0]
        folders.append(tmp_path / name)
        unpack(wheel, name, folders[-1], lambda _: None)
    with (folders[0] / "lib/real-1.0.dist-info/RECORD").open("a") as record:
        record.write('"real/a, ""b"" <b>.txt",sha256=x,5\r\n')
    digests = [entry_digest(digest(name), "cp311") for name in ("real", "other")]
    both = merged_digest(tuple(digests))
    merge(folders, tmp_path / "both")
    share.put_whole(digests[0], folders[0], {})
    share.put_whole(both, tmp_path / "both", {})
    rows = [{"name": n, "version": "1.0", "sha256": digest(n)} for n in ("real", "other")]
    for entry in (digests[0], both):
        with rebuilt(share, distributions=rows, entries=[entry], paths=[]):
            packed = asked(http, of("real"))
            share.spread([entry], lambda: None)
            assert asked(http, of("real")) == packed
            page = http.get(of("real")).text
        assert {f["path"]: f["bytes"] for f in packed["files"]} == {
            "real/__init__.py": 6,
            "real/<script>.py": 0,
            odd: 5,
            "../bin/real-tool": (folders[0] / "bin/real-tool").stat().st_size,
            "real-1.0.dist-info/METADATA": ANY,
            "real-1.0.dist-info/WHEEL": ANY,
            "real-1.0.dist-info/INSTALLER": 11,
            "real-1.0.dist-info/RECORD": None,
        }
        assert packed["where"] == f"store/sha256/{entry[:2]}/{entry}/lib"
        assert "real/&lt;script&gt;.py" in page
        assert "<script>.py" not in page
        assert "a, &#34;b&#34; &lt;b&gt;.txt" in page


def test_twenty_thousand_files_are_turned_page_by_page(http: httpx.Client, served: Served) -> None:
    """Each file is on one page and in one answer of the API (benchmarks.pages has the time)."""
    entry = place_package(served.share, "huge", "1.0", MANY)
    rows = [{"name": "huge", "version": "1.0", "sha256": digest("huge")}]
    with rebuilt(served.share, distributions=rows, entries=[entry], paths=[]):
        pages, seen, path = 0, 0, of("huge")
        while path:
            page = http.get(path).text
            pages += 1
            seen += page.count("huge/part")
            path = page.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        assert "20,001 files" in page
        last = asked(http, of("huge", offset=MANY, limit=10))
        beyond = asked(http, of("huge", offset=MANY + 1))
        assert http.get(of("huge", page=99)).status_code == 200
        assert http.get(f"/api/v1{of('huge', limit=10_001)}").status_code == 422
    assert (pages, seen) == (41, MANY - 1)
    assert [f["path"] for f in last["files"]] == ["huge-1.0.dist-info/RECORD"]
    assert (beyond["files"], beyond["total"]) == ([], MANY + 1)


@pytest.mark.parametrize(
    ("package", "build", "words"),
    [
        ("nosuch", READY, "installs no package nosuch"),
        (MARKUP, READY, "installs no package"),
        ("pandas", BUILDING, "has no files yet"),
        ("pandas", builds(0)[1], "is not on the share"),
    ],
)
def test_what_there_is_not_is_said_in_words(
    package: str, build: BuildRecord, words: str, http: httpx.Client
) -> None:
    """An unknown package, a build that is not ready, and a collected build give 404."""
    for root in ("", "/api/v1"):
        answer = http.get(root + of(package, build))
        assert answer.status_code == 404
        assert words in answer.text
        if not root:
            assert "<script>alert" not in answer.text


def test_a_store_entry_that_is_missing_is_said_in_words(http: httpx.Client, served: Served) -> None:
    """Its files give 404; the build's page still works."""
    entry = entry_digest(digest("duckdb"), "cp311")
    folder = served.share.entry(entry)
    folder.rename(folder.with_name("away"))
    try:
        answer = http.get(of("duckdb"))
        assert answer.status_code == 404
        assert f"store entry {entry[:12]} is not on the share" in answer.text
        assert http.get(f"/api/v1{of('duckdb')}").status_code == 404
        assert http.get(f"/builds/{READY.key}").status_code == 200
        assert http.get(of("pandas")).status_code == 200
    finally:
        folder.with_name("away").rename(folder)
    info = next((folder / "lib").iterdir())
    shutil.move(info, served.root / "info")
    assert "has a RECORD of duckdb" in http.get(of("duckdb")).text
    shutil.move(served.root / "info", info)


@pytest.mark.parametrize("broken", [{"entries": 3}, {"paths": "x"}, {"distributions": [1, {}]}])
def test_a_broken_build_json_is_no_error_of_ours(
    broken: dict[str, object], http: httpx.Client, served: Served
) -> None:
    """There is a message instead of a 500, on the build's page too."""
    with rebuilt(served.share, **broken):
        assert http.get(f"/builds/{READY.key}").status_code == 200
        assert http.get(of("pandas")).status_code in (200, 404)
        assert http.get(of()).status_code in (200, 404)
