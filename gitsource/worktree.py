"""Files of a plain checkout that git would commit, determined without changing anything.

Ignored files, such as a virtual environment inside a package, are not included; a file that Git LFS
keeps elsewhere is represented by its pointer. Nothing from the repository's own configuration is
executed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from reconciler.core.reasons import Reason

TIMEOUT = 120.0  # seconds
POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_LIMIT = 1024  # bytes, by the format's definition
LFS_POINTER = (
    Reason.LFS_POINTER_REFUSED,
    "a Git LFS pointer and not the file itself; commit it without LFS (`git lfs untrack`), or have "
    "the code fetch it",
)
"""Reason and message for a pointer in the place of a file."""
QUIET = (
    "-c",
    "safe.directory=*",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
)


def listed(root: Path) -> set[str] | None:
    """Return the paths that git would commit, or None if `root` is not a git work tree.

    The path of a repository inside this one ends in /, as that of a submodule may.
    """
    if shutil.which("git") is None or _git(root, "check-ignore", "-q", ".") != (1, b""):
        return None
    code, output = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return None if code != 0 else set(_split(output))


def pointers(root: Path, paths: Iterable[str]) -> set[str]:
    """Return those of the paths below `root` that git keeps as pointers of Git LFS."""
    asked = "".join(f"{path}\0" for path in paths)
    code, output = _git(root, "check-attr", "-z", "--stdin", "filter", text=os.fsencode(asked))
    if code != 0:
        return set()
    rows = _split(output)
    marked = {rows[n] for n in range(0, len(rows) - 2, 3) if rows[n + 2] == "lfs"}
    if not marked:
        return set()
    staged = _staged(root)
    return {path for path in marked if path not in staged or _is_pointer(root, staged[path])}


def is_pointer(content: bytes) -> bool:
    """Return True if a file's content is a pointer of Git LFS."""
    return len(content) <= POINTER_LIMIT and content.startswith(POINTER)


def _staged(root: Path) -> dict[str, str]:
    """Return git's ids of the files that it tracks, by path."""
    _, output = _git(root, "ls-files", "-z", "--stage")
    blobs = {}
    for row in _split(output):
        described, _, path = row.partition("\t")
        blobs[path] = described.split()[1]
    return blobs


def _is_pointer(root: Path, blob: str) -> bool:
    _, size = _git(root, "cat-file", "-s", blob)
    if not size.strip().isdigit() or int(size) > POINTER_LIMIT:
        return False
    return is_pointer(_git(root, "cat-file", "blob", blob)[1])


def _split(output: bytes) -> list[str]:
    return [os.fsdecode(part) for part in output.split(b"\0") if part]


def _git(root: Path, *words: str, text: bytes = b"") -> tuple[int, bytes]:
    """Run git at `root`; return its exit code and output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(root), *QUIET, *words],
        input=text,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        env=environment | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
    )
    return done.returncode, done.stdout
