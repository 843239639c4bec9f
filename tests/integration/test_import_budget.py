"""The import budget on a whole site: a regression in the history, a limit that refuses a build."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import ENVIRONMENT, TEAM, Site

MODULES = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a site with 1.0 active, and then a 2.0 that imports 60 more modules."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path_factory.mktemp("budget") / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        site.commit("2.0")
        grow(site.repo / "teams" / TEAM / "packages" / "acme" / "acme")
        site.save("more modules")
        assert site.once()[0] == 0
        yield site


def grow(package: Path) -> None:
    for number in range(MODULES):
        (package / f"m{number}.py").write_text(f"VALUE = {number}\n")


def history(site: Site) -> list[dict[str, Any]]:
    code, output = site.run("history", f"environment/{ENVIRONMENT}", "-o", "json")
    assert code == 0, output
    events: list[dict[str, Any]] = json.loads(output)
    return events


def test_history_shows_a_regression(site: Site) -> None:
    """Text and JSON have the number of files of the build before, and of this one."""
    first, second = [e for e in history(site) if e["kind"] == "BuildReady"]
    assert (first["reason"], first["data"]["import_before"]) == ("BuildReady", None)
    assert second["reason"] == "ImportRegression"
    before, after = first["data"]["import_files"], second["data"]["import_files"]
    assert after >= before + MODULES
    assert second["data"]["import_before"] == {
        "build": first["data"]["build"],
        **{m: first["data"][f"import_{m}"] for m in ("files", "opens", "bytes", "seconds")},
    }
    assert second["data"]["import_growth"]["files"] == round(after / before, 3)
    code, text = site.run("history", ENVIRONMENT)
    assert code == 0
    flat = " ".join(text.split())
    assert "[ImportRegression]" in flat
    assert f"{before} files → {after} files (+" in flat


def test_a_limit_refuses_the_build_and_a_higher_one_takes_it(site: Site) -> None:
    """The live build stays; the commit that raises the limit is enough."""
    (instance,) = site.status()["instances"]
    running = instance["build"]
    path = site.repo / "teams" / TEAM / f"{ENVIRONMENT}.yaml"
    text = path.read_text()

    def limit(files: int) -> int:
        path.write_text(f"{text}  checks:\n    importBudget:\n      files: {files}\n")
        site.save(f"at most {files} files")
        return site.once()[0]

    assert limit(20) == 1
    status = site.status()
    (environment,), (instance,) = status["environments"], status["instances"]
    assert (instance["build"], instance["phase"]) == (running, "Active")
    assert (environment["health"], environment["sync"]) == ("Healthy", "OutOfSync")
    problem = environment["builds"][0]["problem"]
    line = path.read_text().splitlines().index("      files: 20") + 1
    assert problem["reason"] == "ImportBudgetExceeded"
    assert f"teams/{TEAM}/{ENVIRONMENT}.yaml:{line}:" in problem["message"]
    assert "most of it by acme" in problem["message"]
    code, log = site.run("logs", ENVIRONMENT)
    assert code == 0
    assert "importBudget.files" in log
    assert limit(2000) == 0
    status = site.status()
    assert status["instances"][0]["build"] == running
    assert status["environments"][0]["health"] == "Healthy"
    kinds = [e["kind"] for e in history(site) if not e["kind"].startswith("Dags")]
    assert kinds[-2:] == ["EnvironmentAccepted", "BuildReady"]
