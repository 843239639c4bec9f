"""Checks of the promises on a site: those that hold at any moment, and those that hold at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from reconciler.core.event_codec import data_of
from reconciler.core.events import Event
from reconciler.core.model import BuildRecord, InstanceRecord, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.world import build_key
from tests.fakes.airflow_rest import PASSWORD, State
from tests.harness.local_daemon import ENVIRONMENT, INSTANCE, Site

ENDS = {"ActivationActive", "RolledBack", "ActivationAborted"}


class Asked(StrEnum):
    """Fate of the version that was committed last."""

    GOOD = "good"
    FAILS_LIVE = "fails on the live instance"
    FAILS_VERIFICATION = "fails verification"


def pointed_build(site: Site) -> str | None:
    """Return the build that the pointer names; an existing pointer must be readable."""
    pointer = site.share.pointer(INSTANCE)
    if pointer is None:
        assert not (site.share.instance_path(INSTANCE) / "pointer.json").exists()
        return None
    return next((named.build for named in pointer.builds.values()), None)


def check_always(site: Site, records: Records) -> None:
    """Check the promises that hold at any moment, while no daemon runs.

    The records can be read; the pointer names a complete and verified build, and one that is in
    quarantine only until the activation that put it there has rolled back.
    """
    assert not records.unreadable, records.unreadable
    build, record = pointed_build(site), records.instances[INSTANCE]
    assert record.runtime is not None
    assert build is not None, "the instance lost its build"
    assert site.share.verified(build, record.runtime.key), f"{build} is not verified"
    if record.activation is None:
        assert build not in _marks(record), f"{build} is in quarantine"


def check_at_rest(
    site: Site, records: Records, asked: Asked, before: str | None, restarted: bool = True
) -> None:
    """Check the promises that hold once nothing is left to do; `before` is the previous build.

    `restarted`: True if components have reported the builds that they loaded.
    """
    assert INSTANCE in records.instances, "the instance is not recorded"
    record, build = records.instances[INSTANCE], pointed_build(site)
    assert record.activation is None, record.activation
    assert record.current.build == build, (record.current.build, build)
    assert site.airflow.state.pools == State().pools, site.airflow.state.pools
    wanted = wanted_build(records)
    assert wanted is not None, "what was committed last is not recorded"
    failed = asked is Asked.FAILS_VERIFICATION
    assert wanted.phase is (BuildPhase.FAILED if failed else BuildPhase.READY), wanted
    expected = wanted.build_id if asked is Asked.GOOD else before
    assert build == expected, f"{build} is active instead of {expected}: {record.quarantines}"
    assert (wanted.build_id in _marks(record)) is (asked is Asked.FAILS_LIVE), record.quarantines
    last = {said["component"]: said["build"] for said in site.airflow.state.loaded}
    earlier = dict(record.earlier)
    other = {c: b for c, b in last.items() if b != build and b not in earlier.get(c, ())}
    assert not restarted or (last and not other), f"{build} is not what runs: {other}"


def wanted_build(records: Records) -> BuildRecord | None:
    """Return the record of the build that the accepted definition asks for."""
    environment = records.environments.get(ENVIRONMENT)
    runtime = records.instances[INSTANCE].runtime
    if environment is None or runtime is None:
        return None
    digest = environment.definition.recipe.digest
    return records.builds.get(build_key(ENVIRONMENT, digest, runtime.key))


def check_history(events: Sequence[Event]) -> None:
    """Check that each activation of a whole history ended at most once."""
    ends = Counter(
        data_of(event)["activation"] for event in events if event.kind in ENDS and data_of(event)
    )
    twice = [activation for activation, count in ends.items() if count > 1]
    assert not twice, f"activations that ended twice: {twice}"


def check_secrets(places: Iterable[Path]) -> None:
    """Check that the password of Airflow's API is in no file below these paths."""
    secret = PASSWORD.encode()
    for top in places:
        files = [top] if top.is_file() else top.rglob("*")
        for path in files:
            if path.is_file() and not path.is_symlink():
                assert secret not in path.read_bytes(), f"a secret is in {path}"


def _marks(record: InstanceRecord) -> set[str]:
    return {mark.build_id for mark in record.quarantines}
