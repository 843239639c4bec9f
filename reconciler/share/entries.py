"""Store entries: the contents of one wheel, or the files of one definition; written only once.

An entry is first one file, its whole pack (`<digest>.all`): that is quick to write, and the loader
can use it. Then it is spread into a folder (`<digest>/`, with its `entry.json` written last), which
every process can fall back to; the whole pack is deleted, and hot packs (`<digest>-<SHA-256>.pack`)
are added beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reconciler.documents import Document, Malformed, parse
from reconciler.failpoints import failpoint
from reconciler.share.atomic import (
    make_directory,
    publish_directory,
    sweep,
    sync_directory,
    temporary,
    translating,
)
from reconciler.share.atomic import write_file as write_durably
from reconciler.share.hot import PACK
from reconciler.share.packs import Pack, files_of, read_head, unpack, write_pack
from reconciler.share.schemas import EntryDocument

MANIFEST_LIMIT = 8 << 20  # bytes of a JSON document on the share
COPIES = 32  # files written at once, as a share handles them in parallel
SPREADS = 4  # entries spread at once
ENTRY = "entry.json"
HEX = re.compile(r"^[0-9a-f]{64}$")
WHOLE = re.compile(r"^([0-9a-f]{64})\.all$")

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Placed:
    """Entry that is on the share: the facts given when it was put, and its whole pack.

    `facts` is None for an entry of an earlier release, `whole` for one that is a folder.
    """

    facts: Mapping[str, object] | None
    whole: Pack | None = None


class EntryStore:
    """Entries below a share's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._spreading = threading.Lock()

    def entry(self, digest: str) -> Path:
        """Return the path of an entry's folder, whether or not it exists."""
        assert HEX.match(digest), digest
        return self.root / "store" / "sha256" / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Return True if the entry exists, as folder or whole pack; both appear when complete."""
        with translating(f"looking for store entry {digest[:12]}"):
            return self.is_spread(digest) or whole_path(self.entry(digest)).is_file()

    def is_spread(self, digest: str) -> bool:
        """Return True if the entry exists as a folder."""
        return (self.entry(digest) / ENTRY).is_file()

    def put(self, digest: str, staged: Path) -> Path:
        """Publish a directory tree as the folder of an entry, once; return its path.

        Files are copied in parallel and made durable; the entry is renamed to its final name when
        it is complete. Symlinks are refused with Stalled("UnsafeEntry").
        """
        if not self.is_spread(digest):
            self._place(digest, lambda target: _copy_tree(staged, target), {}, "share.put")
        return self.entry(digest)

    def put_whole(self, digest: str, staged: Path, facts: Mapping[str, object]) -> Placed:
        """Publish a directory tree as one file, once; `facts` about it are stored in it.

        Symlinks are refused with Stalled("UnsafeEntry").
        """
        placed = self.placed(digest)
        if placed is not None:
            return placed
        path = whole_path(self.entry(digest))
        with translating(f"writing store entry {digest[:12]}"):
            files = files_of(staged)
            make_directory(path.parent, self.root)
            sweep(path.parent)
            temp = temporary(path)
            try:
                failpoint("share.put_whole.before-write")
                pack = write_pack(staged, files, None, temp, facts)
                failpoint("share.put_whole.before-rename")
                temp.rename(path)
                failpoint("share.put_whole.after-rename")
                sync_directory(path.parent)
            finally:
                temp.unlink(missing_ok=True)
        return Placed(facts, pack)

    def placed(self, digest: str) -> Placed | None:
        """Return an existing entry, as a folder or a whole pack, or None."""
        with translating(f"reading store entry {digest[:12]}"):
            described = read_document(self.entry(digest) / ENTRY, EntryDocument)
            if described is not None:
                return Placed(described.facts or None)
            try:
                pack, index = read_head(whole_path(self.entry(digest)))
            except FileNotFoundError:  # missing, or spread meanwhile
                if not self.is_spread(digest):
                    return None
                spread = read_document(self.entry(digest) / ENTRY, EntryDocument)
                return Placed(spread.facts or None if spread is not None else None)
        return Placed(index.get("facts") or None, pack)

    def copy_out(self, digest: str, target: Path) -> None:
        """Write an entry's files to a new folder on local disk."""
        with translating(f"reading store entry {digest[:12]}"):
            with self._spreading:
                spread = self.is_spread(digest)
                if not spread:
                    unpack(whole_path(self.entry(digest)), target)
            if spread:
                shutil.copytree(self.entry(digest), target)
                (target / ENTRY).unlink()

    def spread(self, digests: Sequence[str], check: Callable[[], None]) -> None:
        """Create the folders of entries that are still whole packs, then remove those packs.

        `check` is called between entries, and may raise.
        """
        with self._spreading, ThreadPoolExecutor(SPREADS) as pool:
            list(pool.map(lambda digest: self._spread(digest, check), digests))

    def _spread(self, digest: str, check: Callable[[], None]) -> None:
        check()
        whole = whole_path(self.entry(digest))
        with translating(f"spreading store entry {digest[:12]}"):
            if not self.is_spread(digest):
                facts = read_head(whole)[1].get("facts", {})
                self._place(digest, lambda to: unpack(whole, to, COPIES), facts, "share.spread")
            whole.unlink(missing_ok=True)

    def _place(
        self,
        digest: str,
        fill: Callable[[Path], tuple[int, int]],
        facts: Mapping[str, object],
        point: str,
    ) -> None:
        """Fill the folder of an entry, then rename it; `fill` returns (files, bytes)."""
        path = self.entry(digest)
        with translating(f"writing store entry {digest[:12]}"):
            make_directory(path.parent, self.root)
            sweep(path.parent)
            if path.exists() and not self.is_spread(digest):  # not complete, and not created here
                shutil.rmtree(path)
            temp = temporary(path)
            make_directory(temp)
            try:
                failpoint(f"{point}.before-copy")
                files, size = fill(temp)
                failpoint(f"{point}.before-entry")
                described = {"schema": 1, "files": files, "bytes": size, "facts": facts}
                write_durably(temp / ENTRY, json.dumps(described).encode())
                sync_directory(temp)
                publish_directory(temp, path, point)
            finally:
                shutil.rmtree(temp, ignore_errors=True)

    def size(self) -> int:
        """Return the bytes in the store, as recorded by the entries themselves."""
        total = 0
        with translating("measuring the store"):
            for prefix in os.scandir(self.root / "store" / "sha256"):
                for entry in os.scandir(prefix.path):
                    if PACK.match(entry.name) or WHOLE.match(entry.name):
                        total += entry.stat().st_size
                        continue
                    described = read_document(Path(entry.path) / ENTRY, EntryDocument)
                    total += described.bytes or 0 if described is not None else 0
        return total


def whole_path(entry: Path) -> Path:
    """Return the path of an entry's whole pack, which is beside its folder."""
    return entry.with_name(f"{entry.name}.all")


def read_document(path: Path, kind: type[D]) -> D | None:
    """Return a document from the share, or None if it is missing or invalid; see `schemas`."""
    with translating(f"reading {path.name}"):
        try:
            with path.open("rb") as file:
                data = file.read(MANIFEST_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return parse(kind, data, path.name, MANIFEST_LIMIT)
    except Malformed:
        return None


def _copy_tree(source: Path, target: Path) -> tuple[int, int]:
    """Copy files in parallel, durably and world-readable; return (files, bytes)."""
    files = files_of(source)
    folders = {target, *((target / path).parent for path in files)}
    for folder in sorted(folders):
        make_directory(folder)
    with ThreadPoolExecutor(COPIES) as pool:
        size = sum(pool.map(lambda path: copy_file(source / path, target / path), files))
    for folder in folders:
        sync_directory(folder)
    return len(files), size


def copy_file(source: Path, target: Path) -> int:
    """Copy a file durably and world-readable; return its bytes."""
    mode = 0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        os.fsync(writer.fileno())
        return writer.tell()
