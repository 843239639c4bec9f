"""Contents and sizes of builds, by team; immutable documents are read once.

An entry that several teams use counts for each of them: it would stay for any one of them alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from sys import intern

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.share.atomic import translating
from reconciler.share.entries import ENTRY, HEX, WHOLE, read_document
from reconciler.share.hot import PACK
from reconciler.share.schemas import BuildDocument, EntryDocument
from reconciler.share.share import BUILD_ID, Share

READERS = 32  # documents read in parallel, as a share handles them in parallel
UNIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Contents:
    """Team of a build, and the digests of its store entries."""

    team: str
    entries: tuple[str, ...]


class Sizes:
    """Sizes on one share, with a cache of what was read."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._contents: dict[str, Contents] = {}
        self._bytes: dict[str, int] = {}
        self._lock = threading.Lock()
        self.total = 0
        self.teams: Mapping[str, int] = {}

    def contents(self, builds: Iterable[str]) -> dict[str, Contents]:
        """Return the contents of these builds, without those that have no readable build.json."""
        wanted = list(builds)
        unknown = [b for b in wanted if b not in self._contents]
        with ThreadPoolExecutor(READERS) as pool:
            loaded = dict(zip(unknown, pool.map(self._read, unknown), strict=True))
        known = {build: contents for build, contents in loaded.items() if contents is not None}
        with self._lock:
            self._contents.update(known)
            return {b: self._contents[b] for b in wanted if b in self._contents}

    def look(self) -> None:
        """Measure the store in bytes: `total`, and by team `teams`.

        Its cost is a listing of everything, and reading what is new.
        """
        with translating("listing the builds"):
            builds = [e.name for e in os.scandir(self._share.root / "builds")]
        contents = self.contents(b for b in builds if BUILD_ID.match(b))
        self._measure()
        by_team: dict[str, set[str]] = {}
        for one in contents.values():
            by_team.setdefault(one.team, set()).update(one.entries)
        with self._lock:
            for gone in self._contents.keys() - contents.keys():
                del self._contents[gone]
            self.total = sum(self._bytes.values())
            self.teams = {
                team: sum(self._bytes.get(e, 0) for e in entries)
                for team, entries in by_team.items()
            }

    def _measure(self) -> None:
        """Measure the bytes of every entry and pack."""
        paths: dict[str, str] = {}
        with translating("listing the store"):
            for prefix in os.scandir(self._share.root / "store" / "sha256"):
                for entry in os.scandir(prefix.path):
                    if any(kind.match(entry.name) for kind in (HEX, PACK, WHOLE)):
                        paths[intern(entry.name.removesuffix(".all"))] = entry.path
        unknown = [name for name in paths if name not in self._bytes]
        with ThreadPoolExecutor(READERS) as pool:
            sizes = dict(zip(unknown, pool.map(_bytes, map(paths.get, unknown)), strict=True))
        with self._lock:
            self._bytes.update(sizes)
            for gone in self._bytes.keys() - paths.keys():
                del self._bytes[gone]

    def _read(self, build: str) -> Contents | None:
        document = read_document(self._share.build_path(build) / "build.json", BuildDocument)
        if document is None:
            return None
        return Contents(intern(document.team), tuple(map(intern, document.entries)))


def _bytes(path: str | None) -> int:
    """Return the bytes of a pack, or of an entry as it records them; 0 if it is gone."""
    assert path is not None, "it was listed"
    location = Path(path)
    try:
        if location.suffix in (".pack", ".all"):
            return location.stat().st_size
    except FileNotFoundError:
        return 0
    described = read_document(location / ENTRY, EntryDocument)
    return described.bytes or 0 if described is not None else 0


def check_quota(sizes: Sizes, team: str, quota: int) -> None:
    """Raise Stalled("QuotaReached") if a team has used its quota on the share; 0: no limit."""
    used = sizes.teams.get(team, 0)
    if quota and used >= quota:
        raise Stalled(
            Reason.QUOTA_REACHED,
            f"team {team} has {used / UNIT:.2f} GiB on the share, and may have "
            f"{quota / UNIT:.2f} GiB (quota.teams or quota.bytes in the settings); ask for fewer "
            f"packages or let `groundcrew gc` remove old builds, then `groundcrew retry`",
        )
