"""Access to the records for the CLI, outside the daemon.

It starts fast: nothing here imports the modules of the daemon's work.
"""

from __future__ import annotations

from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.model import Records
from reconciler.core.reasons import Reason
from reconciler.settings import Settings
from reconciler.store.store import Store

UNCONFINED = "builds-unconfined"
"""Named text of the records: why the daemon's builds are not confined, or empty."""


def open_store(settings: Settings) -> Store:
    """Return the store, for reading and for queueing requests.

    Raises Stalled if the daemon has never run with these settings, and Retryable if there are no
    records yet, or none of this version.
    """
    file = settings.database_file
    if file is not None and not file.exists():  # SQLite would create it
        raise Stalled(
            Reason.NO_RECORDS,
            f"{file} does not exist: no daemon has run with these settings; start one with "
            f"`groundcrew run`, or point GROUNDCREW_STATE_DIR at its state directory",
        )
    store = Store(settings.database_url)
    try:
        store.check()
    except GroundcrewError:
        store.close()
        raise
    return store


def current(settings: Settings) -> Records:
    """Return all records, including the accepted definitions."""
    store = open_store(settings)
    try:
        return store.load()
    finally:
        store.close()


def unconfined_builds(settings: Settings, records: Records) -> str:
    """Return why nothing confines builds for local instances; empty where they are confined."""
    if all(r.definition.local is None for r in records.instances.values()):
        return ""
    store = open_store(settings)
    try:
        return store.named(UNCONFINED) or ""
    finally:
        store.close()
