"""Contents of a wheel: checked for anything harmful, then unpacked as an installer would.

A wheel's own hash has already been checked against the lock. Its RECORD is only a list of its
contents: if a line is wrong, pip and uv install the wheel all the same, and so does this module,
with a warning.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self, cast

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.records import RecordEntry
from installer.sources import WheelContentElement, WheelFile
from installer.utils import Scheme
from packaging.utils import canonicalize_name

from reconciler.builder.index.filenames import NAME_LIMIT
from reconciler.builder.local_disk import disk_error
from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.reasons import Reason

UNPACKED_LIMIT = 4 << 30  # bytes of one unpacked wheel
FILES_LIMIT = 100_000
DIST_INFO_LIMIT = 64 << 20  # bytes of a metadata file, which is read whole
PATH_LIMIT = 1024  # bytes of a path in a wheel; PATH_MAX is 4,096 including the folder around it
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others cannot be read with limits
ISSUES = 20  # wrong lines of a RECORD that are reported
WRONG_TREE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors of a file system that rejects the names of a wheel, whatever disk it is."""

INTERPRETER = "/python"  # stands for the interpreter until PROGRAM replaces its line
PROGRAM = b"""#!/bin/sh
'''exec' "${GROUNDCREW_PYTHON:-python3}" "$0" "$@"
' '''"""
"""First lines of a program: sh reads them as commands, Python as a string."""


class _Source(WheelFile):
    """Wheel of which every member is installed, even if its RECORD is wrong."""

    @classmethod
    @contextmanager
    def open_unlisted(cls, path: Path) -> Iterator[Self]:
        """Open a wheel; its files may differ from its RECORD."""
        with zipfile.ZipFile(path) as archive:
            yield cls(archive)

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Yield every file with an empty record; the installer computes the true one."""
        for item in self._zipfile.infolist():
            if not item.is_dir():
                executable = bool(item.external_attr >> 16 & stat.S_IXUSR)
                with self._zipfile.open(item) as stream:
                    yield (item.filename, "", ""), cast(BinaryIO, stream), executable


class _Destination(SchemeDictionaryDestination):
    """Folders for a wheel's files; its programs run with the interpreter of whoever starts them.

    Instances with interpreters at different paths share an entry. The loader provides the
    interpreter.
    """

    def write_to_fs(
        self, scheme: Scheme, path: str, stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        if scheme == "scripts":
            first, end, rest = stream.read().partition(b"\n")
            if first.startswith(b"#!" + INTERPRETER.encode()):
                first = PROGRAM
            stream, is_executable = io.BytesIO(first + end + rest), True
        try:
            return super().write_to_fs(scheme, path, stream, is_executable)
        except OSError as error:
            if isinstance(error, FileExistsError) or error.errno in WRONG_TREE:
                raise Stalled(
                    Reason.INVALID_WHEEL,
                    f"{path[:300]!r} cannot be installed ({error.strerror or 'it is there twice'})",
                ) from error
            raise


def unpack_wheel(wheel: Path, name: str, staged: Path) -> list[str]:
    """Unpack a wheel in a worker process and return the messages; see `unpack`."""
    told: list[str] = []
    unpack(wheel, name, staged, told.append)
    return told


def unpack(wheel: Path, name: str, staged: Path, say: Callable[[str], None]) -> None:
    """Check a wheel, then unpack it into `staged` as lib/, bin/ and data/.

    Harmless mistakes in its RECORD are reported by `say`. Raises Stalled: UnsafeWheel for entries
    that leave the folder, links or bombs; InvalidWheel for a wheel without RECORD, with two files
    of the same name, or of another package.
    """
    refuse_unsafe(wheel)
    lib = staged / "lib"
    folders = {
        "purelib": lib,
        "platlib": lib,
        "scripts": staged / "bin",
        "data": staged / "data",
        "headers": staged / "headers",
    }
    lib.mkdir(parents=True)
    try:
        with _Source.open_unlisted(wheel) as source:
            _tell_record(source, wheel.name, say)
            if canonicalize_name(source.distribution) != canonicalize_name(name):
                raise Stalled(Reason.INVALID_WHEEL, f"{wheel.name} is not a wheel of {name}")
            destination = _Destination(
                {key: str(path) for key, path in folders.items()},
                interpreter=INTERPRETER,
                script_kind="posix",
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about bytecode in wheels, which is not installed
                install(source, destination, additional_metadata={"INSTALLER": b"groundcrew\n"})
    except GroundcrewError as error:
        if error.message.startswith(wheel.name):
            raise
        raise Stalled(error.reason, f"{wheel.name}: {error.message}") from error
    except OSError as error:
        raise disk_error(error) from error
    except Exception as error:
        raise Stalled(
            Reason.INVALID_WHEEL, f"{wheel.name} is broken: {str(error)[:500]}"
        ) from error
    shutil.rmtree(staged / "headers", ignore_errors=True)
    _place_data(staged)


def _place_data(staged: Path) -> None:
    """Move modules and programs of the data scheme to where an installer puts all others.

    The rest stays in data/, relative to the prefix.
    """
    data = staged / "data"
    sites = [*data.glob("lib*/python3*/site-packages")]
    moves = [(site, staged / "lib") for site in sites] + [(data / "bin", staged / "bin")]
    for source, target in moves:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
            shutil.rmtree(source)
    if data.is_dir() and not any(path.is_file() for path in data.rglob("*")):
        shutil.rmtree(data)


def _tell_record(source: WheelFile, name: str, say: Callable[[str], None]) -> None:
    """Report differences from a wheel's RECORD. Raises Stalled("InvalidWheel") if there is none."""
    if "RECORD" not in source.dist_info_filenames:
        raise Stalled(Reason.INVALID_WHEEL, f"{name} has no RECORD, so it is not a wheel")
    try:
        source.validate_record(validate_contents=True)
    except source.validation_error as error:
        for issue in error.issues[:ISSUES]:
            say(f"warning: {issue}; the wheel is the one that was locked, so it is installed")


def refuse_unsafe(wheel: Path) -> None:
    """Refuse a wheel by the names, modes and sizes of its members, before anything is written.

    Raises Stalled: UnsafeWheel for anything harmful, InvalidWheel for what cannot be installed.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Stalled(Reason.INVALID_WHEEL, f"{wheel.name} is not a zip file: {error}") from error
    if len(items) > FILES_LIMIT or sum(i.file_size for i in items) > UNPACKED_LIMIT:
        raise Stalled(Reason.UNSAFE_WHEEL, f"{wheel.name} unpacks to more than is allowed")
    for item in items:
        _refuse_member(wheel.name, item)
    twice = [name for name, count in Counter(i.filename for i in items).items() if count > 1]
    if twice:
        raise Stalled(Reason.INVALID_WHEEL, f"{wheel.name} holds {twice[0][:300]!r} twice")


def _refuse_member(wheel: str, item: zipfile.ZipInfo) -> None:
    name = item.filename
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise Stalled(Reason.UNSAFE_WHEEL, f"{wheel} holds {name[:300]!r}, outside of it")
    if stat.S_ISLNK(item.external_attr >> 16):
        raise Stalled(Reason.UNSAFE_WHEEL, f"{wheel} holds a symlink, {name[:300]!r}")
    if item.compress_type not in COMPRESSIONS:
        raise Stalled(
            Reason.UNSAFE_WHEEL,
            f"{wheel} packs {name[:300]!r} in a way that wheels may not: use deflate",
        )
    if len(parts) > 1 and parts[-2].endswith(".dist-info") and item.file_size > DIST_INFO_LIMIT:
        raise Stalled(
            Reason.UNSAFE_WHEEL,
            f"{wheel} holds metadata of more than {DIST_INFO_LIMIT >> 20} MiB, {name[:300]!r}",
        )
    sizes = [len(part.encode(errors="surrogatepass")) for part in parts]
    if max(sizes) > NAME_LIMIT or sum(sizes) + len(sizes) > PATH_LIMIT:
        raise Stalled(
            Reason.INVALID_WHEEL,
            f"{wheel} holds a name of more than {NAME_LIMIT} bytes, or a path of more than "
            f"{PATH_LIMIT}, which no file system takes: {name[:80]!r}…",
        )
    if any(ord(character) < 32 for character in name):
        raise Stalled(
            Reason.INVALID_WHEEL, f"{wheel} holds {name[:300]!r}, which is not a file name"
        )
