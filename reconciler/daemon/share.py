"""The share that the records belong to."""

from __future__ import annotations

from reconciler.share.marker import Known
from reconciler.share.share import Share
from reconciler.store.store import Store

SHARE = "share"  # the named text of the records that holds the id of their share


def known_share(store: Store) -> Known:
    """Return what the records know of their share."""
    records = store.load()
    used = any(
        i.current.build or i.previous.build or i.activation for i in records.instances.values()
    )
    return Known(store.named(SHARE) or "", used or any(b.build_id for b in records.builds.values()))


def prepare_share(share: Share, store: Store) -> None:
    """Recognise the share by its marker, and record that; a kill in between loses nothing."""
    known = known_share(store)
    share.prepare(known)
    if share.id != known.share:
        store.name(SHARE, share.id)
