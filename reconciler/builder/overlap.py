"""Wheels that belong in one directory: those that own the same file or the same regular package.

On a path of one directory per wheel, Python takes a regular package from the first directory that
has it; two wheels that both fill `foo/` beside a `foo/__init__.py` must therefore be one entry.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARING = (b"extend_path", b"declare_namespace")

Tops = Mapping[str, str]  # what is at the top of a wheel: "file", "regular" or "open" packages


@dataclass(frozen=True, slots=True)
class Facts:
    """What a build needs to know of an unpacked wheel; kept with its store entry."""

    tops: Tops
    pth: bool
    bin: bool

    @classmethod
    def of(cls, entry: Path) -> Facts:
        """Look at a folder."""
        lib = entry / "lib"
        return cls(tops(lib), any(lib.glob("*.pth")), (entry / "bin").is_dir())

    @classmethod
    def parse(cls, kept: Mapping[str, object] | None) -> Facts | None:
        """What `document` gave; None when nothing was kept."""
        if kept is None or not isinstance(kept.get("tops"), dict):
            return None
        found: Any = kept["tops"]
        return cls(dict(found), bool(kept.get("pth")), bool(kept.get("bin")))

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {"tops": dict(self.tops), "pth": self.pth, "bin": self.bin}


def tops(lib: Path) -> dict[str, str]:
    """The top-level names of a wheel that other wheels may have too, and what they are."""
    found = {}
    for item in sorted(lib.iterdir()):
        if item.name.endswith(".dist-info") or item.name == "__pycache__":
            continue
        found[item.name] = "file" if item.is_file() else "regular" if _regular(item) else "open"
    return found


def groups(entries: Mapping[str, Tops]) -> list[tuple[str, ...]]:
    """Digests that belong together, in their order; most groups hold one digest."""
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
                continue  # a package that may lie in several directories
            first = owner.setdefault(name, digest)
            if root(first) != root(digest):
                parent[root(digest)] = root(first)
    found: dict[str, list[str]] = {}
    for digest in entries:
        found.setdefault(root(digest), []).append(digest)
    return [tuple(members) for members in found.values()]


def _regular(package: Path) -> bool:
    init = package / "__init__.py"
    if not init.is_file():
        return False
    with init.open("rb") as file:
        head = file.read(1 << 16)
    return not any(mark in head for mark in SHARING)


def merged_digest(members: tuple[str, ...]) -> str:
    """Digest of the entry that holds all of `members`."""
    return hashlib.sha256("\0".join(("merged", *members)).encode()).hexdigest()


def merge(members: Sequence[Path], staged: Path) -> None:
    """Lay several unpacked wheels over each other, as an installer would; the later one wins."""
    for entry in members:
        for part in ("lib", "bin"):
            if (entry / part).is_dir():
                shutil.copytree(entry / part, staged / part, dirs_exist_ok=True)
