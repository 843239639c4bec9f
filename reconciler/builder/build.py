"""The builder: inspect, resolve, construct, verify. Each may be killed anywhere and done again.

Work happens on local disk; the share gets whole entries. What one build has fetched, unpacked and
compiled serves every later one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from packaging.utils import canonicalize_name

from reconciler.builder import overlap
from reconciler.builder.files import fetch_files
from reconciler.builder.inrepo import Export, InRepo
from reconciler.builder.inspection import inspect_base
from reconciler.builder.job import Job
from reconciler.builder.locking import Lock, make_lock
from reconciler.builder.making import WheelMaker
from reconciler.builder.manifest import Parts, build_json, sbom
from reconciler.builder.proxy import Indexes
from reconciler.builder.sandbox import Sandbox
from reconciler.builder.sdists import Sdists
from reconciler.builder.verify import Candidate, Verified, Verifier
from reconciler.builder.wheels import (
    Wheel,
    choose,
    compile_entry,
    disk_error,
    entry_digest,
    fetch,
    unpack,
)
from reconciler.core.definitions import Instance, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.model import Runtime
from reconciler.faults import failpoint
from reconciler.settings import BuilderSettings

DOWNLOADS = 8  # at once, per build


class ShareLike(Protocol):
    """What the builder uses of the share."""

    root: Path

    def has(self, digest: str) -> bool:
        """Is the store entry there."""

    def entry(self, digest: str) -> Path:
        """Where the store entry is."""

    def making(self) -> AbstractContextManager[None]:
        """Keep the garbage collector away."""

    def put(self, digest: str, staged: Path) -> Path:
        """Publish a store entry."""

    def put_build(self, build_id: str, files: Mapping[str, bytes]) -> None:
        """Publish a build."""

    def build(self, build_id: str) -> dict[str, object] | None:
        """A complete build's build.json."""

    def mark_verified(self, build_id: str, runtime_key: str, report: Mapping[str, object]) -> None:
        """Note that a build was verified."""

    def verified(self, build_id: str, runtime_key: str) -> bool:
        """Was the build verified for this runtime."""

    def install_loader(self, instance: str) -> Path:
        """Put the loader in place; returns its directory."""


@dataclass(frozen=True, slots=True)
class Built:
    """A complete build on the share, and the (name, version) pairs that it installs."""

    build_id: str
    packages: tuple[tuple[str, str], ...]


class Builder:
    """Makes builds; its methods may run in several threads at once."""

    def __init__(
        self,
        settings: BuilderSettings,
        share: ShareLike,
        export: Export,
        *,
        cache_dir: Path,
        secrets_dir: Path,
        hidden: tuple[Path, ...] = (),
    ) -> None:
        self._settings = settings
        self._share = share
        self._cache = cache_dir
        self._secrets = secrets_dir
        self._sandbox = Sandbox(settings, [secrets_dir, cache_dir, *hidden])
        maker = WheelMaker(self._sandbox, settings, cache_dir)
        self._in_repo = InRepo(maker, export, cache_dir)
        self._sdists = Sdists(maker, cache_dir)
        self._verifier = Verifier(self._sandbox, self._in_repo, settings.verify_timeout, cache_dir)

    # -------------------------------------------------------------------------------- inspect

    def inspect(self, python: str) -> Runtime:
        """What is installed in the base; raises Stalled("BaseUnreadable")."""
        return inspect_base(python)

    # -------------------------------------------------------------------------------- resolve

    def resolve(self, job: Job, recipe: Recipe, runtime: Runtime) -> Lock:
        """The delta lock of a recipe for a runtime; see `locking.make_lock` for what it raises."""
        with (
            self._work(job) as work,
            self._indexes(job, recipe) as indexes,
            self._sandbox.serving(indexes, work) as url,
        ):
            wheels = [
                self._in_repo.wheel(job, package, runtime, work, url) for package in recipe.packages
            ]
            return make_lock(
                    job, recipe, runtime, wheels, indexes, sandbox=self._sandbox,
                    settings=self._settings, work=work, cache=self._cache, index=url,
                )  # fmt: skip

    # ------------------------------------------------------------------------------ construct

    def construct(self, job: Job, recipe: Recipe, runtime: Runtime, lock: str) -> Built:
        """Everything of a lock on the share, and a build that names it.

        Raises Stalled (HashMismatch, UnsafeWheel, InvalidWheel, PackageBuildFailed) or Retryable.
        """
        build_id = build_id_of(lock, recipe, runtime)
        packages = tomllib.loads(lock).get("packages", [])
        pairs = tuple(
            sorted((canonicalize_name(p["name"]), str(p.get("version", ""))) for p in packages)
        )
        if self._share.build(build_id) is not None:
            job.say(f"build {build_id} is on the share already")
            return Built(build_id, pairs)
        with (
            self._share.making(),
            self._work(job) as work,
            self._indexes(job, recipe) as indexes,
            self._sandbox.serving(indexes, work) as url,
        ):
            wheels = [
                self._wheel(job, recipe, runtime, package, work, indexes, url)
                for package in packages
            ]
            entries = self._entries(job, runtime, wheels, indexes, work)
            files = fetch_files(job, recipe, self._settings, self._share, self._cache, work)
            self._publish(job, recipe, runtime, lock, build_id, wheels, entries, files, work)
        return Built(build_id, pairs)

    def _wheel(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        package: dict[str, Any],
        work: Path,
        indexes: Indexes,
        url: str,
    ) -> Wheel:
        """The wheel of a locked package: the index's, or one that is made from source."""
        name, version = canonicalize_name(package["name"]), str(package.get("version", ""))
        if "directory" in package:
            (own,) = (p for p in recipe.packages if p.path == package["directory"]["path"])
            place = self._in_repo.wheel(job, own, runtime, work, url).path
        else:
            chosen = choose(package.get("wheels", []), runtime.tags)
            if chosen is not None:
                hashes: Any = chosen["hashes"]
                return Wheel(
                    name, version, str(chosen["name"]), str(hashes["sha256"]), str(chosen["url"])
                )
            place = self._sdists.wheel(job, recipe, runtime, package, indexes, work, url)
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        return Wheel(name, version, place.name, digest, "", place)

    def _entries(
        self, job: Job, runtime: Runtime, wheels: list[Wheel], indexes: Indexes, work: Path
    ) -> dict[str, Path]:
        """Store entries of all wheels, by digest, in the lock's order."""
        digests = [entry_digest(w.sha256, runtime.python_tag) for w in wheels]
        missing = [(w, d) for w, d in zip(wheels, digests, strict=True) if not self._share.has(d)]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            paths = list(
                pool.map(
                    lambda pair: (
                        pair[0].place or fetch(job, pair[0], indexes.of(pair[0].name), self._cache)
                    ),
                    missing,
                )
            )
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(
                pool.map(
                    lambda item: self._make_entry(
                        job, runtime, item[0][0], item[0][1], item[1], work
                    ),
                    zip(missing, paths, strict=True),
                )
            )
        return {digest: self._share.entry(digest) for digest in digests}

    def _make_entry(
        self, job: Job, runtime: Runtime, wheel: Wheel, digest: str, path: Path, work: Path
    ) -> None:
        job.check()
        own = work / f"entry-{digest[:16]}"
        staged = own / "entry"
        try:
            staged.mkdir(parents=True)
            unpack(path, wheel.name, staged, runtime.python)
            failpoint("builder.unpacked")
            compile_entry(
                job, self._sandbox, runtime.python, staged, self._share.entry(digest), own,
                self._settings.build_timeout,
            )  # fmt: skip
            failpoint("builder.compiled")
        except OSError as error:
            raise disk_error(error) from error
        self._share.put(digest, staged)
        shutil.rmtree(own, ignore_errors=True)
        job.say(f"placed {wheel.name} {wheel.version}")

    def _publish(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        lock: str,
        build_id: str,
        wheels: list[Wheel],
        entries: dict[str, Path],
        files: Parts,
        work: Path,
    ) -> None:
        order: list[str] = []
        for number, members in enumerate(overlap.groups(entries)):
            if len(members) == 1:
                order.append(members[0])
                continue
            digest = overlap.merged_digest(members)
            if not self._share.has(digest):
                staged = work / f"merged-{number}"
                overlap.merge(members, entries, staged)
                self._share.put(digest, staged)
            order.append(digest)
        document = build_json(build_id, recipe, runtime, job, wheels, order, files, self._share)
        failpoint("builder.entries-placed")
        log = job.log.read_bytes()[: 4 << 20] if job.log.is_file() else b""
        self._share.put_build(
            build_id,
            {
                "pylock.toml": lock.encode(),
                "sbom.cdx.json": sbom(build_id, wheels).encode(),
                "build.log": log,
                "build.json": json.dumps(document, indent=1).encode(),
            },
        )
        failpoint("builder.published")
        job.say(f"build {build_id} is on the share")

    # --------------------------------------------------------------------------------- verify

    def verify(
        self, job: Job, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> Verified:
        """Prove a build for an instance's runtime; raises Stalled("VerificationFailed")."""
        if self._share.verified(build_id, runtime.key):
            job.say(f"build {build_id} was verified for {runtime.key} before")
            return Verified({})
        document = self._share.build(build_id)
        if document is None:
            raise Stalled("BuildMissing", f"build {build_id} is not complete on the share")
        rows: Any = document["distributions"]
        candidate = Candidate(
            build_id,
            self._share.root,
            self._share.install_loader(instance.name),
            tuple(str(row["name"]) for row in rows),
        )
        with self._work(job) as work:
            verified = self._verifier.verify(job, recipe, runtime, instance, candidate, work)
        failpoint("builder.verified")
        self._share.mark_verified(build_id, runtime.key, verified.report)
        return verified

    # ---------------------------------------------------------------------------------- parts

    def _indexes(self, job: Job, recipe: Recipe) -> AbstractContextManager[Indexes]:
        indexes = Indexes(recipe, job.team, self._secrets, self._settings.default_index)
        job.secrets |= indexes.secrets
        return closing(indexes)

    @contextmanager
    def _work(self, job: Job) -> Iterator[Path]:
        """A scratch directory on local disk, removed at the end."""
        try:
            (self._cache / "work").mkdir(parents=True, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix=f"{job.key}-", dir=self._cache / "work"))
        except OSError as error:
            raise disk_error(error) from error
        try:
            yield path
        except OSError as error:
            raise disk_error(error) from error
        finally:
            shutil.rmtree(path, ignore_errors=True)


def build_id_of(lock: str, recipe: Recipe, runtime: Runtime) -> str:
    """First 16 hex digits of the SHA-256 of all that a build consists of."""
    document = {
        "lock": hashlib.sha256(lock.encode()).hexdigest(),
        "trees": [[p.name, p.tree] for p in recipe.packages],
        "files": [asdict(f) for f in recipe.files],
        "env": list(map(list, recipe.env)),
        "checks": asdict(recipe.checks),
        "runtime": runtime.key,
    }
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
