"""Garbage collection: what no instance, build or living process may still load.

A build goes when nothing asks for it and it was not current anywhere since the oldest living
process of that instance started, plus a grace; a store entry goes when no remaining build names
it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.faults import failpoint
from reconciler.share.atomic import temporary, translating
from reconciler.share.locks import collecting
from reconciler.share.share import BUILD_ID, HEX, Share


@dataclass(frozen=True, slots=True)
class Held:
    """What one instance may still use.

    `retired` holds (build id, when it stopped being current); `oldest_process` is the start of the
    instance's oldest living process in seconds since the epoch, None when that cannot be told.
    """

    retired: tuple[tuple[str, float], ...] = ()
    oldest_process: float | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, or would be."""

    builds: tuple[str, ...]
    entries: tuple[str, ...]
    bytes: int


def collect_garbage(
    share: Share,
    *,
    roots: set[str],
    held: Mapping[str, Held],
    now: float,
    grace: float,
    dry_run: bool,
) -> Collected:
    """Remove what may go; with `dry_run` only say what would.

    `roots` are builds that stay whatever runs. Every build that a pointer on the share names stays
    too. Raises Retryable when the share cannot be read, nothing is removed on a guess, and while
    a build is being made.
    """
    with collecting(share.root):
        return _collect(share, roots | _in_use(held, now, grace), now, grace, dry_run=dry_run)


def _collect(
    share: Share, roots: set[str], now: float, grace: float, *, dry_run: bool
) -> Collected:
    keep = roots | _pointed(share)
    with translating("listing the builds"):
        found = sorted(e.name for e in os.scandir(share.root / "builds") if BUILD_ID.match(e.name))
        old = [b for b in found if b not in keep and _age(share.build_path(b), now) > grace]
    stay = [b for b in found if b not in old]
    named: set[str] = set()
    for build_id in stay:
        named |= _entries_of(share, build_id)
    entries = _unnamed(share, named, now, grace)
    size = sum(_size(share.entry(e)) for e in entries) + sum(
        _size(share.build_path(b)) for b in old
    )
    if not dry_run:
        with translating("removing what is no longer used"):
            for build_id in old:
                _remove(share.build_path(build_id))
            for digest in entries:
                _remove(share.entry(digest))
    return Collected(tuple(old), tuple(entries), size)


def _pointed(share: Share) -> set[str]:
    with translating("reading the pointers"):
        names = [e.name for e in os.scandir(share.root / "instances") if e.is_dir()]
    found: set[str] = set()
    for name in names:
        pointer = share.pointer(name)
        if pointer is not None:
            found |= {n.build for n in pointer.builds.values()}
    return found


def _in_use(held: Mapping[str, Held], now: float, grace: float) -> set[str]:
    """Builds that a living process may have started with."""
    found: set[str] = set()
    for one in held.values():
        for build_id, at in one.retired:
            unknown = one.oldest_process is None
            if unknown or at + grace > now or at >= (one.oldest_process or 0.0):
                found.add(build_id)
    return found


def _entries_of(share: Share, build_id: str) -> set[str]:
    manifest = share.build(build_id)
    entries = (manifest or {}).get("entries", [])
    return set(map(str, entries)) if isinstance(entries, list) else set()


def _unnamed(share: Share, named: set[str], now: float, grace: float) -> list[str]:
    """Store entries that no build names and that are older than the grace.

    A younger one may belong to a build that is being made.
    """
    found: list[str] = []
    with translating("listing the store"):
        for prefix in sorted(os.scandir(share.root / "store" / "sha256"), key=lambda e: e.name):
            for entry in os.scandir(prefix.path):
                if not HEX.match(entry.name) or entry.name in named:
                    continue
                if now - entry.stat().st_mtime > grace:
                    found.append(entry.name)
    return sorted(found)


def _age(path: Path, now: float) -> float:
    return now - path.stat().st_mtime


def _size(path: Path) -> int:
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _remove(path: Path) -> None:
    """Take a directory's name away first, so that nobody sees half of it."""
    trash = temporary(path)
    failpoint("share.gc.before-remove")
    path.rename(trash)
    failpoint("share.gc.renamed")
    shutil.rmtree(trash)
