"""Hot files of a store entry, and the pack beside it that contains them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.failpoints import failpoint
from reconciler.share.atomic import sync_directory, temporary
from reconciler.share.packs import Pack, files_of, held, parents_of, read_head, write_pack
from reconciler.share.schemas import HotDocument

HOT = "hot.json"  # in a build: the packs that it is loaded from
PACK = re.compile(r"^([0-9a-f]{64})-([0-9a-f]{64})\.pack$")  # entry's digest, pack's SHA-256
ROOMY = 2  # times the bytes that are needed: a larger pack is not used
ALWAYS = ("METADATA", "entry_points.txt", "WHEEL")  # of dist-info: what listing distributions reads


@dataclass(frozen=True, slots=True)
class Need:
    """Files that imports need of one entry: their number and bytes."""

    files: int
    bytes: int


def hot_json(packs: Mapping[str, Pack], *, whole: bool = False) -> bytes:
    """Return the hot.json of a build: packs by entry; `whole` packs contain all files."""
    rows: dict[str, dict[str, object]] = {}
    for digest, pack in packs.items():
        rows[digest] = {"pack": pack.sha256, "bytes": pack.bytes}
        rows[digest] |= {"whole": True} if whole else {"xz": True} if pack.xz else {}
    return json.dumps({"schema": 1, "packs": rows}, separators=(",", ":")).encode()


def hot_packs(document: HotDocument | None) -> dict[str, Pack]:
    """Return the hot packs that a build's hot.json names."""
    rows = document.packs if document is not None else {}
    return {d: Pack(row.pack, row.bytes, row.xz) for d, row in rows.items() if not row.whole}


def pack_path(entry: Path, sha256: str) -> Path:
    """Return the path of an entry's pack, which is beside the entry."""
    return entry.parent / f"{entry.name}-{sha256}.pack"


def pack_entry(entry: Path, hot: Collection[str], more: Collection[str] = ()) -> tuple[Pack, Need]:
    """Return a pack beside the entry with its hot files and some more, and the hot files' need.

    Raises OSError.

    An existing pack that contains them is used again, unless it is much larger: its other files are
    those that some other build needs.
    """
    files = files_of(entry)
    wanted = _with_always(files, {*hot, *more})
    sizes = [files[path][0] for path in set(hot) & files.keys()]
    counted = Need(len(sizes), sum(sizes))
    need = sum(files[path][0] for path in wanted if path in files)
    usable = []
    for item in os.scandir(entry.parent):
        match = PACK.match(item.name)
        if match is None or match[1] != entry.name:
            continue
        try:
            pack, index = read_head(Path(item.path))
        except OSError:
            continue
        fits = wanted <= held(index) and pack.bytes <= ROOMY * need
        if pack.sha256 == match[2] and fits:
            usable.append(pack)
    if usable:
        return min(usable, key=lambda pack: pack.bytes), counted
    temp = temporary(entry)
    try:
        failpoint("share.pack.before-write")
        pack = write_pack(entry, files, wanted, temp)
        failpoint("share.pack.before-rename")
        temp.rename(pack_path(entry, pack.sha256))
        sync_directory(entry.parent)
    finally:
        temp.unlink(missing_ok=True)
    return pack, counted


def _with_always(files: Collection[str], hot: Collection[str]) -> set[str]:
    """Return the existing hot paths, and those that are always hot."""
    folders = {f"{folder}/" for folder in parents_of(files)}
    chosen = {path for path in hot if path in files or path in folders}
    # Python looks for a folder with a module's name before it uses the module.
    split = [path.rpartition("/") for path in chosen]
    chosen |= {f"{folder}/{name.split('.')[0]}/" for folder, _, name in split} & folders
    for path in files:
        parts = path.split("/")
        if parts[0] != "lib":
            continue
        if len(parts) == 2 and path.endswith(".pth"):
            chosen.add(path)
        if len(parts) == 3 and parts[1].endswith(".dist-info") and parts[2] in ALWAYS:
            chosen.add(path)
    return chosen
