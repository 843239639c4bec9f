"""Checks of the daemon's own disk, its database, and the database's clock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.daemon.open_records import current, open_store
from reconciler.daemon.share import SHARE
from reconciler.doctor.findings import Check, Finding, Level, failed, good, off
from reconciler.doctor.share import NETWORK, mounted, space
from reconciler.settings import Settings
from reconciler.store.errors import translating
from reconciler.store.store import Store

SKEW = 5.0  # seconds; half of the shortest useful lease
REFUSED = (
    "password authentication",
    "no password supplied",
    "pg_hba",
    "does not exist",
    "permission denied",
    "role ",
)


def look_state(settings: Settings) -> Iterator[Finding]:
    """Check that the state directory is writable, suits SQLite, and has space for the cache."""
    path = settings.state_dir
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            Check.STATE,
            str(path),
            Level.WRONG,
            Reason.STATE_UNWRITABLE,
            f"{there} cannot be written",
            "give it to the daemon's user, or set state_dir "
            "(GROUNDCREW_STATE_DIR); run this as the daemon's user",
        )
        return
    kind, _ = mounted(there)
    troubles = []
    if not settings.database and kind in NETWORK:
        troubles.append(
            Finding(
                Check.STATE,
                str(path),
                Level.WRONG,
                Reason.STATE_REMOTE,
                f"SQLite lies on {kind}, where its locks may not hold",
                "put state_dir on a local disk or block volume, or use PostgreSQL (database)",
            )
        )
    cache = settings.cache_dir
    disk = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    usage = shutil.disk_usage(disk)
    troubles += space(Check.STATE, str(cache), usage.total, usage.free)
    yield from troubles
    if not troubles:
        yield good(Check.STATE, str(path), f"it can be written ({kind or 'unknown'})")


def look_database(settings: Settings) -> Iterator[Finding]:
    """Check that the database responds, accepts writes, has this version and is intact."""
    file = settings.database_file
    if file is not None and not file.exists():
        yield off(
            Check.DATABASE,
            str(file),
            "there is none yet: no daemon has run with these settings",
            "start one with `groundcrew run`",
        )
        return
    try:
        store = Store(settings.database_url)
    except Stalled as error:
        message, _, mend = error.message.partition(": ")
        yield Finding(Check.DATABASE, "database", Level.WRONG, error.reason, message, mend)
        return
    about = store.engine.url.render_as_string(hide_password=True)
    try:
        yield from _ask(store, about, file is not None)
    except Retryable as error:
        message = " ".join(error.message.split())
        if any(mark in message for mark in REFUSED):
            mend = "mend user, password and name in the setting database, and its rights there"
            yield Finding(Check.DATABASE, about, Level.WRONG, Reason.DATABASE_DENIED, message, mend)
        else:
            yield failed(Check.DATABASE, about, Retryable(error.reason, message))
    finally:
        store.close()


def _ask(store: Store, about: str, sqlite: bool) -> Iterator[Finding]:
    with translating(about), store.engine.connect() as connection:
        check = "PRAGMA quick_check(1)" if sqlite else "SHOW transaction_read_only"
        said = str(connection.exec_driver_sql(check).scalar_one())
    began = time.time()
    clock = store.clock()
    ended = time.time()
    troubles = list(_standing(about, said, sqlite))
    try:
        version = store.schema()
    except Stalled as error:
        troubles.append(failed(Check.DATABASE, about, error))
    else:
        if version is None:
            message = "it has no tables yet; the daemon makes them when it starts"
            troubles.append(off(Check.DATABASE, about, message, "start one with `groundcrew run`"))
    yield from troubles
    if not troubles:
        leader = store.leader()
        led = f"{leader} leads" if leader else "no daemon runs now"
        yield good(Check.DATABASE, about, f"it answers, with schema {version}; {led}")
    yield _time(about, clock, began, ended)


def _standing(about: str, said: str, sqlite: bool) -> Iterator[Finding]:
    if sqlite and said != "ok":
        yield Finding(
            Check.DATABASE,
            about,
            Level.WRONG,
            Reason.DATABASE_DAMAGED,
            f"it is damaged: {said[:200]}",
            "restore a backup, or move it away: an empty database adopts what is on the share",
        )
    if not sqlite and said == "on":
        yield Finding(
            Check.DATABASE,
            about,
            Level.WRONG,
            Reason.DATABASE_READ_ONLY,
            "it takes no writes",
            "name the primary in the setting database, not a standby",
        )


def _time(about: str, clock: float, began: float, ended: float) -> Finding:
    """Compare the database's clock, which times the lease, with this machine's."""
    skew = clock - ended if clock > ended else min(0.0, clock - began)
    if abs(skew) <= SKEW:
        return good(Check.CLOCK, about, f"this machine's clock agrees within {SKEW:.0f} s")
    return Finding(
        Check.CLOCK,
        about,
        Level.WRONG,
        Reason.CLOCK_SKEW,
        f"the database's clock differs by {skew:+.1f} s from this machine's",
        "let both machines keep time by NTP; times of windows and heartbeats are compared",
    )


def known_share_id(settings: Settings) -> str:
    """Return the id of the share that the records belong to, "" if they know none."""
    try:
        store = open_store(settings)
    except GroundcrewError:  # said by the check of the database
        return ""
    try:
        return store.named(SHARE) or ""
    finally:
        store.close()


def look_instance(settings: Settings, name: str) -> Iterator[Finding]:
    """Check what the daemon has seen of an instance's processes and of its part of the share."""
    about = f"instance/{name}"
    try:
        record = current(settings).instances.get(name)
    except GroundcrewError:  # said by the check of the database
        record = None
    if record is None:
        yield off(Check.PROCESSES, about, "the daemon has not seen it yet")
        return
    troubles = []
    if record.drift is not None:
        troubles.append((Reason.DRIFTED, record.drift.message))
    if record.processes.problem is not None:
        troubles.append((record.processes.problem.reason, record.processes.problem.message))
    for reason, message in troubles:
        mend = "see the runbook GroundcrewDrifted"
        yield Finding(Check.PROCESSES, about, Level.WRONG, reason, message, mend)
    remote = record.processes.remote if record.current.build is not None else ""
    if remote:
        yield Finding(
            Check.PROCESSES,
            about,
            Level.WARNING,
            Reason.READ_FROM_SHARE,
            remote,
            "give them a folder for packs on a local disk, see GROUNDCREW_LOCAL in docs/share.md",
        )
    if not troubles and not record.processes.count:
        yield off(Check.PROCESSES, about, "no component has proven yet what it has loaded")
    elif not troubles and not remote:
        summary = f"{record.processes.count} processes have proven that they run what is recorded"
        yield good(Check.PROCESSES, about, summary)
