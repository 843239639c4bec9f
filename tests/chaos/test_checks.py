"""Tests of the soak test's checks: each one fails if its promise is broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.events import EventKind
from reconciler.core.model import Quarantine, Records
from reconciler.core.reasons import Reason
from tests.fakes.airflow_rest import PASSWORD, FakeAirflow, State
from tests.fakes.events import event as stored_event
from tests.harness.local_daemon import INSTANCE, Site
from tests.harness.promises import (
    Asked,
    check_always,
    check_at_rest,
    check_history,
    check_secrets,
    pointed_build,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with FakeAirflow() as airflow:
        site = Site(tmp_path_factory.mktemp("checks") / "site", airflow)
        site.commit("1.0")
        code, output = site.once()
        assert code == 0, output
        yield site


@pytest.fixture
def records(site: Site) -> Records:
    store = site.store()
    records = store.load()
    store.close()
    return records


def with_mark(records: Records, build: str) -> Records:
    instance = records.instances[INSTANCE]
    mark = Quarantine(build, "", Reason.RESTART_FAILED, "it does not start", 1.0)
    marked = replace(instance, quarantines=(mark,))
    return replace(records, instances={INSTANCE: marked})


def test_a_sound_site_passes(site: Site, records: Records) -> None:
    check_always(site, records)
    check_at_rest(site, records, Asked.GOOD, None)
    check_secrets([site.root / "share", site.root / "state"])


def test_a_pointer_to_a_build_in_quarantine_is_seen(site: Site, records: Records) -> None:
    marked = with_mark(records, pointed_build(site) or "")
    with pytest.raises(AssertionError, match="quarantine"):
        check_always(site, marked)
    with pytest.raises(AssertionError):
        check_at_rest(site, marked, Asked.GOOD, None)


def test_a_build_without_its_mark_of_verification_is_seen(site: Site, records: Records) -> None:
    folder = site.share.build_path(pointed_build(site) or "") / "verified"
    kept = folder.with_name("kept")
    folder.rename(kept)
    try:
        with pytest.raises(AssertionError, match="not verified"):
            check_always(site, records)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)


def test_pools_that_were_not_restored_are_seen(site: Site, records: Records) -> None:
    site.airflow.state.pools["small"] = 0
    try:
        with pytest.raises(AssertionError, match="small"):
            check_at_rest(site, records, Asked.GOOD, None)
    finally:
        site.airflow.state.pools = State().pools


def test_another_build_than_expected_is_seen(site: Site, records: Records) -> None:
    with pytest.raises(AssertionError):
        check_at_rest(site, records, Asked.FAILS_LIVE, None)
    with pytest.raises(AssertionError):
        check_at_rest(site, records, Asked.FAILS_VERIFICATION, None)


def test_a_component_on_another_build_is_seen(site: Site, records: Records) -> None:
    site.airflow.state.loaded.append({"component": "scheduler", "build": "none"})
    try:
        with pytest.raises(AssertionError, match="what runs"):
            check_at_rest(site, records, Asked.GOOD, None)
    finally:
        site.airflow.state.loaded.pop()


def test_an_activation_that_ends_twice_is_seen() -> None:
    data = {"activation": "one"}
    once = stored_event(1.0, "ActivationActive", f"instance/{INSTANCE}", "red", "", "", data=data)
    check_history([once])
    with pytest.raises(AssertionError, match="twice"):
        check_history([once, replace(once, kind=EventKind.ROLLED_BACK)])


def test_a_secret_in_a_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"login with {PASSWORD}")
    with pytest.raises(AssertionError, match="secret"):
        check_secrets([tmp_path])
