"""Local copies of the files that a build's imports need, shared by all processes of a machine.

The loader imports this only if a build has packs. A pack contains the hot files of one store entry
(or all of them); the rest of the entry becomes links to the share. If anything fails, an entry is
used directly from the share. Standard library only, Python 3.9 and newer.

Files are kept below groundcrew-<uid> in the folder that GROUNDCREW_LOCAL names (if several: the
first usable one; "off": none; unset: TMPDIR or /tmp), for each share and boot of the machine:

  <digest>-<pack>           a link to the unpacked pack; once evicted, to the entry on the share
  .data/<digest>-<pack>.…   unpacked packs, each written once and never changed
  .build-<build>            of a build whose packs all exist: its build.json and links

Paths of running processes go through the links, so that eviction takes nothing away from them.
"""

from __future__ import annotations

import os
import sys
import time

from groundcrew_packs import (  # type: ignore[import-not-found]  # beside this file
    Spoiled,
    open_pack,
    read_block,
)

TYPE_CHECKING = False  # type checkers treat it as true: typing costs an import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

LIMIT = 4 << 30  # bytes of all unpacked packs, unless GROUNDCREW_LOCAL_LIMIT says otherwise
SPARE = 64 << 20  # bytes that always stay free on the disk
PATIENCE = 120.0  # seconds that a process waits for another one that is unpacking
THREADS = 6


def localise(
    root: str, place: str, packs: dict[str, Any], note: str, about: dict[str, Any]
) -> dict[str, str]:
    """Return the folders to use instead of entries: {digest: local folder}; others stay remote.

    `place` is a folder of ours. `packs` is {digest: {"pack": SHA-256 of the pack's head, "bytes":
    size when unpacked, "whole": whether it contains all files of the entry, "xz": whether it is
    compressed by xz}}. If all packs that this Python can unpack exist, the file `note` (none if "")
    records that together with `about`: no further process imports this module.
    """
    beyond = _beyond(packs)
    wanted = {}
    for digest, row in packs.items():
        if digest not in beyond and digest.isalnum() and row["pack"].isalnum():
            wanted[digest] = os.path.join(place, "%s-%s" % (digest, row["pack"][:16]))
    missing = [digest for digest in wanted if not _ready(wanted[digest])]
    if missing:
        with _Lock(os.path.join(place, ".lock")) as held:
            missing = [digest for digest in missing if held and not _ready(wanted[digest])]
            if missing:  # otherwise another process has just created it
                _unpack_all(root, place, {d: packs[d] for d in missing}, set(wanted.values()))
    folders = {}
    for digest, link in wanted.items():
        if _ready(link):
            folders[digest] = link
            try:
                os.utime(link, follow_symlinks=False)  # used now: evicted last
            except OSError:
                pass
    if note and len(folders) + len(beyond) == len(packs):
        _note(os.path.join(place, note), folders, about)
    return folders


def _beyond(packs: dict[str, Any]) -> set[str]:
    """Return digests whose packs this Python cannot unpack: xz, if it was built without."""
    xz = {digest for digest, row in packs.items() if row.get("xz")}
    if not xz:
        return xz
    from importlib.util import find_spec

    return set() if find_spec("_lzma") else xz


def _note(path: str, found: dict[str, str], about: dict[str, Any]) -> None:
    """Record the links of a build and their targets: {digest: [link, unpacked pack]}."""
    import json

    temp = "%s.%d" % (path, os.getpid())
    try:
        rows = {d: [os.path.basename(link), os.readlink(link)] for d, link in found.items()}
        with open(temp, "w") as file:
            json.dump({"links": rows, **about}, file)
        os.rename(temp, path)
    except OSError:  # a full disk: the next process tries again
        try:
            os.unlink(temp)
        except OSError:
            pass


def _ready(link: str) -> bool:
    """Return True if a link leads to an existing unpacked pack."""
    try:
        return os.readlink(link).startswith(".data") and os.path.isdir(link)
    except OSError:
        return False


class _Lock:
    """Lock for one process of this machine at a time; False if another one takes too long."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> bool:
        import fcntl

        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


# ------------------------------------------------------------------------------------------ space


def _unpack_all(root: str, place: str, packs: dict[str, Any], keep: set[str]) -> None:
    """Unpack what there is space for; each pack appears as a whole or not at all."""
    from functools import partial

    _sweep(place)
    limit = int(os.environ.get("GROUNDCREW_LOCAL_LIMIT") or LIMIT)
    chosen: list[tuple[str, dict[str, Any]]] = []
    for digest, row in packs.items():
        need = int(row["bytes"]) + sum(int(taken["bytes"]) for _, taken in chosen)
        if _make_room(root, place, need, limit, keep):
            chosen.append((digest, row))
    jobs: list[_Unpacking] = []

    def begin(digest: str, row: dict[str, Any]) -> None:
        try:
            jobs.append(_Unpacking(root, place, digest, row))
        except Exception as error:
            _say("pack of %s: %s; using the share" % (digest[:12], error))

    _run([partial(begin, digest, row) for digest, row in chosen])
    _run([task for job in jobs for task in job.tasks()])
    for job in jobs:
        try:
            job.finish()
        except Exception as error:
            _say("pack of %s: %s; using the share" % (job.digest[:12], error))
            job.discard()


def _sweep(place: str) -> None:
    """Remove what killed processes left, and files that an earlier boot left incomplete."""
    import shutil

    used = set()
    for name in os.listdir(place):
        if name.startswith(".build-"):
            try:
                os.unlink(os.path.join(place, name))  # processes that use the build record it again
            except FileNotFoundError:  # it was written just now, and has its name
                pass
        elif not name.startswith("."):
            used.add(os.path.basename(os.readlink(os.path.join(place, name))))
    data = os.path.join(place, ".data")
    for name in os.listdir(data):
        if name not in used:
            shutil.rmtree(os.path.join(data, name), ignore_errors=True)
    top, mine = os.path.split(place)
    for name in os.listdir(top):
        if name != mine and name.split("-")[0] == mine.split("-")[0]:
            shutil.rmtree(os.path.join(top, name), ignore_errors=True)


def _make_room(root: str, place: str, need: int, limit: int, keep: set[str]) -> bool:
    """Evict the least recently used packs until `need` bytes fit; return True if they do."""
    while True:
        rows = []
        for name in os.listdir(place):
            link = os.path.join(place, name)
            if not name.startswith(".") and _ready(link):
                size = int(os.readlink(link).rsplit(".", 2)[1])
                rows.append((os.lstat(link).st_mtime, size, link))
        disk = os.statvfs(place)
        fits = sum(row[1] for row in rows) + need <= limit
        if fits and disk.f_bavail * disk.f_frsize >= need + SPARE:
            return True
        rows = sorted(row for row in rows if row[2] not in keep)
        if not rows or need > limit:
            return False
        if not any(_evict(root, row[2]) for row in rows[:1]):
            return False


def _evict(root: str, link: str) -> bool:
    """Make a link lead to the share from now on, then remove the local files."""
    import shutil

    digest = os.path.basename(link).split("-")[0]
    entry = _entry(root, digest)
    if not os.path.isdir(entry):
        return False
    data = os.path.realpath(link)
    _relink(entry, link)
    shutil.rmtree(data, ignore_errors=True)
    return True


def _entry(root: str, digest: str) -> str:
    return os.path.join(root, "store", "sha256", digest[:2], digest)


def _relink(target: str, link: str) -> None:
    temp = os.path.join(os.path.dirname(link), ".tmp-%d" % os.getpid())
    if os.path.lexists(temp):
        os.unlink(temp)
    os.symlink(target, temp)
    os.rename(temp, link)


# -------------------------------------------------------------------------------------- unpacking


class _Unpacking:
    """Pack that is being unpacked to the local disk; raises Spoiled or OSError."""

    def __init__(self, root: str, place: str, digest: str, row: dict[str, Any]) -> None:
        import binascii

        self.root, self.place, self.digest, self.row = root, place, digest, row
        self.name = "%s-%s" % (digest, row["pack"][:16])
        self.problem: Exception | None = None
        random = binascii.hexlify(os.urandom(4)).decode()
        self.data = os.path.join(place, ".data", "%s.%d.%s" % (self.name, row["bytes"], random))
        entry = _entry(root, digest)
        path = entry + (".all" if row.get("whole") else "-%s.pack" % row["pack"])
        self.handle, self.offset, self.index, self.head = open_pack(path, row["pack"])
        self.apart: dict[str, int] = {}
        try:
            self._open_apart(entry)
            os.makedirs(self.data)
            for folder in self.index["folders"]:
                os.makedirs(os.path.join(self.data, _safe(folder)), exist_ok=True)
        except BaseException:
            self._close()
            self.discard()
            raise

    def _open_apart(self, entry: str) -> None:
        """Open the entry's files that contain blocks, in the same way as the pack."""
        import fcntl

        direct = fcntl.fcntl(self.handle, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0)
        for block in self.index["blocks"]:
            path = block["parts"][0][0]
            if block.get("apart") and path not in self.apart:
                name = os.path.join(entry, _safe(path))
                self.apart[path] = os.open(name, os.O_RDONLY | os.O_CLOEXEC | direct)

    def _close(self) -> None:
        for handle in (self.handle, *self.apart.values()):
            os.close(handle)

    def tasks(self) -> list[Callable[[], None]]:
        """Return one task for each block; they may run at the same time."""
        from functools import partial

        tasks: list[Callable[[], None]] = []
        offset = self.offset
        for block in self.index["blocks"]:
            path, at = block["parts"][0][:2]
            if block.get("apart"):
                tasks.append(partial(self._block, block, self.apart[path], at, None))
            else:
                tasks.append(partial(self._block, block, self.handle, offset, self.head))
                offset += block["packed"]
        return tasks

    def _block(
        self, block: dict[str, Any], handle: int, offset: int, head: memoryview | None
    ) -> None:
        if self.problem is None:
            try:
                self._write(block, read_block(handle, block, offset, head))
            except Exception as error:
                self.problem = error

    def _write(self, block: dict[str, Any], data: bytes | memoryview) -> None:
        begin = 0
        view = memoryview(data)
        for path, at, size, mode in block["parts"]:
            target = os.path.join(self.data, _safe(path))
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
            try:
                part = view[begin : begin + size]
                while part:
                    done = os.pwrite(handle, part, at)
                    at += done
                    part = part[done:]
            finally:
                os.close(handle)
            begin += size

    def finish(self) -> None:
        """Link what the pack does not contain, then give the whole its name."""
        self._close()
        if self.problem is not None:
            raise self.problem
        entry = _entry(self.root, self.digest)
        for path in self.index["cold"]:
            os.symlink(os.path.join(entry, path), os.path.join(self.data, _safe(path)))
        _relink(os.path.join(".data", os.path.basename(self.data)), self._link())

    def _link(self) -> str:
        return os.path.join(self.place, self.name)

    def discard(self) -> None:
        """Remove what was written."""
        import shutil

        shutil.rmtree(self.data, ignore_errors=True)


def _safe(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise Spoiled("a path leaves the pack")
    return path


def _run(tasks: Iterable[Callable[[], None]]) -> None:
    """Run all tasks, some in parallel."""
    import threading

    left = list(tasks)[::-1]

    def work() -> None:
        while left:
            try:
                task = left.pop()
            except IndexError:
                return
            task()

    threads = [threading.Thread(target=work) for _ in range(THREADS - 1)]
    started = []
    for thread in threads:
        try:
            thread.start()
            started.append(thread)
        except RuntimeError:  # no more threads here: the others do it
            break
    work()
    for thread in started:
        thread.join()


def _say(words: str) -> None:
    sys.stderr.write("groundcrew: %s\n" % words)
