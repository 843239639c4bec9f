"""Wheels that belong in one directory: those that own the same file or the same regular package.

On a path of one directory per wheel, Python takes a regular package from the first directory that
has it; two wheels that both fill `foo/` beside a `foo/__init__.py` must therefore be one entry.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

SHARING = (b"extend_path", b"declare_namespace")


def groups(entries: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Digests that belong together, in their order; most groups hold one digest."""
    owner: dict[str, str] = {}
    parent = {digest: digest for digest in entries}

    def root(digest: str) -> str:
        while parent[digest] != digest:
            digest = parent[digest]
        return digest

    for digest, entry in entries.items():
        for name in _exclusive(entry / "lib", entries):
            first = owner.setdefault(name, digest)
            if root(first) != root(digest):
                parent[root(digest)] = root(first)
    found: dict[str, list[str]] = {}
    for digest in entries:
        found.setdefault(root(digest), []).append(digest)
    return [tuple(members) for members in found.values()]


def _exclusive(lib: Path, entries: Mapping[str, Path]) -> list[str]:
    """Top-level names of one wheel that must not be split over directories."""
    names: list[str] = []
    for item in sorted(lib.iterdir()):
        if item.name.endswith(".dist-info") or item.name == "__pycache__":
            continue
        if item.is_file() or any(_regular(entry / "lib" / item.name) for entry in entries.values()):
            names.append(item.name)
    return names


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


def merge(members: tuple[str, ...], entries: Mapping[str, Path], staged: Path) -> None:
    """Lay several entries over each other, as an installer would; the later one wins."""
    for digest in members:
        for part in ("lib", "bin"):
            if (entries[digest] / part).is_dir():
                shutil.copytree(entries[digest] / part, staged / part, dirs_exist_ok=True)
