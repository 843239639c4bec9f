"""Executor in Jobs: a pod with the instance's image takes the role of the local sandbox.

A build has two sessions: one for commands that run the team's own code, and one for harmless
commands, whose results other teams may use too. Only one of them has a Job at a time, so that a
build never needs room for more than one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.kubernetes.capacity import JobLimit, JobPermit
from reconciler.builder.executor.kubernetes.exchange import Command
from reconciler.builder.executor.kubernetes.gateway import Gateway
from reconciler.builder.executor.kubernetes.manifest import (
    FOLDER_LABEL,
    MANAGED,
    Order,
    job_manifest,
    user_of,
)
from reconciler.builder.executor.kubernetes.session import LANES, Session, clear
from reconciler.builder.executor.kubernetes.slot import JobSlot, Kind
from reconciler.builder.executor.protocol import Ended
from reconciler.builder.index.proxy import Indexes
from reconciler.cluster.clusters import Clusters
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Image
from reconciler.settings import KubernetesSettings
from reconciler.share.share import Share

log = logging.getLogger(__name__)

STAGING = "staging"
LEFT_PATIENCE = 30.0  # seconds that a terminating pod may continue
BEAT = 5.0  # seconds between two signs of life to the Jobs
UV_CACHE = Path("/tmp/uv")  # noqa: S108 - in the pod, which nobody else uses

Key = tuple[str, bool]  # a build's key, and whether its commands are harmless


@dataclass(slots=True)
class Sessions:
    """All Jobs of this daemon; `tools` is the folder on the share that has the worker and uv."""

    clusters: Clusters
    settings: KubernetesSettings
    share: Share
    tools: Path
    gateway: Gateway
    _open: dict[Key, Session] = field(default_factory=dict)
    _apart: set[str] = field(default_factory=set)  # names of Jobs outside the sessions
    _slots: dict[str, JobSlot] = field(default_factory=dict)
    _places: dict[str | None, JobLimit] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Keep the Jobs alive from now on, and end those that are unused."""
        threading.Thread(target=self._keep, name="jobs", daemon=True).start()

    def session(self, job: BuildJob, image: Image, *, harmless: bool) -> Session:
        """Return the session of a build, created if necessary; its first command starts its Job."""
        with self._lock:
            session = self._open.get((job.key, harmless))
            if session is None:
                session = self._make(job, image)
                self._open[job.key, harmless] = session
            session.used = time.monotonic()
            return session

    @contextlib.contextmanager
    def working(self, job: BuildJob, image: Image, *, harmless: bool) -> Iterator[Session]:
        """Yield the session of a build for one command; the build's other Job has ended."""
        with self._slot(job).use(Kind.of(harmless=harmless), job.check):
            with self._lock:
                other = self._open.get((job.key, not harmless))
            if other is not None:
                other.rest()
            yield self.session(job, image, harmless=harmless)

    @contextlib.contextmanager
    def apart(self, job: BuildJob, image: Image, name: str) -> Iterator[None]:
        """Room for a Job of a build outside its sessions; the build has no other Job meanwhile.

        The folder `name` on the share says that the Job is this daemon's; see `left_by_another`.
        """
        with self._slot(job).use(Kind.DAGS, job.check):
            with self._lock:
                sessions = [self._open.get((job.key, harmless)) for harmless in (True, False)]
            for session in sessions:
                if session is not None:
                    session.rest()
            places, owner = self._places_of(image.context), JobPermit(job.key, job.team)
            folder = self._folder(name)
            places.take(owner, job.check)
            try:
                with self._lock:
                    self._apart.add(name)
                folder.mkdir(parents=True)
                yield
            finally:
                clear(folder, 0.0)
                with self._lock:
                    self._apart.discard(name)
                places.leave(owner)

    def left_by_another(self, name: str) -> bool:
        """Return True if a Job is on this share, but not of this daemon: an earlier one left it."""
        return name not in self._mine() and (self.share.root / STAGING / name).is_dir()

    def _folder(self, name: str) -> Path:
        """Return the path of a Job's folder. Raises Retryable if the share is not mounted.

        Else the folder would be made on the disk below the mount point.
        """
        self.share.require()
        return self.share.root / STAGING / name

    def _slot(self, job: BuildJob) -> JobSlot:
        with self._lock:
            return self._slots.setdefault(job.key, JobSlot())

    def _places_of(self, context: str | None) -> JobLimit:
        limit = self.settings.cluster(context).parallel_builds
        return self._places.setdefault(context, JobLimit(limit))

    def _make(self, job: BuildJob, image: Image) -> Session:
        name = f"groundcrew-{job.key}-{secrets.token_hex(3)}"
        folder = self._folder(name)

        def manifest(job_name: str, control: Path) -> dict[str, Any]:
            command = (
                "python3",
                str(self.tools / "worker.py"),
                str(control),
                str(LANES),
                f"{self.settings.jobs.idle:g}",
            )
            order = Order(job_name, job.team, job.key, image, self.share.root, folder, command)
            return job_manifest(order, self.settings)

        places = self._places_of(image.context)
        return Session(
            self.clusters.of(image.context), places, self.settings.jobs, manifest, folder
        )

    def end(self, key: str) -> None:
        """End the Jobs of a build."""
        with self._lock:
            ended = [self._open.pop(k) for k in ((key, True), (key, False)) if k in self._open]
            self._slots.pop(key, None)
        for session in ended:
            session.close()

    def _keep(self) -> None:
        """Send signs of life to all Jobs. Do not wait for a cluster: that would delay others."""
        while not self._stop.wait(BEAT):
            with self._lock:
                sessions = list(self._open.values())
                idle = self._idle()
            for key in idle:
                threading.Thread(target=self.end, args=(key,), name="end", daemon=True).start()
            for session in sessions:
                with contextlib.suppress(OSError):
                    session.beat()

    def _idle(self) -> set[str]:
        """Return builds with no recently used Job: one may rest while the other works."""
        since = time.monotonic() - self.settings.jobs.idle
        used = {key for (key, _), s in self._open.items() if s.busy or s.used >= since}
        return {key for key, _ in self._open} - used

    def sweep(self, context: str | None) -> None:
        """End Jobs of an earlier daemon in a cluster.

        Called when this daemon becomes the leader: it is then the only one that has Jobs.
        """
        cluster, namespace = self.clusters.of(context), self.settings.jobs.namespace
        for job in cluster.list("jobs", namespace, MANAGED):
            name = str(job["metadata"]["name"])
            folder = (job["metadata"].get("labels") or {}).get(FOLDER_LABEL, name)
            if self.left_by_another(folder):
                log.info("ending Job %s of an earlier daemon", name)
                cluster.delete("jobs", namespace, name)

    def tidy(self) -> None:
        """Remove the folders that Jobs of an earlier daemon have left on the share.

        Called after the sweeps. A Job that still exists because its cluster is unreachable ends by
        itself when it no longer finds its folder.
        """
        staging = self.share.root / STAGING
        folders = {path.name: path for path in staging.iterdir()} if staging.is_dir() else {}
        for name in folders.keys() - self._mine():
            clear(folders[name], LEFT_PATIENCE)

    def _mine(self) -> set[str]:
        with self._lock:
            return {session.folder.name for session in self._open.values()} | self._apart

    def close(self) -> None:
        """End every Job."""
        self._stop.set()
        with self._lock:
            keys = {key for key, _ in self._open}
        for key in keys:
            self.end(key)
        self.gateway.close()


@dataclass(frozen=True, slots=True)
class JobExecutor:
    """Executor for one image; see Executor."""

    sessions: Sessions
    image: Image

    def uv(self) -> str:
        """Return the uv on the share."""
        return str(self.sessions.tools / "uv")

    def direct(self, indexes: Indexes) -> bool:
        """Return False: Jobs can reach only the daemon."""
        del indexes
        return False

    def cache_of(self, team: str) -> Path:
        """Return a folder of the pod's own."""
        del team
        return UV_CACHE

    def scratch(self, job: BuildJob, *, harmless: bool) -> Path:
        """Return the folder that the Job may write to."""
        return self.sessions.session(job, self.image, harmless=harmless).folder

    def leave(self, job: BuildJob) -> None:
        """End the build's Jobs."""
        self.sessions.end(job.key)

    def serving(self, indexes: Indexes, work: Path) -> AbstractContextManager[str]:
        """Serve indexes to the Jobs at the daemon's address."""
        del work
        host = self.sessions.settings.cluster(self.image.context).index_host
        return self.sessions.gateway.serving(indexes, host)

    def may_show(self, folder: Path) -> bool:
        """Return True if a folder is on the share: a Job sees nothing else of this machine."""
        return folder.is_relative_to(self.sessions.share.root)

    def run(
        self,
        job: BuildJob,
        command: Sequence[str],
        *,
        work: Path,
        timeout: float,
        writable: Sequence[Path] = (),
        readable: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        index: Path | None = None,
        network: bool = False,
        harmless: bool = False,
        quiet: bool = False,
        results: Sequence[Path] = (),
    ) -> Ended:
        """Run a command in the build's Job; see Executor."""
        del writable, index, network  # the pod decides
        share = self.sessions.share.root
        hidden = [path for path in readable if not path.is_relative_to(share)]
        assert not hidden, f"{hidden} is not on the share, so no Job can see it"
        variables = {
            "HOME": str(work),
            "TMPDIR": str(work / "tmp"),
            "LANG": "C.UTF-8",
            "SOURCE_DATE_EPOCH": "315532800",  # 1980: the oldest time of a zip
            "UV_LINK_MODE": "copy",
            **(environment or {}),
        }
        asked = Command(command, work, variables, timeout, quiet, results)
        with self.sessions.working(job, self.image, harmless=harmless) as session:
            return self._run(session, job, asked)

    def _run(self, session: Session, job: BuildJob, command: Command) -> Ended:
        work = command.folder
        if not work.is_relative_to(session.folder):
            raise Retryable(
                Reason.JOB_LOST, f"the Job of {job.key} was ended; building in a new one"
            )
        try:
            (work / "tmp").mkdir(parents=True, exist_ok=True)
            if user_of(self.image, self.sessions.settings.jobs) != os.getuid():
                _open_to_all(session.folder, work)
            return session.run(job, command)
        except GroundcrewError:
            self.sessions.end(job.key)  # cancelled, or lost: the next command needs a new Job
            raise
        except OSError as error:
            if not session.closed:
                raise
            raise Retryable(
                Reason.JOB_LOST, f"the Job of {job.key} was ended; building in a new one"
            ) from error


def _open_to_all(top: Path, work: Path) -> None:
    """Let the pod's user write below `work`; nobody else mounts that part of the share."""
    for folder in (work, *work.parents):
        if folder == top:
            break
        _allow(folder, 0o777)
    for here, names, leaves in os.walk(work):
        for name in names:
            _allow(Path(here) / name, 0o777)
        for leaf in leaves:
            _allow(Path(here) / leaf, 0o666)


def _allow(path: Path, mode: int) -> None:
    with contextlib.suppress(PermissionError):  # the pod's own: it can already write there
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | mode)
