"""Layout of the share, and all writes to it. Disk is the truth; the records only remember.

store/sha256/<ab>/<digest>/…, builds/<build id>/…, instances/<instance>/{loader/, pointer.json}.
Everything is world-readable and published by rename; nothing is modified in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.failpoints import failpoint
from reconciler.share import locks, marker
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
from reconciler.share.entries import MANIFEST_LIMIT, EntryStore, copy_file, read_document
from reconciler.share.hot import HOT, Need, hot_json, hot_packs, pack_entry
from reconciler.share.packs import Pack
from reconciler.share.schemas import BuildDocument, HotDocument, PointerDocument, ReportDocument

PACKERS = 4  # entries packed at once
PROVES = "groundcrew_proof.py"  # the part of the loader that leaves proofs
LOADER = ("groundcrew_packs.py", "groundcrew_local.py", PROVES, "sitecustomize.py")
BASES = 4  # bases of one instance for which its pointer has entries: the newest
BARE = "none"  # the bare base, instead of a build id
BUILD_ID = re.compile(r"^[0-9a-f]{16}$")
NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Named:
    """Build that a pointer names for one runtime, or BARE; `listing` tells bases apart."""

    build: str
    abi: str
    airflow: str
    listing: str = ""


@dataclass(frozen=True, slots=True)
class BaseName:
    """Base as the loader tells it from others: a runtime's key, its ABI, Airflow and listing."""

    key: str
    abi: str
    airflow: str
    listing: str = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Parsed pointer.json; `entries` is keyed by runtime key, the newest last.

    `dropped` are the builds of bases so old that the last change of the pointer removed them.
    """

    instance: str
    load_into: tuple[str, ...]
    entries: Mapping[str, Named] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def builds(self) -> dict[str, Named]:
        """Return the entries that name a build."""
        return {key: named for key, named in self.entries.items() if named.build != BARE}

    def loaded(self, base: BaseName) -> tuple[str, str] | None:
        """Return the build that a base loads, and the key that names it; None for the bare base.

        It chooses like the loader: if its key has no entry, the newest of the same Airflow.
        """
        same = base.abi, base.airflow
        alike = [key for key, n in self.entries.items() if (n.abi, n.airflow) == same]
        alike = [key for key in alike if self.entries[key].listing == base.listing] or alike
        chosen = base.key if base.key in self.entries else next(reversed(alike), "")
        return (self.builds[chosen].build, chosen) if chosen in self.builds else None


class Share(EntryStore):
    """Directory that every Airflow pod mounts."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.check: Callable[[], None] = lambda: None  # raises if this daemon may not act
        self.id = ""  # of its marker, once `prepare` has read it

    def prepare(self, known: marker.Known = marker.Known()) -> None:  # noqa: B008 - it is frozen
        """Create the layout and remove what killed writers left.

        Raises Stalled("ShareMissing") if it is not the share that the records belong to,
        Stalled("ShareUnwritable") if it cannot be written.
        """
        try:
            self.id = marker.recognise(self.root, known)
            for part in ("store/sha256", "builds", "instances", "logs", "tools"):
                make_directory(self.root / part)
            probe = temporary(self.root / "probe")
            write_file(probe, b"")
            probe.unlink()
        except OSError as error:
            raise Stalled(
                Reason.SHARE_UNWRITABLE,
                f"{self.root} cannot be written ({error.strerror}); mount it read-write for the "
                f"daemon or set GROUNDCREW_SHARE",
            ) from error
        sweep(self.root)
        sweep(self.root / "builds")

    def space(self) -> tuple[int, int]:
        """Return the file system's (size, space for the daemon) in bytes; may hang."""
        self.require()
        with translating("looking how full the share is"):
            stats = os.statvfs(self.root)
        return stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize

    def require(self) -> None:
        """Raise Retryable("ShareMissing") if the prepared share is not there any more."""
        if self.id:
            marker.require(self.root, self.id)

    def making(self) -> AbstractContextManager[None]:
        """Hold off the garbage collector while a build is put on the share; see `locks`.

        Raises Retryable, such as ShareMissing.
        """
        self.require()
        return locks.making(self.root)

    # --------------------------------------------------------------------------------- builds

    def build_path(self, build_id: str) -> Path:
        """Return the directory of a build."""
        assert BUILD_ID.match(build_id), build_id
        return self.root / "builds" / build_id

    def put_build(
        self,
        build_id: str,
        files: Mapping[str, bytes],
        whole: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        """Publish a build's files, including `build.json`, as one directory, once.

        `whole` are (SHA-256, bytes) of the whole packs of its entries, by the entries' digests: the
        build is loaded from these until it has hot packs.
        """
        assert "build.json" in files, "a build is its build.json"
        path = self.build_path(build_id)
        if self.build(build_id) is not None:
            return
        if whole:
            packs = {digest: Pack(*row) for digest, row in whole.items()}
            files = {**files, HOT: hot_json(packs, whole=True)}
        with translating(f"writing build {build_id}"):
            if path.exists():
                shutil.rmtree(path)
            temp = temporary(path)
            make_directory(temp, self.root)
            try:
                for name in sorted(files, key=lambda name: name == "build.json"):
                    failpoint(f"share.put_build.{name}")
                    write_file(temp / name, files[name])
                sync_directory(temp)
                publish_directory(temp, path, "share.put_build")
            finally:
                shutil.rmtree(temp, ignore_errors=True)

    def build(self, build_id: str) -> BuildDocument | None:
        """Return the build.json of a complete build whose store entries all exist."""
        document = read_document(self.build_path(build_id) / "build.json", BuildDocument)
        if document is None or document.build != build_id:
            return None
        return document if all(map(self.has, document.entries)) else None

    def on_path(self, build_id: str) -> list[str]:
        """Return the store entries that a complete build puts on sys.path, in order."""
        document = self.build(build_id)
        return document.on_path if document is not None else []

    def renew(self, build_id: str) -> bool:
        """Return True if a build is complete; it then counts as new and stays for a while.

        Call it while `making` is held: otherwise the build may be removed right after the check.
        """
        if self.build(build_id) is None:
            return False
        with translating(f"renewing build {build_id}"):
            os.utime(self.build_path(build_id))
        return True

    def put_packs(
        self,
        build_id: str,
        hot: Mapping[str, Collection[str]],
        more: Mapping[str, Collection[str]] | None = None,
    ) -> dict[str, Need]:
        """Pack the hot files of a build for the loader; return what imports need, by store entry.

        `more` files are packed with them and do not count as needed. The entries are spread. A
        suitable existing pack is used again: it may contain more than this build needs.
        """
        digests = self.on_path(build_id)
        with translating(f"packing build {build_id}"), ThreadPoolExecutor(PACKERS) as pool:
            made = list(
                pool.map(
                    lambda d: pack_entry(self.entry(d), hot.get(d, ()), (more or {}).get(d, ())),
                    digests,
                )
            )
        text = hot_json({digest: pack for digest, (pack, _) in zip(digests, made, strict=True)})
        replace_file(self.build_path(build_id) / HOT, text, "share.put_packs")
        return {digest: need for digest, (_, need) in zip(digests, made, strict=True)}

    def packs(self, build_id: str) -> dict[str, Pack]:
        """Return the hot packs that a build names, by the digests of their store entries."""
        return hot_packs(read_document(self.build_path(build_id) / HOT, HotDocument))

    def spread_build(self, build_id: str, check: Callable[[], None]) -> None:
        """Create the folders of a build's entries; `check` is called in between, and may raise."""
        self.spread(self.on_path(build_id), check)

    def is_spread_build(self, build_id: str) -> bool:
        """Return True if the folders of all entries of a build exist."""
        with translating(f"looking at build {build_id}"):
            return all(map(self.is_spread, self.on_path(build_id)))

    def mark_verified(self, build_id: str, runtime_key: str, report: Mapping[str, object]) -> None:
        """Record that a build was verified for a runtime, with the verification's report."""
        folder = self.build_path(build_id) / "verified"
        with translating(f"marking build {build_id} as verified"):
            make_directory(folder, self.root)
            text = json.dumps({"schema": 1, "runtime": runtime_key, **report}, sort_keys=True)
            replace_file(folder / f"{runtime_key}.json", text.encode(), "share.mark_verified")

    def verified(self, build_id: str, runtime_key: str) -> bool:
        """Return True if the build is complete, and verified for this runtime."""
        return self.report(build_id, runtime_key) is not None

    def is_present(self, build_id: str, runtime_key: str) -> bool:
        """Return True if a build seems to be complete and verified: its marks are there."""
        folder = self.build_path(build_id)
        with translating(f"looking for build {build_id}"):
            marks = (folder / "build.json", folder / "verified" / f"{runtime_key}.json")
            return all(mark.is_file() for mark in marks)

    def report(self, build_id: str, runtime_key: str) -> dict[str, object] | None:
        """Return the verification report of a complete build for this runtime, or None.

        It was written by the build's own code, except for files, bytes and packages.
        """
        path = self.build_path(build_id) / "verified" / f"{runtime_key}.json"
        mark = read_document(path, ReportDocument)
        if mark is None or self.build(build_id) is None:
            return None
        return mark.model_dump(exclude_none=True)

    def lock_text(self, build_id: str) -> str | None:
        """Return the lock of a complete build, or None."""
        with translating(f"reading the lock of build {build_id}"):
            try:
                with (self.build_path(build_id) / "pylock.toml").open("rb") as file:
                    return file.read(MANIFEST_LIMIT).decode()
            except FileNotFoundError:
                return None

    def complete_builds(self) -> list[str]:
        """Return the ids of all complete builds on the share."""
        with translating("listing the builds"):
            names = sorted(e.name for e in os.scandir(self.root / "builds"))
        return [n for n in names if BUILD_ID.match(n) and self.build(n) is not None]

    # ---------------------------------------------------------------------------------- tools

    def put_tools(self, files: Mapping[str, Path]) -> Path:
        """Publish programs for Jobs as a directory named by its content; return its path."""
        digest = hashlib.sha256()
        for name, source in sorted(files.items()):
            digest.update(name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
        path = self.root / "tools" / digest.hexdigest()[:16]
        if path.is_dir():
            return path
        with translating("placing the tools of Jobs"):
            make_directory(path.parent, self.root)
            temp = temporary(path)
            make_directory(temp)
            try:
                for name, source in files.items():
                    copy_file(source, temp / name)
                sync_directory(temp)
                publish_directory(temp, path, "share.put_tools")
            finally:
                shutil.rmtree(temp, ignore_errors=True)
        return path

    # ------------------------------------------------------------------------------ instances

    def instance_path(self, instance: str) -> Path:
        """Return the directory of an instance."""
        assert NAME.match(instance), instance
        return self.root / "instances" / instance

    def install_loader(self, instance: str) -> Path:
        """Install the loader, once per version of it; return its directory."""
        folder = self.instance_path(instance) / "loader"
        with translating(f"installing the loader of {instance}"):
            make_directory(folder, self.root)
            for name, data in loader_files().items():  # in the order of their dependencies
                path = folder / name
                if not path.is_file() or path.read_bytes() != data:
                    replace_file(path, data, "share.install_loader")
        return folder

    def instances_with_loader(self) -> list[str]:
        """Return the instances that have a loader, whatever release installed it."""
        with translating("listing the instances"):
            folders = [Path(entry.path) for entry in os.scandir(self.root / "instances")]
            return sorted(f.name for f in folders if NAME.match(f.name) and (f / "loader").is_dir())

    def loader_since(self, instance: str) -> float | None:
        """Return since when an instance's loader leaves proofs; None if it does not."""
        with translating(f"looking at the loader of {instance}"):
            try:
                return (self.instance_path(instance) / "loader" / PROVES).stat().st_mtime
            except (FileNotFoundError, NotADirectoryError):
                return None

    def pointer(self, instance: str) -> Pointer | None:
        """Return an instance's pointer, or None if it is missing or invalid."""
        document = read_document(self.instance_path(instance) / "pointer.json", PointerDocument)
        if document is None:
            return None
        entries = {
            k: Named(v.build, v.abi, v.airflow, v.listing) for k, v in document.builds.items()
        }
        return Pointer(instance, tuple(document.load_into), entries, tuple(document.dropped))

    def points(
        self,
        instance: str,
        base: BaseName,
        build_id: str | None,
        load_into: Sequence[str],
        *,
        inherits: bool = False,
    ) -> bool:
        """Return True if `point` would change nothing relevant."""
        pointer = self.pointer(instance) or Pointer(instance, ())
        named = None if inherits else _named(base, build_id)
        wanted = _with(pointer.entries, base.key, named)
        same = list(pointer.entries.items()) == list(wanted.items())  # the newest is the last
        return same and (build_id is None or pointer.load_into == tuple(load_into))

    def point(
        self,
        instance: str,
        base: BaseName,
        build_id: str | None,
        load_into: Sequence[str],
        *,
        inherits: bool = False,
    ) -> None:
        """Point an instance to a build on one base; None returns it to the bare base there.

        `inherits`: the build is another base's; no entry is written for this one, see `loaded`.
        Entries of the oldest other bases are removed: `dropped` of the pointer lists their builds.
        """
        assert build_id is None or BUILD_ID.match(build_id), build_id
        pointer = self.pointer(instance) or Pointer(instance, ())
        named = None if inherits else _named(base, build_id)
        entries = _with(pointer.entries, base.key, named)
        gone = pointer.builds.keys() - entries.keys() - {base.key}
        document = {
            "schema": 1,
            "instance": instance,
            "loadInto": list(load_into),
            "builds": {
                key: {"build": n.build, "abi": n.abi, "airflow": n.airflow, "listing": n.listing}
                for key, n in entries.items()
            },
            "dropped": sorted({pointer.builds[key].build for key in gone}),
        }
        folder = self.instance_path(instance)
        with translating(f"switching {instance}"):
            make_directory(folder, self.root)
            sweep(folder)
        self.check()
        replace_file(folder / "pointer.json", json.dumps(document).encode(), "share.point")


@cache
def loader_files() -> Mapping[str, bytes]:
    """Return the files of this release's loader by their names, in the order to write them."""
    folder = resources.files("reconciler.share") / "loader"
    return {name: (folder / name).read_bytes() for name in LOADER}


def _named(base: BaseName, build_id: str | None) -> Named:
    return Named(build_id or BARE, base.abi, base.airflow, base.listing)


def _with(entries: Mapping[str, Named], key: str, named: Named | None) -> dict[str, Named]:
    """Return entries with a runtime's newest one (none if None), and those of few others.

    The bare base is named only if the loader could mistake another entry for this runtime's.
    """
    rest = dict([(k, n) for k, n in entries.items() if k != key][1 - BASES :])
    if named is None:
        return rest
    alike = any((n.abi, n.airflow) == (named.abi, named.airflow) for n in rest.values())
    return {**rest, key: named} if alike or named.build != BARE else rest
