"""Garbage collection of everything that no instance, build or living process may still load.

A build is removed if nothing asks for it and it was not current anywhere since the oldest living
process of that instance started, plus a grace period; a store entry is removed if no remaining
build names it. Only the manifests of remaining builds are read, in parallel and once; what cannot
be removed within the time limit is removed the next time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reconciler.failpoints import failpoint
from reconciler.share.atomic import temporary, translating
from reconciler.share.entries import ENTRY, HEX, WHOLE, read_document
from reconciler.share.hot import PACK
from reconciler.share.locks import collecting
from reconciler.share.schemas import EntryDocument
from reconciler.share.share import BUILD_ID, Share
from reconciler.share.sizes import READERS, Sizes

FRESH = 600.0  # seconds that something put or found again stays: records may not know it yet
REMOVERS = 8  # parallel removals
LONGEST = 60.0  # seconds that builds have to wait; the rest is removed the next time


@dataclass(frozen=True, slots=True)
class Held:
    """Builds that one instance may still use.

    `retired` holds (build id, when it stopped being current); `oldest_process` is the start of the
    instance's oldest living process in seconds since the epoch, None if unknown. Builds that ran
    before `since` are unknown (0.0: there were none): each build that `team` had then counts as
    retired then.
    """

    retired: tuple[tuple[str, float], ...] = ()
    oldest_process: float | None = None
    team: str = ""
    since: float = 0.0

    def may_run(self, at: float, now: float, grace: float) -> bool:
        """Return True if a living process may have started with what was current until `at`."""
        oldest = self.oldest_process
        return oldest is None or at + grace > now or at >= oldest


@dataclass(frozen=True, slots=True)
class Collected:
    """Builds and entries that were or would be removed; `complete` is False if more could be."""

    builds: tuple[str, ...]
    entries: tuple[str, ...]
    bytes: int
    complete: bool = True


def collect_garbage(
    share: Share,
    *,
    roots: set[str],
    held: Collection[Held],
    now: float,
    grace: float,
    dry_run: bool,
    sizes: Sizes | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Collected:
    """Remove unused builds and entries; with `dry_run`, only report them.

    `roots` are builds that always stay. Every build that a pointer on the share names stays too.
    `sizes` caches the contents of builds; `go_on` is called before each removal, and returns False
    to leave the rest for another time. Raises Retryable if the share cannot be read, since nothing
    is removed on a guess, and while a build is being put on the share.
    """
    share.require()
    with collecting(share.root):
        sizes = sizes or Sizes(share)
        keep = roots | _in_use(held, now, grace) | _pointed(share)
        keep |= _from_before(share, sizes, held, now, grace)
        old, entries = _unused(share, keep, now, grace, sizes)
        paths = [share.build_path(b) for b in old]
        places = [_place(share, e) for e in entries]
        with translating("measuring what is no longer used"), ThreadPoolExecutor(READERS) as pool:
            bytes_of = dict(zip([*old, *entries], pool.map(_size, [*paths, *places]), strict=True))
        if dry_run:
            return Collected(tuple(old), tuple(entries), sum(bytes_of.values()))
        deadline = time.monotonic() + LONGEST
        wanted = lambda: time.monotonic() < deadline and go_on()  # noqa: E731
        with translating("removing what is no longer used"):
            gone_builds = _remove_all(share, dict(zip(old, paths, strict=True)), wanted)
            gone_entries = []
            if len(gone_builds) == len(old):  # an entry goes after the builds that name it
                gone_entries = _remove_all(share, dict(zip(entries, places, strict=True)), wanted)
        return Collected(
            tuple(gone_builds),
            tuple(gone_entries),
            sum(bytes_of[name] for name in (*gone_builds, *gone_entries)),
            complete=len(gone_builds) == len(old) and len(gone_entries) == len(entries),
        )


def _unused(
    share: Share, keep: set[str], now: float, grace: float, sizes: Sizes
) -> tuple[list[str], list[str]]:
    """Return builds, and store entries and packs, that can be removed."""
    with translating("listing the builds"):
        builds = _builds(share)
        rest = [b for b in builds if b not in keep]
        with ThreadPoolExecutor(READERS) as pool:
            ages = pool.map(lambda b: now - share.build_path(b).stat().st_mtime, rest)
            old = [b for b, age in zip(rest, ages, strict=True) if age > max(grace, FRESH)]
            gone = set(old)
            stay = [b for b in builds if b not in gone]
            packs = pool.map(share.packs, stay)
            named = {f"{d}-{p.sha256}.pack" for one in packs for d, p in one.items()}
    for contents in sizes.contents(stay).values():
        named.update(contents.entries)
    return old, _unnamed(share, named, now, grace)


def _remove_all(share: Share, paths: Mapping[str, Path], go_on: Callable[[], bool]) -> list[str]:
    """Remove paths in parallel while `go_on` allows; return the names of what is gone."""

    def remove(name: str) -> bool:
        if not go_on():
            return False
        share.check()
        _remove(paths[name])
        return True

    with ThreadPoolExecutor(REMOVERS) as pool:
        return [n for n, done in zip(paths, pool.map(remove, paths), strict=True) if done]


def _pointed(share: Share) -> set[str]:
    with translating("reading the pointers"):
        names = [e.name for e in os.scandir(share.root / "instances") if e.is_dir()]
    with ThreadPoolExecutor(READERS) as pool:
        pointers = list(pool.map(share.pointer, names))
    valid = [p for p in pointers if p is not None]
    named = {n.build for p in valid for n in p.builds.values()}
    return named.union(*(p.dropped for p in valid))  # it may not be recorded that these are retired


def _builds(share: Share) -> list[str]:
    return sorted(e.name for e in os.scandir(share.root / "builds") if BUILD_ID.match(e.name))


def _in_use(held: Collection[Held], now: float, grace: float) -> set[str]:
    """Return builds that a living process may have started with."""
    return {b for one in held for b, at in one.retired if one.may_run(at, now, grace)}


def _from_before(
    share: Share, sizes: Sizes, held: Collection[Held], now: float, grace: float
) -> set[str]:
    """Return builds for which it is unknown whether a living process started with them."""
    since: dict[str, float] = {}
    for one in held:
        if one.since and one.may_run(one.since, now, grace):
            since[one.team] = max(one.since, since.get(one.team, 0.0))
    if not since:
        return set()
    with translating("looking how old builds are"), ThreadPoolExecutor(READERS) as pool:
        owners = {b: c.team for b, c in sizes.contents(_builds(share)).items() if c.team in since}
        made = pool.map(lambda b: (share.build_path(b) / "build.json").stat().st_mtime, owners)
        return {b for b, at in zip(owners, made, strict=True) if at <= since[owners[b]]}


def _place(share: Share, name: str) -> Path:
    """Return the path of a store entry or of a pack."""
    return share.root / "store" / "sha256" / name[:2] / name


def _unnamed(share: Share, named: set[str], now: float, grace: float) -> list[str]:
    """Return unnamed store entries and packs that are neither fresh nor in their grace period.

    A younger one may belong to a build in progress.
    """
    unnamed: list[str] = []
    with translating("listing the store"):
        for prefix in sorted(os.scandir(share.root / "store" / "sha256"), key=lambda e: e.name):
            for entry in os.scandir(prefix.path):
                if not any(kind.match(entry.name) for kind in (HEX, PACK, WHOLE)):
                    continue
                if entry.name.removesuffix(".all") in named:
                    continue
                if now - entry.stat().st_mtime > max(grace, FRESH):
                    unnamed.append(entry.name)
    return sorted(unnamed)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    described = read_document(path / ENTRY, EntryDocument)
    if described is not None and described.bytes is not None:
        return described.bytes
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _remove(path: Path) -> None:
    """Rename a directory first, so that nobody sees a part of it, then remove it."""
    trash = temporary(path)
    failpoint("share.gc.before-remove")
    path.rename(trash)
    failpoint("share.gc.renamed")
    if trash.is_dir():
        shutil.rmtree(trash)
    else:
        trash.unlink()
