"""Placement of a build's wheels: reuse of entries on the share, and the order on sys.path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reconciler.builder.wheels import overlap
from reconciler.builder.wheels.overlap import Facts
from reconciler.share.packs import Pack
from reconciler.share.share import Share

ASKERS = 16  # parallel queries of the share


@dataclass(frozen=True, slots=True)
class Entry:
    """Store entry that a build uses."""

    facts: Facts
    whole: Pack | None = None


def put(share: Share, digest: str, staged: Path, site: str = "lib") -> Entry:
    """Publish an unpacked wheel as one file; its modules are in `site`."""
    facts = Facts.of(staged, site)
    return Entry(facts, share.put_whole(digest, staged, facts.document()).whole)


def found(share: Share, digest: str) -> Entry | None:
    """Return the store entry if it is on the share, or None."""
    placed = share.placed(digest)
    if placed is None:
        return None
    known = Facts.parse(placed.facts)  # None: an entry of an earlier release
    return Entry(known or Facts.of(share.entry(digest)), placed.whole)


def all_found(share: Share, digests: Sequence[str]) -> dict[str, Entry]:
    """Return the entries that are on the share."""
    with ThreadPoolExecutor(ASKERS) as pool:
        entries = pool.map(lambda digest: found(share, digest), digests)
        return {digest: e for digest, e in zip(digests, entries, strict=True) if e is not None}


def lay_out(
    share: Share, entries: Mapping[str, Entry], work: Callable[[str], Path], prefix_site: str
) -> dict[str, Entry]:
    """Return the entries on the path, in order; those that belong together become one entry.

    Entries with files of the data scheme, and those that belong with them, become one prefix, whose
    modules are in `prefix_site`. `work` creates a new folder on local disk for a name.
    """
    order: dict[str, Entry] = {}
    data = [digest for digest, one in entries.items() if one.facts.data]
    tops = {digest: one.facts.tops for digest, one in entries.items()}
    for members in overlap.groups(tops, data):
        site = prefix_site if set(members) & set(data) else "lib"
        if len(members) == 1 and site == "lib":
            order[members[0]] = entries[members[0]]
            continue
        digest = overlap.merged_digest(members, site)
        there = found(share, digest)
        if there is None:
            there = _merged(share, digest, members, work(digest[:16]), site)
        order[digest] = there
    return order


def _merged(share: Share, digest: str, members: Sequence[str], folder: Path, site: str) -> Entry:
    for number, member in enumerate(members):
        share.copy_out(member, folder / str(number))
    merged = folder / "merged"
    overlap.merge([folder / str(number) for number in range(len(members))], merged, site)
    return put(share, digest, merged, site)
