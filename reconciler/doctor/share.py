"""Checks of the share: it is writable, has the properties that publishing needs, and has space."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, failed, good
from reconciler.share import marker
from reconciler.share.atomic import (
    DENIED,
    sync_directory,
    temporary,
    translated,
    write_file,
)
from reconciler.share.share import Share

FEW = 0.10  # fraction of the space, as in the alert GroundcrewShareFilling
LEAST = 0.03
SKEW = 60.0  # seconds by which the clock of the share's server may differ
GIB = 1 << 30
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "glusterfs", "fuse.glusterfs", "9p")


def look(root: Path, known: Callable[[], str] = lambda: "") -> Iterator[Finding]:
    """Check the share at `root`; the files written for that are removed again.

    `known` returns the id of the share that the records belong to, "" if they know none.
    """
    about = str(root)
    if not root.is_dir():
        yield _wrong(
            about,
            Reason.SHARE_MISSING,
            "it is not a directory",
            "mount the share there, or set share (GROUNDCREW_SHARE)",
        )
        return
    recorded = known()
    if recorded and marker.read(root) != recorded:  # nothing is written to an empty mount point
        yield _wrong(
            about,
            Reason.SHARE_MISSING,
            f"its marker {marker.FILE} is missing or of another share than the records belong to",
            "mount the share there; if it was restored or moved: `groundcrew adopt-share`",
        )
        return
    folder = temporary(root / "doctor")
    try:
        folder.mkdir()
    except OSError as error:
        problem = translated(error, "writing to it")
        level = Level.WRONG if error.errno in DENIED else Level.UNREACHABLE
        mend = "mount it read-write, owned by the daemon's user; run this as the daemon's user"
        yield Finding(Check.SHARE, about, level, problem.reason, problem.message, mend)
        return
    troubles, skew = list[Finding](), list[Finding]()
    try:
        for kept in (_renames, _locks, _modes):
            troubles += kept(about, folder)
        skew = _skew(about, folder)
    except OSError as error:
        problem = translated(error, "writing to it")
        troubles.append(failed(Check.SHARE, about, problem))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kind, options = mounted(root)
    troubles += [*_mount(about, kind, options), *_open(about, root)]
    size, free = Share(root).space()
    troubles += space(Check.SHARE, about, size, free)
    yield from troubles
    if not troubles:
        room = f"{free / GIB:.1f} of {size / GIB:.1f} GiB are free"
        message = f"it can be written; rename, fsync and flock work ({kind or 'unknown'}); {room}"
        yield good(Check.SHARE, about, message)
    yield from skew


def _wrong(about: str, reason: Reason, message: str, mend: str) -> Finding:
    return Finding(Check.SHARE, about, Level.WRONG, reason, message, mend)


def _renames(about: str, folder: Path) -> Iterator[Finding]:
    """Check replacing a file by rename, O_EXCL, publishing a directory by rename, and fsync."""
    mend = "use a file system with POSIX renames, such as NFSv4, CephFS or a local disk"
    path, temp = folder / "pointer", folder / "temp"
    try:
        write_file(path, b"before")
        write_file(temp, b"after")
        temp.rename(path)
        sync_directory(folder)
        if path.read_bytes() != b"after" or temp.exists():
            message = "a file replaced by rename reads back as it was before"
            yield _wrong(about, Reason.RENAME_BROKEN, message, mend)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            message = "O_EXCL makes a file that is there already"
            yield _wrong(about, Reason.EXCLUSIVE_BROKEN, message, mend)
        except FileExistsError:
            pass
        one, other = folder / "one", folder / "other"
        for each in (one, other):
            each.mkdir()
            write_file(each / "build.json", b"{}")
        try:
            one.rename(other)
            message = "a directory can be renamed over one that is not empty"
            yield _wrong(about, Reason.RENAME_BROKEN, message, mend)
        except OSError:
            pass
    except OSError as error:
        problem = translated(error, "writing, syncing and renaming")
        yield _wrong(about, problem.reason, problem.message, mend)


def _locks(about: str, folder: Path) -> Iterator[Finding]:
    """Check that a lock excludes a second one and ends with its holder."""
    mend = "mount with locks: NFSv4, or NFSv3 without nolock; the garbage collector needs them"
    path = folder / "lock"
    handles = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for _ in (1, 2)]
    try:
        fcntl.flock(handles[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(handles[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield _wrong(about, Reason.LOCK_IGNORED, "two hold the same lock at once", mend)
        except BlockingIOError:
            pass
    except OSError as error:
        message = f"flock does not work: {error.strerror}"
        yield _wrong(about, Reason.LOCK_REFUSED, message, mend)
    finally:
        for handle in handles:
            os.close(handle)


def _modes(about: str, folder: Path) -> Iterator[Finding]:
    """Check that all users can read written files, and that programs stay executable."""
    program = folder / "program"
    write_file(program, b"", 0o755)
    mode = program.stat().st_mode & 0o777
    if mode & 0o555 != 0o555:
        yield _wrong(
            about,
            Reason.MODES_LOST,
            f"a file written with mode 755 has mode {mode:o}",
            "mount so that modes are kept, or with file_mode=0755 and dir_mode=0755",
        )


def _open(about: str, root: Path) -> Iterator[Finding]:
    """Check that pods of other users can enter the share."""
    if root.stat().st_mode & 0o005 != 0o005:
        yield Finding(
            Check.SHARE,
            about,
            Level.WARNING,
            Reason.NOT_WORLD_READABLE,
            "only its owner and group may enter it; an Airflow that runs as another user cannot",
            f"chmod o+rx {root}, or see that every Airflow runs with its group",
        )


def _mount(about: str, kind: str, options: tuple[str, ...]) -> Iterator[Finding]:
    alone = {"nolock", "local_lock=flock", "local_lock=all"} & {*options}
    if alone and kind.startswith("nfs"):
        yield _wrong(
            about,
            Reason.LOCK_LOCAL,
            f"it is mounted with {', '.join(sorted(alone))}: locks hold on this machine only",
            "mount it without that, as NFSv4",
        )


def _skew(about: str, folder: Path) -> list[Finding]:
    """Compare the clock of the share's server, as seen on a new file, with this machine's."""
    path = folder / "clock"
    write_file(path, b"now")
    skew = path.stat().st_mtime - time.time()
    if abs(skew) <= SKEW:
        return []
    return [
        Finding(
            Check.CLOCK,
            about,
            Level.WARNING,
            Reason.CLOCK_SKEW,
            f"the clock of the share's server differs by {skew:+.0f} s from this machine's",
            "let both keep time by NTP",
        )
    ]


def space(check: Check, about: str, size: int, free: int) -> list[Finding]:
    """Return the findings for a file system of `size` bytes with `free` bytes left."""
    part = free / size if size else 1.0
    if part >= FEW:
        return []
    level = Level.WRONG if part < LEAST else Level.WARNING
    message = f"{part:.1%} of the space is left: {free / GIB:.1f} of {size / GIB:.1f} GiB"
    advice = "make the file system larger, or free space on it"
    if check is Check.SHARE:
        advice += "; `groundcrew gc --dry-run` lists what can be removed"
    return [Finding(check, about, level, Reason.FILLING, message, advice)]


def mounted(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the type and mount options of the file system that holds `path`, or ("", ())."""
    try:
        real = path.resolve()
        mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    except OSError:
        return "", ()
    if not mounts:
        return "", ()
    longest = max(len(m.mountpoint) for m in mounts)
    mount = [m for m in mounts if len(m.mountpoint) == longest][-1]  # the last covers the others
    return mount.fstype, tuple(mount.opts.split(","))
