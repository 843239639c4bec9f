"""The share: what lies where, and how it gets there. Disk is the truth; the records only remember.

store/sha256/<ab>/<digest>/…, builds/<build id>/…, instances/<instance>/{loader/, pointer.json}.
Everything is world-readable and published by rename; nothing is modified in place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from reconciler.core.errors import Stalled
from reconciler.faults import failpoint
from reconciler.share import locks
from reconciler.share.atomic import (
    make_directory,
    publish_directory,
    replace_file,
    sweep,
    sync_directory,
    temporary,
    translating,
    write_file,
)

MANIFEST_LIMIT = 8 << 20  # bytes of a build.json or pointer.json
COPIES = 16  # files copied at once: a share answers in parallel
ENTRY = "entry.json"
HEX = re.compile(r"^[0-9a-f]{64}$")
BUILD_ID = re.compile(r"^[0-9a-f]{16}$")
NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Named:
    """The build that a pointer names for one runtime."""

    build: str
    abi: str
    airflow: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """A parsed pointer.json; `builds` is keyed by runtime key."""

    instance: str
    load_into: tuple[str, ...]
    builds: Mapping[str, Named] = field(default_factory=dict)


class Share:
    """A directory that every Airflow pod mounts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the layout and clear what killed writers left.

        Raises Stalled("ShareUnwritable") when that cannot be.
        """
        try:
            for part in ("store/sha256", "builds", "instances"):
                make_directory(self.root / part)
            probe = temporary(self.root / "probe")
            write_file(probe, b"")
            probe.unlink()
        except OSError as error:
            raise Stalled(
                "ShareUnwritable",
                f"{self.root} cannot be written ({error.strerror}); mount it read-write for the "
                f"daemon or set GROUNDCREW_SHARE",
            ) from error
        sweep(self.root)
        sweep(self.root / "builds")

    # ---------------------------------------------------------------------------------- store

    def entry(self, digest: str) -> Path:
        """Where the store entry of a digest is, or would be."""
        assert HEX.match(digest), digest
        return self.root / "store" / "sha256" / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Is the store entry there; entries appear under their name only when complete."""
        with translating(f"looking for store entry {digest[:12]}"):
            return (self.entry(digest) / ENTRY).is_file()

    def put(self, digest: str, staged: Path) -> Path:
        """Publish a directory tree as the store entry of `digest`, once; returns its path.

        Files are copied in parallel, made durable, and the entry is renamed into place when it
        is complete. Symlinks are refused with Stalled("UnsafeEntry").
        """
        path = self.entry(digest)
        if self.has(digest):
            return path
        with translating(f"writing store entry {digest[:12]}"):
            make_directory(path.parent)
            sweep(path.parent)
            if path.exists():  # without its entry.json: not ours, not complete
                shutil.rmtree(path)
            temp = temporary(path)
            make_directory(temp)
            try:
                failpoint("share.put.before-copy")
                files, size = _copy_tree(staged, temp)
                failpoint("share.put.before-entry")
                described = json.dumps({"schema": 1, "files": files, "bytes": size})
                write_file(temp / ENTRY, described.encode())
                sync_directory(temp)
                publish_directory(temp, path, "share.put")
            finally:
                shutil.rmtree(temp, ignore_errors=True)
        return path

    def size(self) -> int:
        """Bytes in the store, as the entries themselves say."""
        total = 0
        with translating("measuring the store"):
            for prefix in os.scandir(self.root / "store" / "sha256"):
                for entry in os.scandir(prefix.path):
                    described = self._read(Path(entry.path) / ENTRY) or {}
                    size = described.get("bytes")
                    total += size if isinstance(size, int) else 0
        return total

    def making(self) -> AbstractContextManager[None]:
        """Keep the garbage collector away while a build is made; see `locks`."""
        return locks.making(self.root)

    # --------------------------------------------------------------------------------- builds

    def build_path(self, build_id: str) -> Path:
        """The directory of a build."""
        assert BUILD_ID.match(build_id), build_id
        return self.root / "builds" / build_id

    def put_build(self, build_id: str, files: Mapping[str, bytes]) -> None:
        """Publish a build's files, with `build.json` among them, as one directory, once."""
        assert "build.json" in files, "a build is its build.json"
        path = self.build_path(build_id)
        if self.build(build_id) is not None:
            return
        with translating(f"writing build {build_id}"):
            if path.exists():
                shutil.rmtree(path)
            temp = temporary(path)
            make_directory(temp)
            try:
                for name in sorted(files, key=lambda name: name == "build.json"):
                    failpoint(f"share.put_build.{name}")
                    write_file(temp / name, files[name])
                sync_directory(temp)
                publish_directory(temp, path, "share.put_build")
            finally:
                shutil.rmtree(temp, ignore_errors=True)

    def build(self, build_id: str) -> dict[str, object] | None:
        """The parsed build.json of a complete build whose store entries are all there."""
        found = self._read(self.build_path(build_id) / "build.json")
        if found is None or found.get("build") != build_id:
            return None
        entries = found.get("entries", [])
        if not isinstance(entries, list):
            return None
        return found if all(isinstance(e, str) and self.has(e) for e in entries) else None

    def mark_verified(self, build_id: str, runtime_key: str, report: Mapping[str, object]) -> None:
        """Note that a build was verified for a runtime, and what was seen then."""
        folder = self.build_path(build_id) / "verified"
        with translating(f"marking build {build_id} as verified"):
            make_directory(folder)
            text = json.dumps({"schema": 1, "runtime": runtime_key, **report}, sort_keys=True)
            replace_file(folder / f"{runtime_key}.json", text.encode(), "share.mark_verified")

    def verified(self, build_id: str, runtime_key: str) -> bool:
        """Is the build complete, and verified for this runtime."""
        mark = self._read(self.build_path(build_id) / "verified" / f"{runtime_key}.json")
        return mark is not None and self.build(build_id) is not None

    def lock_text(self, build_id: str) -> str | None:
        """The lock of a complete build; None when it has none."""
        with translating(f"reading the lock of build {build_id}"):
            try:
                with (self.build_path(build_id) / "pylock.toml").open("rb") as file:
                    return file.read(MANIFEST_LIMIT).decode()
            except FileNotFoundError:
                return None

    def complete_builds(self) -> list[str]:
        """Ids of all builds on the share, complete ones only."""
        with translating("listing the builds"):
            names = sorted(e.name for e in os.scandir(self.root / "builds"))
        return [n for n in names if BUILD_ID.match(n) and self.build(n) is not None]

    # ------------------------------------------------------------------------------ instances

    def instance_path(self, instance: str) -> Path:
        """The directory of an instance."""
        assert NAME.match(instance), instance
        return self.root / "instances" / instance

    def install_loader(self, instance: str) -> Path:
        """Put the loader in place, once per version of it; returns its directory."""
        folder = self.instance_path(instance) / "loader"
        source = resources.files("reconciler.share") / "loader" / "sitecustomize.py"
        data = source.read_bytes()
        path = folder / "sitecustomize.py"
        with translating(f"installing the loader of {instance}"):
            make_directory(folder)
            if not path.is_file() or path.read_bytes() != data:
                replace_file(path, data, "share.install_loader")
        return folder

    def pointer(self, instance: str) -> Pointer | None:
        """What an instance's pointer says; None when there is none or it is not one."""
        found = self._read(self.instance_path(instance) / "pointer.json")
        if found is None:
            return None
        try:
            builds = found["builds"]
            assert isinstance(builds, dict)
            return Pointer(
                instance,
                tuple(map(str, found.get("loadInto", []))),  # type: ignore[call-overload]
                {k: Named(v["build"], v["abi"], v["airflow"]) for k, v in builds.items()},
            )
        except (KeyError, TypeError, AssertionError):
            return None

    def point(
        self,
        instance: str,
        runtime_key: str,
        build_id: str | None,
        *,
        abi: str,
        airflow: str,
        load_into: Sequence[str],
    ) -> None:
        """Let an instance use a build on one runtime; None returns it to the bare base there."""
        assert build_id is None or BUILD_ID.match(build_id), build_id
        pointer = self.pointer(instance)
        builds = dict(pointer.builds) if pointer is not None else {}
        builds.pop(runtime_key, None)
        if build_id is not None:
            builds[runtime_key] = Named(build_id, abi, airflow)
        document = {
            "schema": 1,
            "instance": instance,
            "loadInto": list(load_into),
            "builds": {
                key: {"build": n.build, "abi": n.abi, "airflow": n.airflow}
                for key, n in builds.items()
            },
        }
        folder = self.instance_path(instance)
        with translating(f"switching {instance}"):
            make_directory(folder)
            sweep(folder)
        replace_file(folder / "pointer.json", json.dumps(document).encode(), "share.point")

    def _read(self, path: Path) -> dict[str, object] | None:
        """A JSON object from the share; None when it is missing, too large or not one."""
        with translating(f"reading {path.name}"):
            try:
                with path.open("rb") as file:
                    data = file.read(MANIFEST_LIMIT + 1)
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            found = json.loads(data) if len(data) <= MANIFEST_LIMIT else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _copy_tree(source: Path, target: Path) -> tuple[int, int]:
    """Copy files in parallel, durably and world-readable; returns (files, bytes)."""
    files: list[tuple[Path, Path]] = []
    folders = [target]
    for folder, names, leaves in os.walk(source):
        here = target / Path(folder).relative_to(source)
        for name in names + leaves:
            if (Path(folder) / name).is_symlink():
                raise Stalled("UnsafeEntry", f"{name} is a symlink; packages may not hold any")
        for name in names:
            make_directory(here / name)
            folders.append(here / name)
        files += [(Path(folder) / leaf, here / leaf) for leaf in leaves]
    with ThreadPoolExecutor(COPIES) as pool:
        size = sum(pool.map(lambda pair: _copy_file(*pair), files))
    for made in folders:
        sync_directory(made)
    return len(files), size


def _copy_file(source: Path, target: Path) -> int:
    mode = 0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        os.fsync(writer.fileno())
        return writer.tell()
