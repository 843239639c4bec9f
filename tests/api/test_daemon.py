"""Pages and API of a real daemon: HTTP requests are carried out and appear in the history."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.airflow_rest import PASSWORD, FakeAirflow
from tests.harness.local_daemon import ENVIRONMENT, INSTANCE, TEAM, Site
from tests.harness.pages import OPERATOR, READER

TARGET = f"instance/{INSTANCE}"
AUTHORIZED = {"Authorization": f"Bearer {OPERATOR}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a site with two versions that became active one after the other."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path_factory.mktemp("pages") / "site", airflow)
        for version in ("1.0", "2.0"):
            site.commit(version)
            assert site.once()[0] == 0
        path = site.root / "secrets" / "api" / "tokens"
        path.parent.mkdir()
        path.write_text(
            "".join(
                f"{hashlib.sha256(token.encode()).hexdigest()} {role} {name}\n"
                for token, role, name in (
                    (READER, "read", "Team reader"),
                    (OPERATOR, "operate", "On-call engineer"),
                )
            )
        )
        yield site


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[httpx.Client]:
    """Yield a client without credentials, and run the daemon as a process."""
    log = site.root / "daemon.log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "reconciler.cli", "run"],
            env=site.environment(GROUNDCREW_HTTP__ENABLED="true", GROUNDCREW_HTTP__PORT="0"),
            stdout=out,
            stderr=out,
        )
    try:
        url = _address(log, daemon)
        with httpx.Client(base_url=url, timeout=20) as client:
            _until(lambda: client.get("/readyz").status_code == 200)
            yield client
            with httpx.stream("GET", f"{url}/stream", headers=AUTHORIZED) as stream:
                next(stream.iter_lines())
                begun = time.monotonic()
                daemon.terminate()
                assert daemon.wait(timeout=60) == 0, log.read_text()
                assert time.monotonic() - begun < 20, "an open stream held up the daemon's end"
    finally:
        daemon.kill()
        daemon.wait(timeout=60)
    assert OPERATOR not in log.read_text()
    assert PASSWORD not in log.read_text()


def _address(log: Path, daemon: subprocess.Popen[bytes]) -> str:
    def listens() -> bool:
        assert daemon.poll() is None, log.read_text()
        return "listening on" in log.read_text()

    _until(listens)
    return log.read_text().split("listening on ")[1].split()[0]


def _until(true: object, seconds: float = 60.0) -> None:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def happened(http: httpx.Client, kind: str, name: str = TARGET) -> list[dict[str, object]]:
    events = http.get(
        "/api/v1/history", params={"object": name, "kind": kind}, headers=AUTHORIZED
    ).json()
    assert isinstance(events, list)
    return events


def test_what_the_api_asks_for_is_done_by_whoever_leads(http: httpx.Client) -> None:
    """Suspend and resume: carried out, shown, and in history under the token's name."""
    for verb, kind, suspended in (("suspend", "Suspended", True), ("resume", "Resumed", False)):
        asked = http.post(
            "/api/v1/requests", json={"verb": verb, "target": TARGET}, headers=AUTHORIZED
        )
        assert asked.status_code == 202
        _until(lambda: http.get("/api/v1/requests", headers=AUTHORIZED).json() == [])
        (event,) = happened(http, kind)
        data = event["data"]
        assert isinstance(data, dict)
        assert data.pop("request") > 0
        assert data == {"who": "On-call engineer (HTTP)"}
        _until(
            lambda wanted=suspended: (
                http.get(f"/api/v1/instances/{INSTANCE}", headers=AUTHORIZED).json()["suspended"]
                is wanted
            )
        )


def test_a_rollback_from_the_page_goes_all_the_way(site: Site, http: httpx.Client) -> None:
    """The form, the rollback, the pointer, and the page that shows it."""
    page = f"/instances/{INSTANCE}"
    with httpx.Client(base_url=http.base_url, timeout=20) as person:
        login = person.get("/login").text
        token = re.search(r'name="csrf" value="([^"]+)"', login)
        assert token is not None
        form = {"csrf": token[1], "token": OPERATOR, "next": page}
        assert person.post("/login", data=form).headers["location"] == page
        before = http.get(f"/api/v1{page}", headers=AUTHORIZED).json()["build"]
        assert f"Takes {INSTANCE} back to build {_previous(site)[:8]}" in person.get(page).text
        done = person.post("/act", data={**form, "verb": "rollback", "target": TARGET})
        assert done.status_code == 303

        def back() -> bool:
            instance = http.get(f"/api/v1{page}", headers=AUTHORIZED).json()
            return bool(instance["build"] != before and instance["phase"] == "Active")

        _until(back)
        shown = person.get(page).text
    assert "has been in quarantine here" in shown
    assert "by On-call engineer (HTTP)" in shown
    pointer = site.share.pointer(INSTANCE)
    assert pointer is not None
    (named,) = pointer.builds.values()
    assert named.build != before


def _previous(site: Site) -> str:
    store = site.store()
    previous = store.load().instances[INSTANCE].previous.build
    store.close()
    assert previous is not None
    return previous


def test_a_real_build_is_shown_with_all_that_it_has(http: httpx.Client) -> None:
    """Lock, SBOM, log, import budget, packages and their files, as the builder made them."""
    environment = http.get(f"/api/v1/environments/{ENVIRONMENT}", headers=AUTHORIZED).json()
    (build,) = environment["builds"]
    page = http.get(f"/builds/{build['key']}", headers=AUTHORIZED).text
    assert TEAM in page
    assert "acme 2.0" in page
    assert re.search(r"for all \d+ modules, \d+ files in \d+ opens, [\d.]+ \w+", page)
    assert "verified:" in page
    for document, text in (("lock", "lock-version"), ("sbom", "CycloneDX"), ("log", "verified:")):
        answer = http.get(f"/api/v1/builds/{build['key']}/{document}", headers=AUTHORIZED)
        assert answer.status_code == 200
        assert text in answer.text
    files = http.get(f"/api/v1/builds/{build['key']}/files?package=acme", headers=AUTHORIZED).json()
    paths = [file["path"] for file in files["files"]]
    assert {"acme/__init__.py", "acme-2.0.dist-info/RECORD"} <= set(paths)
    assert f'href="/builds/{build["key"]}/files?package=acme"' in page


def test_no_secret_is_on_any_page(site: Site, http: httpx.Client) -> None:
    """Neither the Airflow password nor a token is visible to anybody."""
    build = http.get(f"/api/v1/environments/{ENVIRONMENT}", headers=AUTHORIZED).json()["builds"][0]
    for path in (
        "/",
        "/environments",
        "/events",
        f"/instances/{INSTANCE}",
        f"/environments/{ENVIRONMENT}",
        f"/builds/{build['key']}",
        f"/builds/{build['key']}/log",
        "/api/v1/status",
        "/api/v1/history?limit=1000",
        "/metrics",
    ):
        answer = http.get(path, headers=AUTHORIZED)
        assert answer.status_code == 200, path
        for secret in (PASSWORD, OPERATOR, READER, hashlib.sha256(READER.encode()).hexdigest()):
            assert secret not in answer.text, path
