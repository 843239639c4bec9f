"""What the CLI reads of the records without being the daemon.

It starts fast: nothing here imports what the daemon works with.
"""

from __future__ import annotations

from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.model import Records
from reconciler.settings import Settings
from reconciler.store.store import Store


def open_store(settings: Settings) -> Store:
    """The records, for reading and for queueing requests.

    Raises Stalled when there are none, as the daemon has never run with these settings; Retryable
    when there are none yet, or none of this version.
    """
    file = settings.database_file
    if file is not None and not file.exists():  # SQLite would make it
        raise Stalled(
            "NoRecords",
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
    """All records; what was accepted of the definitions is in them."""
    store = open_store(settings)
    try:
        return store.load()
    finally:
        store.close()
