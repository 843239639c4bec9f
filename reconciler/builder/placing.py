"""What of a build's wheels lies on the share already, and how they are laid out on sys.path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from reconciler.builder import overlap
from reconciler.builder.overlap import Facts

ASKERS = 16  # questions to the share at once


class Places(Protocol):
    """What is used of the share here."""

    def has(self, digest: str) -> bool:
        """Is the store entry there."""

    def entry(self, digest: str) -> Path:
        """Where the folder of a store entry is."""

    def facts(self, digest: str) -> Mapping[str, object] | None:
        """What was said about a store entry when it was put."""

    def put_whole(self, digest: str, staged: Path, facts: Mapping[str, object]) -> None:
        """Publish a store entry as one file."""

    def copy_out(self, digest: str, target: Path) -> None:
        """Write an entry's files to a new folder."""


def missing(share: Places, digests: Sequence[str]) -> set[str]:
    """Those that the share does not have."""
    with ThreadPoolExecutor(ASKERS) as pool:
        there = pool.map(share.has, digests)
        return {digest for digest, found in zip(digests, there, strict=True) if not found}


def facts_of(share: Places, digests: Sequence[str], fresh: Mapping[str, Facts]) -> dict[str, Facts]:
    """Facts about each entry, in their order; `fresh` are those that were just made."""

    def look(digest: str) -> Facts:
        known = fresh.get(digest) or Facts.parse(share.facts(digest))
        return known or Facts.of(share.entry(digest))  # an entry of an earlier release

    with ThreadPoolExecutor(ASKERS) as pool:
        return dict(zip(digests, pool.map(look, digests), strict=True))


def lay_out(
    share: Places, facts: Mapping[str, Facts], work: Callable[[str], Path]
) -> dict[str, Facts]:
    """The entries on the path, in its order; those that belong in one folder become one entry.

    `work` gives a fresh folder on local disk for a name.
    """
    order: dict[str, Facts] = {}
    for members in overlap.groups({digest: found.tops for digest, found in facts.items()}):
        if len(members) == 1:
            order[members[0]] = facts[members[0]]
            continue
        digest = overlap.merged_digest(members)
        if share.has(digest):
            order.update(facts_of(share, [digest], {}))
            continue
        folder = work(digest[:16])
        for number, member in enumerate(members):
            share.copy_out(member, folder / str(number))
        merged = folder / "merged"
        overlap.merge([folder / str(number) for number in range(len(members))], merged)
        order[digest] = Facts.of(merged)
        share.put_whole(digest, merged, order[digest].document())
    return order
