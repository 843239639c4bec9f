"""Wheels that must share a directory: those with the same file or the same regular package.

On a path with one directory per wheel, Python takes a regular package from the first directory that
has it; two wheels that both fill `foo/` beside a `foo/__init__.py` must therefore be one entry.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from reconciler.builder.wheels.requires import declared
from reconciler.documents import Document, Malformed, check

ORIGIN = re.compile(rb"\$ORIGIN(?:/\.\.)+")
SHARING = (b"extend_path", b"declare_namespace")

Tops = Mapping[str, str]  # the top-level names of a wheel: "file", "regular" or "open" packages


class _Kept(Document):
    """Facts as they were stored with a store entry."""

    tops: dict[str, str]
    pth: bool = False
    bin: bool = False
    data: bool = False
    site: Annotated[str, Field(pattern=r"^lib(/python3\.\d{1,2}/site-packages)?$")] = "lib"
    requires: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of an unpacked wheel that builds need; stored with its store entry."""

    tops: Tops
    pth: bool
    bin: bool
    data: bool = False  # it has files of the data scheme, or searches for those of others
    site: str = "lib"  # its folder of modules
    requires: tuple[str, ...] | None = None  # as its metadata declares; None: not recorded

    @classmethod
    def of(cls, entry: Path, site: str = "lib") -> Facts:
        """Inspect a folder, whose modules are in `site`."""
        lib = entry / site
        return cls(
            tops(lib),
            any(lib.glob("*.pth")),
            (entry / "bin").is_dir(),
            (entry / "data").is_dir() or _looks_outside(lib),
            site,
            declared(lib),
        )

    @classmethod
    def parse(cls, kept: Mapping[str, object] | None) -> Facts | None:
        """Return the facts that `document` returned, or None if nothing was stored."""
        try:
            top_names = check(_Kept, kept, "the facts of a store entry")
        except Malformed:
            return None
        return cls(
            top_names.tops,
            top_names.pth,
            top_names.bin,
            top_names.data,
            top_names.site,
            tuple(top_names.requires) if top_names.requires is not None else None,
        )

    def document(self) -> dict[str, object]:
        """Return the facts as JSON-compatible values."""
        fields: dict[str, object] = {"tops": dict(self.tops), "pth": self.pth, "bin": self.bin}
        fields |= {"data": self.data, "site": self.site}
        return fields if self.requires is None else fields | {"requires": list(self.requires)}


def _looks_outside(lib: Path) -> bool:
    """Return True if a shared object's search path leads out of the modules' folder."""
    for path in lib.rglob("*.so*"):
        depth = len(path.relative_to(lib).parts) - 1
        if not path.is_file() or path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for match in ORIGIN.finditer(data):
                if match[0].count(b"/..") > depth:
                    return True
    return False


def tops(lib: Path) -> dict[str, str]:
    """Return the top-level names of a wheel that other wheels may have too, with their kinds."""
    kinds = {}
    for item in sorted(lib.iterdir()):
        if item.name.endswith(".dist-info") or item.name == "__pycache__":
            continue
        kinds[item.name] = "file" if item.is_file() else "regular" if _regular(item) else "open"
    return kinds


def groups(entries: Mapping[str, Tops], data: Collection[str] = ()) -> list[tuple[str, ...]]:
    """Return groups of digests that belong together, in order; most groups have one digest.

    Those of `data` share one prefix, in which their files may search for each other's.
    """
    owner: dict[str, str] = {}
    parent = {digest: digest for digest in entries}

    def root(digest: str) -> str:
        while parent[digest] != digest:
            digest = parent[digest]
        return digest

    regular = {name for names in entries.values() for name in names if names[name] == "regular"}
    for digest, names in entries.items():
        for name in names:
            if names[name] != "file" and name not in regular:
                continue  # a package that may be in several directories
            first = owner.setdefault(name, digest)
            if root(first) != root(digest):
                parent[root(digest)] = root(first)
    for digest in data:
        parent[root(digest)] = root(next(iter(data)))
    by_root: dict[str, list[str]] = {}
    for digest in entries:
        by_root.setdefault(root(digest), []).append(digest)
    return [tuple(members) for members in by_root.values()]


def _regular(package: Path) -> bool:
    init = package / "__init__.py"
    if not init.is_file():
        return False
    with init.open("rb") as file:
        head = file.read(1 << 16)
    return not any(mark in head for mark in SHARING)


def merged_digest(members: tuple[str, ...], site: str = "lib") -> str:
    """Return the digest of the entry that contains all of `members`, with modules in `site`."""
    kind = ("merged",) if site == "lib" else ("prefix", site)
    return hashlib.sha256("\0".join((*kind, *members)).encode()).hexdigest()


def merge(members: Sequence[Path], staged: Path, site: str = "lib") -> None:
    """Merge several unpacked wheels, as an installer would; later ones override earlier ones.

    With another `site` than lib, the folder is a prefix: files of the data scheme are placed as in
    a virtual environment, so that modules find them relative to themselves.
    """
    for entry in members:
        for part, target in (("data", ""), ("lib", site), ("bin", "bin")):
            if (entry / part).is_dir() and (part != "data" or site != "lib"):
                shutil.copytree(entry / part, staged / target, dirs_exist_ok=True)
