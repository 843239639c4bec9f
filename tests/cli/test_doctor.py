"""Command `groundcrew doctor` on a real site: findings, messages, and no changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.airflow_rest import PASSWORD, FakeAirflow, State
from tests.fakes.receiver import Receiver, Said
from tests.harness.local_daemon import BAD_IMPORT, INSTANCE, TEAM, Site

Row = dict[str, str]
KEYS = {"check", "object", "level", "reason", "message", "mend"}


def doctor(site: Site, *checks: str) -> tuple[int, list[Row]]:
    """Return (exit code, findings)."""
    code, output = site.run("doctor", *checks, "-o", "json")
    assert PASSWORD not in output
    findings: list[Row] = json.loads(output)
    assert all(set(row) == KEYS for row in findings)
    for row in findings:
        if row["level"] in ("warning", "wrong", "unreachable"):
            assert row["mend"], row
    return code, findings


def only(found: list[Row], check: str) -> Row:
    """Return the only finding of a check."""
    (row,) = [row for row in found if row["check"] == check]
    return row


@pytest.fixture
def airflow_state(airflow: FakeAirflow) -> Iterator[State]:
    """Yield Airflow's state, and undo a test's changes."""
    kept = replace(airflow.state, heartbeats=dict(airflow.state.heartbeats))
    yield airflow.state
    airflow.state = kept


@pytest.fixture
def secret(site: Site) -> Iterator[Path]:
    """Yield the secret of Airflow's API, which is restored when the test ends."""
    folder = site.root / "secrets" / TEAM / "airflow"
    kept = {path: path.read_text() for path in folder.iterdir()}
    yield folder
    folder.mkdir(exist_ok=True)
    for path, text in kept.items():
        path.write_text(text)


# ------------------------------------------------------------------------------------ a sound site


def test_a_sound_site_is_all_ok_and_stays_as_it_was(site: Site, airflow: FakeAirflow) -> None:
    """Exit 0; no pool was touched, nothing is left on the share, the database has no new event."""
    patched, share = list(airflow.state.patched), sorted(site.share.root.rglob("*"))
    store = site.store()
    before = store.last_event_id()
    code, findings = doctor(site)
    assert code == 0, findings
    findings = [row for row in findings if row["reason"] != "Filling"]  # of the tests' machine
    assert {row["level"] for row in findings} == {"ok", "off"}
    looked = {row["check"] for row in findings if row["level"] == "ok"} | {"state", "share"}
    assert looked == {"state", "share", "git", "database", "clock", "sandbox", "local", "airflow"}
    assert airflow.state.patched == patched
    assert "groundcrew-doctor-there-is-no-such-pool" not in airflow.state.pools
    assert sorted(site.share.root.rglob("*")) == share
    assert store.last_event_id() == before
    store.close()


def test_the_table_says_what_to_mend(site: Site, secret: Path) -> None:
    """A line for each finding, and the advice below it."""
    (secret / "password").write_text("another")
    code, output = site.run("doctor", "airflow")
    assert code == 1
    assert "LEVEL" in output
    assert "[AirflowDenied] renew username and password" in output
    assert "1 wrong" in output


def test_just_the_named_checks_are_shown(site: Site) -> None:
    """They keep their own order; a misspelt name gets a suggestion."""
    code, findings = doctor(site, "airflow", "share")
    assert code == 0
    assert [row["check"] for row in findings] == ["share", "airflow"]
    code, output = site.run("doctor", "airflwo")
    assert code == 2
    assert "did you mean airflow?" in output
    code, findings = doctor(site, "clock")
    assert (code, {row["check"] for row in findings}) == (0, {"clock"})


# --------------------------------------------------------------------------------- Airflow's API


def test_credentials_that_are_refused(site: Site, secret: Path) -> None:
    (secret / "password").write_text("another")
    code, findings = doctor(site, "airflow")
    row = only(findings, "airflow")
    assert (code, row["level"], row["reason"]) == (1, "wrong", "AirflowDenied")
    assert row["object"] == f"instance/{INSTANCE}"


def test_credentials_that_are_missing(site: Site, secret: Path) -> None:
    """The files to write are named."""
    shutil.rmtree(secret)
    code, findings = doctor(site, "airflow")
    row = only(findings, "airflow")
    assert (code, row["reason"]) == (1, "CredentialsMissing")
    assert str(secret) in row["mend"]


def test_credentials_that_may_only_read(site: Site, airflow_state: State) -> None:
    """Everything can be read, but pools cannot be changed: detected without changing one."""
    airflow_state.fault, airflow_state.fault_on = "403", "groundcrew-doctor"
    code, findings = doctor(site, "airflow")
    row = only(findings, "airflow")
    assert (code, row["reason"]) == (1, "AirflowRightsMissing")
    assert row["message"].endswith("may not change pools")
    assert "Op" in row["mend"]


@pytest.mark.parametrize(
    ("fault", "reason", "code"),
    [
        ("drop", "AirflowUnreachable", 3),
        ("html", "AirflowUnexpected", 1),
        ("500", "AirflowUnexpected", 1),
    ],
)
def test_an_airflow_that_does_not_answer_well(
    fault: str, reason: str, code: int, site: Site, airflow_state: State
) -> None:
    """Unreachable is 3; an unexpected answer is 1."""
    airflow_state.fault = fault
    found_code, findings = doctor(site, "airflow")
    assert (found_code, only(findings, "airflow")["reason"]) == (code, reason)


def test_an_airflow_that_is_sick_is_a_warning(site: Site, airflow_state: State) -> None:
    """Exit 0: it is Airflow's own problem, and reported."""
    airflow_state.unhealthy = {"scheduler"}
    code, findings = doctor(site, "airflow")
    row = only(findings, "airflow")
    assert (code, row["level"], row["reason"]) == (0, "warning", "AirflowUnhealthy")
    assert "scheduler" in row["message"]


def test_a_clock_of_airflow_that_is_ahead(site: Site, airflow_state: State) -> None:
    """Its newest heartbeat is in the future; reported as a clock problem."""
    airflow_state.heartbeats["scheduler"] += 1e6
    code, findings = doctor(site)
    wrong = [row for row in findings if row["level"] == "wrong"]
    assert (code, [(r["check"], r["reason"]) for r in wrong]) == (1, [("clock", "ClockSkew")])


def test_an_airflow_2(tmp_path: Path) -> None:
    """It has basic authentication and /health."""
    with FakeAirflow("2") as airflow:
        site = Site(tmp_path / "site", airflow)
        (site.root / "home").mkdir()
        site.commit("1.0")
        code, findings = doctor(site, "airflow", "local")
        assert (code, {row["level"] for row in findings}) == (0, {"ok"}), findings
        site.airflow.state.fault, site.airflow.state.fault_on = "403", "groundcrew-doctor"
        assert only(doctor(site, "airflow")[1], "airflow")["reason"] == "AirflowRightsMissing"


def test_executables_that_the_settings_do_not_allow(site: Site, config: Path) -> None:
    """Reported with the file that names them."""
    config.write_text(config.read_text().replace('"/usr/bin/env", ', ""))
    code, findings = doctor(site, "local")
    row = only(findings, "local")
    assert (code, row["reason"]) == (1, "NotAllowed")
    assert f"instances/{INSTANCE}.yaml" in row["message"]


# -------------------------------------------------------------------------------------------- git


def git_url(config: Path, site: Site, url: str, more: str = "") -> None:
    """Make the settings name another repo."""
    text = config.read_text().replace(f'url = "{site.repo}"', f'url = "{url}"\n{more}')
    assert url in text
    config.write_text(text)


def test_a_repo_that_is_not_reached_is_3(site: Site, config: Path) -> None:
    """The instances in the records are still checked."""
    git_url(config, site, "https://127.0.0.1:9/environments.git")
    code, findings = doctor(site)
    assert (code, only(findings, "git")["reason"]) == (3, "SourceUnreachable")
    assert only(findings, "airflow")["level"] == "ok"


def test_a_repo_that_refuses_the_credentials(site: Site, config: Path) -> None:
    receiver = Receiver(lambda method, path, body: Said(401, {"WWW-Authenticate": "Basic"}))
    more = 'allow_schemes = ["http"]'
    git_url(config, site, f"{receiver.root}/environments.git", more)
    code, findings = doctor(site, "git")
    assert (code, only(findings, "git")["reason"]) == (1, "SourceDenied")
    receiver.close()


def test_a_repo_without_the_branch(site: Site, config: Path) -> None:
    git_url(config, site, str(site.repo), 'branch = "production"')
    code, findings = doctor(site, "git")
    assert (code, only(findings, "git")["reason"]) == (1, "BranchMissing")


def test_no_repo_in_the_settings(site: Site, config: Path) -> None:
    git_url(config, site, "")
    code, findings = doctor(site, "git")
    row = only(findings, "git")
    assert (code, row["reason"]) == (1, "SourceMissing")
    assert "git.url" in row["mend"]


def test_mistakes_in_definitions_are_a_warning(tmp_path: Path, airflow: FakeAirflow) -> None:
    """The file is named; an instance in another file is still checked."""
    site = Site(tmp_path / "site", airflow)
    site.commit("1.0", BAD_IMPORT, requirements=["acme @ ./packages/nowhere"])
    code, findings = doctor(site, "git", "airflow")
    rows = [row for row in findings if row["check"] == "git"]
    assert (code, [row["reason"] for row in rows]) == (0, ["Good", "DefinitionsWrong"])
    assert f"teams/{TEAM}/one.yaml" in rows[1]["message"]
    assert only(findings, "airflow")["level"] == "ok"


def test_an_index_without_its_credentials(tmp_path: Path, airflow: FakeAirflow) -> None:
    """Wrong until the secret exists."""
    site = Site(tmp_path / "site", airflow)
    index: dict[str, Any] = {
        "name": "corp",
        "url": "https://pypi.corp.example/simple/",
        "packages": ["acme-*"],
        "credentials": "corp-pypi",
    }
    site.commit("1.0", indexes=[index])
    code, findings = doctor(site, "index")
    assert (code, only(findings, "index")["reason"]) == (1, "CredentialsMissing")
    secret = site.root / "secrets" / TEAM / "corp-pypi"
    secret.mkdir()
    (secret / "token").write_text("t0ken")
    code, findings = doctor(site, "index")
    assert (code, only(findings, "index")["level"]) == (0, "ok")
