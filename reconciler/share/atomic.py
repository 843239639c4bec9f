"""Atomic publishing on a share.

The sequence is: temp → write → fsync → close → rename → fsync directory → read back. A reader sees
the state before or after, never between; a killed writer leaves only temporary names, which `sweep`
removes.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.failpoints import failpoint

TEMP = ".tmp-"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def translated(error: OSError, what: str) -> GroundcrewError:
    """Return the expected error that corresponds to an OSError of the share."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in FULL:
        return Retryable(
            Reason.SHARE_FULL, f"{message}; free space on the share or run `groundcrew gc`"
        )
    if error.errno in DENIED:
        return Retryable(
            Reason.SHARE_UNWRITABLE, f"{message}; the daemon needs write access to the share"
        )
    return Retryable(Reason.SHARE_UNREACHABLE, message)


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Translate OSErrors of the share into expected errors."""
    try:
        yield
    except OSError as error:
        raise translated(error, what) from error


def make_directory(path: Path, root: Path | None = None) -> None:
    """Create a world-readable directory and its parents, whatever the umask.

    With `root`, a share, its top-level folders are never created: if they are missing, so is the
    share.
    """
    if path.is_dir():
        return
    if root is not None and path.parent == root:
        raise FileNotFoundError(
            errno.ENOENT, "it is not there; see that the share is mounted", path
        )
    make_directory(path.parent, root)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(0o755)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(beside: Path) -> Path:
    """Return a new temporary name in the same directory."""
    return beside.parent / f"{TEMP}{uuid.uuid4().hex}"


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a new file durably; `path` must not exist yet."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, point: str) -> None:
    """Replace a regular file as a whole. Raises Retryable if the share did not keep it.

    If the response to the rename was lost, the file is read to find out. `point` names the
    failpoints.
    """
    temp = temporary(path)
    with translating(f"writing {path.name}"):
        try:
            failpoint(f"{point}.before-write")
            write_file(temp, data)
            failpoint(f"{point}.before-rename")
            try:
                temp.rename(path)
            except OSError:
                if not path.is_file() or path.read_bytes() != data:
                    raise
            failpoint(f"{point}.after-rename")
            sync_directory(path.parent)
            if path.read_bytes() != data:
                raise Stalled(
                    Reason.SHARE_CORRUPT,
                    f"{path} reads back differently from what was written; check the share",
                )
        finally:
            temp.unlink(missing_ok=True)


def publish_directory(staged: Path, path: Path, point: str) -> None:
    """Give a complete, durable directory its final name; an existing directory stays."""
    with translating(f"publishing {path.name}"):
        failpoint(f"{point}.before-rename")
        try:
            staged.rename(path)
        except OSError as error:
            if not path.is_dir():
                raise
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                shutil.rmtree(staged, ignore_errors=True)
        failpoint(f"{point}.after-rename")
        sync_directory(path.parent)


def sweep(directory: Path, now: float | None = None, grace: float = 3600.0) -> int:
    """Remove temporary names older than `grace` seconds from a directory; return how many."""
    now = time.time() if now is None else now
    removed = 0
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return 0
    for entry in entries:
        if not entry.name.startswith(TEMP):
            continue
        try:
            young = now - entry.stat(follow_symlinks=False).st_mtime < grace
        except FileNotFoundError:  # another writer's, published meanwhile
            continue
        if young:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
        removed += 1
    return removed
