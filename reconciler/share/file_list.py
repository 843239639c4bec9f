"""List of a package's files in a store entry, spread or not, according to its RECORD.

Nothing on the share is traversed or counted: it takes one listing of a folder and one read.
"""

from __future__ import annotations

import csv
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from reconciler.share.entries import EntryStore, whole_path
from reconciler.share.packs import read_head, read_member
from reconciler.share.schemas import BuildDocument

RECORD_LIMIT = 64 << 20  # bytes; a wheel may contain 100,000 files


class Absent(Exception):
    """Something requested is not on the share; the message says what."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Some files of a package or of a definition, with the number and bytes of all.

    `where` is their folder below the share's root. The paths are relative to it, `../bin/x` for
    programs; bytes are None if RECORD does not give them.
    """

    where: str
    total: int
    bytes: int
    files: tuple[tuple[str, int | None], ...]


def own_files(store: EntryStore, document: BuildDocument, begin: int, count: int) -> Listed:
    """Return the definition's own files: jars, programs and others. Raises Absent or OSError."""
    digest = document.own_entry
    if digest is None:
        return Listed("", 0, 0, ())
    folder = store.entry(digest) / "files"
    if not folder.is_dir():
        raise Absent(f"store entry {digest[:12]} is not on the share")
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for here, _, names in os.walk(folder)
        for path in (Path(here, name) for name in names)
    )
    where = folder.relative_to(store.root).as_posix()
    size = sum(size for _, size in files)
    return Listed(where, len(files), size, tuple(files[begin : begin + count]))


def package_files(
    store: EntryStore, document: BuildDocument, name: str, likely: str, begin: int, count: int
) -> Listed:
    """Return at most `count` files of a package in a build.json, from number `begin`.

    `likely` is the store entry that contains the package, unless it shares one with others. Raises
    Absent or OSError.
    """
    for digest in [likely] if likely in document.entries else document.entries:
        data = _record(store, digest, name)
        if data is not None:
            lines = [line for line in data.split(b"\n") if line.strip()]
            where = (store.entry(digest) / "lib").relative_to(store.root).as_posix()
            size = sum(_size(line) or 0 for line in lines)
            files = tuple(map(_row, lines[begin : begin + count]))
            return Listed(where, len(lines), size, files)
    raise Absent(f"no store entry of the build has a RECORD of {name}")


def _record(store: EntryStore, digest: str, name: str) -> bytes | None:
    """Return the RECORD of a package in an entry, or None if the entry has no such package."""
    for _ in range(2):  # between the two attempts an entry may be spread
        try:
            return _spread_record(store.entry(digest) / "lib", name)
        except FileNotFoundError:
            pass
        try:
            return _packed_record(whole_path(store.entry(digest)), name)
        except FileNotFoundError:
            pass
    raise Absent(f"store entry {digest[:12]} is not on the share")


def _spread_record(lib: Path, name: str) -> bytes | None:
    with os.scandir(lib) as items:
        info = next((i.name for i in items if _is_info(i.name, name)), None)
    if info is None:
        return None
    try:
        with (lib / info / "RECORD").open("rb") as file:
            return _limited(file.read(RECORD_LIMIT + 1))
    except FileNotFoundError:
        return None


def _packed_record(pack: Path, name: str) -> bytes | None:
    _, index = read_head(pack)
    names = {part[0] for block in index["blocks"] for part in block["parts"]}
    for path in names:
        parts = path.split("/")
        if len(parts) != 3 or (parts[0], parts[2]) != ("lib", "RECORD"):
            continue
        if _is_info(parts[1], name):
            return _limited(read_member(pack, index, path))
    return None


def _is_info(folder: str, name: str) -> bool:
    stem, dot, suffix = folder.rpartition(".")
    return (dot, suffix) == (".", "dist-info") and (
        canonicalize_name(stem.rpartition("-")[0]) == name
    )


def _limited(data: bytes) -> bytes:
    if len(data) > RECORD_LIMIT:
        raise OSError(errno.EFBIG, "a RECORD is too large to be shown")
    return data


def _size(line: bytes) -> int | None:
    text = line.rstrip(b"\r").rpartition(b",")[2]
    return int(text) if text.isdigit() and len(text) < 19 else None


def _row(line: bytes) -> tuple[str, int | None]:
    fields = next(csv.reader([line.decode(errors="replace").rstrip("\r")]), [""])
    return fields[0], _size(line)
