"""Builder with the phases inspect, resolve, construct, verify. Each can be killed and repeated.

Work happens on local disk; the share receives whole entries. What one build has fetched, unpacked
and compiled is reused by all later ones.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.builder.base.inspection import inspect_base
from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.protocol import Executor
from reconciler.builder.files import fetch_files
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.keyed_lock import MAKING
from reconciler.builder.local_disk import disk_error
from reconciler.builder.manifest import Parts, build_id_of, build_json, requirements_in, sbom
from reconciler.builder.resolve.choice import Wheel, locked
from reconciler.builder.resolve.in_repo_wheels import InRepoWheel
from reconciler.builder.resolve.index_faults import blamed
from reconciler.builder.resolve.lock import (
    Lock,
    made_of,
    make_lock,
    packages_of,
    refuse_addresses,
)
from reconciler.builder.resolve.pylock import LockedPackage, read_lock
from reconciler.builder.resolve.resolver import Setup
from reconciler.builder.verify.verification import Prover
from reconciler.builder.verify.verifier import Verified, Verifier
from reconciler.builder.wheels import placement
from reconciler.builder.wheels.contents import unpack_wheel
from reconciler.builder.wheels.download import compile_entry, entry_digest, fetch, sha256_of
from reconciler.builder.wheels.from_source import WheelMaker
from reconciler.builder.wheels.in_repo import Export, InRepo
from reconciler.builder.wheels.placement import Entry
from reconciler.builder.wheels.sdists import Sdists
from reconciler.core.definitions import Instance, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.model import DagCheck
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.failpoints import failpoint
from reconciler.isolation import TooExpensive, shared_pool
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share

if TYPE_CHECKING:
    from reconciler.builder.verify.dag_pods.runner import DagPods

DOWNLOADS = 8  # parallel, per build


@dataclass(frozen=True, slots=True)
class Built:
    """Complete build on the share, and the (name, version) pairs that it installs."""

    build_id: str
    packages: tuple[tuple[str, str], ...]


class Builder:
    """Builder, whose methods may run in several threads at once.

    `reserved` returns a team's secrets that belong to the platform: they are not sent to any index.
    `releases` parses the DAGs of instances on Kubernetes.
    """

    def __init__(
        self,
        settings: BuilderSettings,
        share: Share,
        export: Export,
        *,
        cache_dir: Path,
        secrets_dir: Path,
        executor: Executor,
        reserved: Callable[[str], Collection[str]] = lambda _: (),
        releases: DagPods | None = None,
    ) -> None:
        self._settings = settings
        self._share = share
        self._cache = cache_dir
        self._secrets = secrets_dir
        self._executor = executor
        self._reserved = reserved
        maker = WheelMaker(executor, settings)
        self._in_repo = InRepo(maker, export, cache_dir)
        self._sdists = Sdists(maker, cache_dir)
        verifier = Verifier(self._executor, self._in_repo, settings.verify_timeout, cache_dir)
        self._prover = Prover(share, verifier, self._work, cache_dir, releases)

    # -------------------------------------------------------------------------------- inspect

    def inspect(self, python: str) -> Runtime:
        """Return the runtime of a base. Raises Stalled("BaseUnreadable")."""
        return inspect_base(python)

    # -------------------------------------------------------------------------------- resolve

    def sources(self, job: BuildJob, recipe: Recipe, runtime: Runtime) -> list[InRepoWheel]:
        """Return the wheels of a recipe's in-repo packages, newly built or from the team's cache.

        Raises Stalled("PackageBuildFailed") or Retryable("DiskFull").
        """
        kept = [self._in_repo.kept(job.team, recipe, p, runtime) for p in recipe.packages]
        wheels = [wheel for wheel in kept if wheel is not None]
        if len(wheels) == len(kept):
            return wheels
        with (
            self._work(job) as work,
            self._indexes(job, recipe) as indexes,
            self._executor.serving(indexes, work) as url,
            blamed(indexes, recipe),
        ):
            return [
                self._in_repo.wheel(job, recipe, package, runtime, work, url)
                for package in recipe.packages
            ]

    def resolve(self, job: BuildJob, recipe: Recipe, runtime: Runtime) -> Lock:
        """Return the delta lock of a recipe for a runtime. Raises what `make_lock` raises."""
        wheels = self.sources(job, recipe, runtime)
        with (
            self._work(job) as work,
            self._indexes(job, recipe) as indexes,
            self._executor.serving(indexes, work) as url,
            self._work(job, harmless=not recipe.source_builds) as scratch,
        ):
            setup = Setup(
                self._executor,
                self._settings,
                scratch,
                work,
                self._cache,
                url,
                self._executor.direct(indexes),
            )
            return make_lock(job, recipe, runtime, wheels, indexes, setup)

    # ------------------------------------------------------------------------------ construct

    def construct(self, job: BuildJob, recipe: Recipe, runtime: Runtime, lock: str) -> Built:
        """Put everything in a lock on the share, and a build that names it.

        Raises Stalled (HashMismatch, UnsafeWheel, InvalidWheel, PackageBuildFailed) or Retryable.
        """
        packages = read_lock(job.team, lock)
        index_wheels = [locked(package, runtime.tags) for package in packages]
        with self._share.making():  # before the check, so that existing entries are not collected
            made = made_of(packages, index_wheels)
            build_id = build_id_of(lock, recipe, runtime, made or ())
            if made is not None and self._is_there(job, build_id):
                return Built(build_id, packages_of(packages))
            with self._work(job) as work, self._indexes(job, recipe) as indexes:
                wheels = self._wheels(job, recipe, runtime, packages, index_wheels, work, indexes)
                made = [(w.name, w.sha256) for w in wheels if w.path is not None]
                build_id = build_id_of(lock, recipe, runtime, made)
                if not self._is_there(job, build_id):
                    entries = self._entries(job, runtime, wheels, indexes)
                    files = fetch_files(job, recipe, self._settings, self._share, self._cache, work)
                    self._publish(
                        job, recipe, runtime, lock, build_id, wheels, entries, files, work
                    )
            return Built(build_id, packages_of(packages))

    def wheels(self, job: BuildJob, recipe: Recipe, runtime: Runtime, lock: str) -> list[Path]:
        """Return the wheels of a lock as files in the cache, each fetched or built.

        Raises what `construct` raises of wheels.
        """
        packages = read_lock(job.team, lock)
        index_wheels = [locked(package, runtime.tags) for package in packages]
        with self._work(job) as work, self._indexes(job, recipe) as indexes:
            wheels = self._wheels(job, recipe, runtime, packages, index_wheels, work, indexes)
            return [wheel.path or self._fetched(job, wheel, indexes) for wheel in wheels]

    def _is_there(self, job: BuildJob, build_id: str) -> bool:
        """Return True if a build is on the share; the collector then treats it as new."""
        there = self._share.renew(build_id)
        if there:
            job.say(f"build {build_id} is on the share already")
        return there

    def _wheels(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        packages: list[LockedPackage],
        found: list[Wheel | None],
        work: Path,
        indexes: Indexes,
    ) -> list[Wheel]:
        """Return the wheels of a lock: those `found` in the index, and those built from source."""
        if None not in found:
            return [wheel for wheel in found if wheel is not None]
        with self._executor.serving(indexes, work) as url, blamed(indexes, recipe):
            return [
                wheel or self._made(job, recipe, runtime, package, work, indexes, url)
                for wheel, package in zip(found, packages, strict=True)
            ]

    def _made(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        package: LockedPackage,
        work: Path,
        indexes: Indexes,
        url: str,
    ) -> Wheel:
        """Return the wheel of a locked package that is built from source."""
        refuse_addresses([package], recipe)
        if package.directory is not None:
            (own,) = (p for p in recipe.packages if p.path == package.directory.path)
            made = self._in_repo.wheel(job, recipe, own, runtime, work, url)
            path, digest = made.path, made.sha256
        else:
            path = self._sdists.wheel(job, recipe, runtime, package, indexes, work, url)
            digest = sha256_of(path)
        return Wheel(package.key, package.version, path.name, digest, "", path)

    def _entries(
        self, job: BuildJob, runtime: Runtime, wheels: list[Wheel], indexes: Indexes
    ) -> dict[str, Entry]:
        """Return the store entries of all wheels, by digest, in the lock's order."""
        digests = [entry_digest(w.sha256, runtime.python_tag) for w in wheels]
        there = placement.all_found(self._share, digests)
        missing = [(w, d) for w, d in zip(wheels, digests, strict=True) if d not in there]
        if not missing:
            return there

        def fetched(pair: tuple[Wheel, str]) -> Path:
            return pair[0].path or self._fetched(job, pair[0], indexes)

        with ThreadPoolExecutor(DOWNLOADS) as pool:
            paths = list(pool.map(fetched, missing))
        items = [(*pair, path) for pair, path in zip(missing, paths, strict=True)]
        items.sort(key=lambda item: -item[2].stat().st_size)  # start with what takes longest
        with (
            self._work(job, harmless=True) as work,
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        ):
            made = pool.map(
                lambda item: self._make_entry(job, runtime, item[0], item[1], item[2], work), items
            )
            there |= {digest: entry for (_, digest, _), entry in zip(items, made, strict=True)}
        return {digest: there[digest] for digest in digests}

    def _fetched(self, job: BuildJob, wheel: Wheel, indexes: Indexes) -> Path:
        limit = self._settings.file_bytes
        return fetch(job, wheel, indexes.of(wheel.name), self._cache, limit)

    def _make_entry(
        self, job: BuildJob, runtime: Runtime, wheel: Wheel, digest: str, path: Path, work: Path
    ) -> Entry:
        """Create a store entry, unless another build is creating or has created it."""
        with MAKING.of(digest, job.check):
            return placement.found(self._share, digest) or self._make_new_entry(
                job, runtime, wheel, digest, path, work
            )

    def _make_new_entry(
        self, job: BuildJob, runtime: Runtime, wheel: Wheel, digest: str, path: Path, work: Path
    ) -> Entry:
        job.check()
        own = work / f"entry-{digest[:16]}"
        staged = own / "entry"
        try:
            staged.mkdir(parents=True)
            self._unpack(job, path, wheel.name, staged)
            failpoint("builder.unpacked")
            compile_entry(
                job,
                self._executor,
                runtime.python,
                staged,
                self._share.entry(digest),
                own,
                self._settings.build_timeout,
            )
            failpoint("builder.compiled")
        except OSError as error:
            raise disk_error(error) from error
        entry = placement.put(self._share, digest, staged)
        shutil.rmtree(own, ignore_errors=True)
        job.say(f"placed {wheel.name} {wheel.version}")
        return entry

    def _unpack(self, job: BuildJob, wheel: Path, name: str, staged: Path) -> None:
        """Unpack a wheel in a worker. Raises what `contents.unpack` raises."""
        pool = shared_pool("unpacking")
        try:
            told = pool.call_for(job.team, unpack_wheel, wheel.absolute(), name, staged.absolute())
        except TooExpensive as error:
            raise Stalled(error.reason, f"{wheel.name}: {error.message}") from error
        for line in told:
            job.say(line)

    def _publish(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        lock: str,
        build_id: str,
        wheels: list[Wheel],
        entries: dict[str, Entry],
        files: Parts,
        work: Path,
    ) -> None:
        version = ".".join(runtime.python_version.split(".")[:2])
        order = placement.lay_out(
            self._share,
            entries,
            lambda name: _folder(work / name),
            f"lib/python{version}/site-packages",
        )
        facts = {digest: one.facts for digest, one in order.items()}
        document = build_json(build_id, recipe, runtime, job, wheels, facts, files, self._share)
        of_wheels = {
            w.name: entries[entry_digest(w.sha256, runtime.python_tag)].facts for w in wheels
        }
        requirements = requirements_in(recipe, runtime, of_wheels)
        failpoint("builder.entries-placed")
        log = job.log.read_bytes()[: 4 << 20] if job.log.is_file() else b""
        self._share.put_build(
            build_id,
            {
                "pylock.toml": lock.encode(),
                "sbom.cdx.json": sbom(build_id, wheels, requirements).encode(),
                "build.log": log,
                "build.json": json.dumps(document, separators=(",", ":")).encode(),
            },
            {d: (one.whole.sha256, one.whole.bytes) for d, one in order.items() if one.whole},
        )
        failpoint("builder.published")
        job.say(f"build {build_id} is on the share")

    # --------------------------------------------------------------------------------- verify

    def verify(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> Verified:
        """Verify a build for an instance's runtime. Raises what `Prover.verify` raises."""
        return self._prover.verify(job, recipe, runtime, instance, build_id)

    def check_dags(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> DagCheck:
        """Parse an instance's DAGs with a verified build; see `Prover.check_dags`."""
        return self._prover.check_dags(job, recipe, runtime, instance, build_id)

    # ---------------------------------------------------------------------------------- parts

    def _indexes(self, job: BuildJob, recipe: Recipe) -> AbstractContextManager[Indexes]:
        """Return a recipe's indexes. Raises Stalled (CredentialsTaken, SecretMissing)."""
        settings = self._settings
        reserved = self._reserved(job.team)
        for index in recipe.indexes:
            if index.credentials in reserved:
                raise Stalled(
                    Reason.CREDENTIALS_TAKEN,
                    f"the secret {index.credentials} of index {index.name} is that of an Airflow "
                    f"API and is sent to nobody else; give the index a secret of its own",
                )
        indexes = Indexes(
            recipe, job.team, self._secrets, settings.default_index, allow=settings.allow_hosts
        )
        job.secrets |= indexes.secrets
        return closing(indexes)

    def leave(self, job: BuildJob) -> None:
        """End the work on this build for now."""
        self._executor.leave(job)

    @contextmanager
    def _work(self, job: BuildJob, *, harmless: bool = False) -> Iterator[Path]:
        """Yield a separate folder in the executor, and remove it at the end."""
        try:
            scratch = self._executor.scratch(job, harmless=harmless)
            path = Path(tempfile.mkdtemp(prefix=f"{job.key}-", dir=scratch))
        except OSError as error:
            raise disk_error(error) from error
        try:
            yield path
        except OSError as error:
            raise disk_error(error) from error
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
