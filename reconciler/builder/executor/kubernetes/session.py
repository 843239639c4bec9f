"""Session of a build's commands of one kind, which run in a Job.

Commands reach the Job through files on the share, and its log comes through the API. A session has
a folder during its whole life, and a Job while commands need one: `rest` ends the Job and keeps the
folder, and the next command starts another Job.

Anything that ends a Job early (a lost node, an eviction, somebody's kubectl) ends the session with
Retryable("JobLost"): the phase is repeated in a new session. What would end the next Job as well
(see `endings`) is Stalled.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.kubernetes.capacity import JobLimit, JobPermit
from reconciler.builder.executor.kubernetes.exchange import (
    Answer,
    Command,
    mark_of,
    missing_results,
    read_answer,
    read_beat,
    replace,
)
from reconciler.builder.executor.kubernetes.manifest import CONTAINER, MANAGED
from reconciler.builder.executor.kubernetes.outcomes import lost
from reconciler.builder.executor.kubernetes.startup import Startup
from reconciler.builder.executor.protocol import Ended
from reconciler.cluster.cluster import Cluster
from reconciler.core.errors import Cancelled, GroundcrewError, Retryable
from reconciler.core.reasons import Reason
from reconciler.settings import JobSettings

log = logging.getLogger(__name__)

Manifest = Callable[[str, Path], dict[str, Any]]

LANES = 4  # parallel commands of one build
LOOK = 0.05  # seconds between two checks for an answer
LOOK_AT_POD = 1.0
SLACK = 30.0  # seconds beyond a command's time limit in which its answer must arrive
PATIENCE = 3.0  # seconds in which the pod of an ended Job stops writing
LOG_LAG = 2.0  # seconds by which the log may arrive after the answer


class Session:
    """Folder, and one Job at a time that works in it. Used by several threads.

    `manifest` returns the Job's document for the Job's name and its folder of control files.
    """

    def __init__(
        self,
        cluster: Cluster,
        places: JobLimit,
        settings: JobSettings,
        manifest: Manifest,
        folder: Path,
    ) -> None:
        self._cluster = cluster
        self._places = places
        self._place: JobPermit | None = None  # while there may be a Job
        self._settings = settings
        self._manifest = manifest
        self.folder = folder
        self.name = folder.name  # of its Job; a number is appended for each further Job
        self._jobs_made = 0
        self._control = folder  # of the current Job's requests and answers
        self.used = time.monotonic()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._numbers = dict.fromkeys(range(LANES), 0)
        self._jobs: dict[int, BuildJob] = {}
        self._told: dict[int, int] = {}
        self._beat = 0
        self._answered = 0
        self._heard = 0.0  # when the worker last answered a sign of life
        self._opening = threading.Lock()
        self._opened = 0.0  # when the Job was requested
        self._seen = False  # its pod existed
        self._startup = self._new_startup()
        self.closed = False
        self._running = 0
        for lane in range(LANES):
            self._free.put(lane)
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # the pod's user is a different one

    # ------------------------------------------------------------------------------- commands

    def run(self, job: BuildJob, command: Command) -> Ended:
        """Run one command in the Job; see Executor.run. Waits for a slot for the Job."""
        self._running += 1
        try:
            self._open(job)
            lane = self._free.get(timeout=command.timeout + SLACK)
        except queue.Empty:
            self._running -= 1
            raise Retryable(
                Reason.JOB_SILENT, f"Job {self.name} does not answer; it is ended"
            ) from None
        except BaseException:
            self._running -= 1
            raise
        self._numbers[lane] += 1
        number = self._numbers[lane]
        self._told[lane], self._jobs[lane] = 0, job
        try:
            replace(self._control / f"ask-{lane}.json", command.document(number))
            answer = self._answer(job, lane, number, command)
            lines = list(answer.lines)
            if not command.quiet:
                self._tell_rest(lane, lines)
            text = "\n".join(lines) + ("\n" if lines else "")
            return Ended(answer.code, job.clean(text), answer.timed_out)
        finally:
            self._running -= 1
            self.used = time.monotonic()
            self._jobs.pop(lane, None)
            self._free.put(lane)

    @property
    def busy(self) -> bool:
        """Return True if a command is running or waiting for the Job."""
        return self._running > 0

    def _answer(self, job: BuildJob, lane: int, number: int, command: Command) -> Answer:
        """Wait for a lane's answer and results; the time until the pod starts does not count."""
        path = self._control / f"answer-{lane}.json"
        begun = time.monotonic()
        looked = running_since = 0.0
        seen = mark_of(path)
        while True:
            now = time.monotonic()
            mark, is_due = mark_of(path), now - looked > LOOK_AT_POD
            if mark != seen or is_due:  # a share may show a new file before its content
                seen = mark
                answer = read_answer(job.team, path, number)
                if answer is not None and not any(missing_results(answer, command)):
                    return answer
            if is_due:
                looked = now
                if self._look(now - begun) and not running_since:
                    running_since = now
            if running_since and now - running_since > command.timeout + SLACK:
                raise Retryable(Reason.JOB_SILENT, f"Job {self.name} does not answer; it is ended")
            if job.cancelled.wait(LOOK):
                raise Cancelled

    def _look(self, waited: float) -> bool:
        """Return True if the pod runs. Raises Retryable or Stalled if it will not or has ended."""
        self._check()
        pod = self._startup.pod()
        self._seen = self._seen or pod is not None
        status = (pod or {}).get("status", {})
        leaving = pod is not None and pod["metadata"].get("deletionTimestamp")
        if leaving or status.get("phase") in ("Failed", "Succeeded") or (self._seen and not pod):
            raise self._lost(pod)
        if status.get("phase") == "Running":
            self._listen()
            return True
        self._wait(pod, waited)
        return False

    def _lost(self, pod: dict[str, Any] | None) -> GroundcrewError:
        return lost(self.name, pod, self._settings, time.monotonic() - self._opened)

    def _wait(self, pod: dict[str, Any] | None, waited: float) -> None:
        """Wait for the pod. Raises Retryable once it has had its time."""
        why = self._startup.late(pod, waited, self._require_job)
        if why:
            raise Retryable(Reason.JOB_NOT_STARTED, why)

    def _require_job(self) -> None:
        if self._over():
            raise self._lost(None)

    def _new_startup(self) -> Startup:
        settings = self._settings
        return Startup(
            self._cluster, settings.namespace, MANAGED, self.name, settings.start_timeout
        )

    def _check(self) -> None:
        """Raise Retryable if the session was ended."""
        if self.closed:
            raise Retryable(
                Reason.JOB_LOST, f"Job {self.name} was ended; the build goes on in a new one"
            )

    def _listen(self) -> None:
        """Check that the worker answers the daemon's signs of life: its node may have vanished."""
        answered = read_beat(self._control / "here.json")
        if answered != self._answered or self._heard == 0.0:
            self._answered, self._heard = answered, time.monotonic()
        if time.monotonic() - self._heard > self._settings.idle:
            raise Retryable(Reason.JOB_SILENT, f"Job {self.name} is silent; building in a new one")

    def _over(self) -> bool:
        """Return True if the Job is gone or has ended."""
        job = self._cluster.get("jobs", self._settings.namespace, self.name)
        conditions = (job or {}).get("status", {}).get("conditions") or []
        ended = any(
            c["type"] in ("Failed", "Complete") and c["status"] == "True" for c in conditions
        )
        return job is None or ended

    # ------------------------------------------------------------------------------- the Job

    def _open(self, job: BuildJob) -> None:
        """Create the Job once there is a slot for it, and follow its log from then on."""

        def check() -> None:
            job.check()
            self._check()

        with self._opening:
            if self._opened:
                return
            mirror = self._cluster.mirror("pods", self._settings.namespace, MANAGED)
            mirror.synced(self._cluster.limits.request_timeout)
            owner = JobPermit(job.key, job.team)
            self._places.take(owner, check)
            self._place = owner
            check()  # `close` waits for this lock, and returns the slot
            self._prepare()
            self._opened = time.monotonic()  # there may be a Job now, whatever the answer is
            manifest = self._manifest(self.name, self._control)
            self._cluster.create("jobs", self._settings.namespace, manifest)
            job.say(f"Job {self.name} was created in {self._settings.namespace}")
            threading.Thread(
                target=self._follow, args=(self.name,), name=f"log-{self.name}", daemon=True
            ).start()

    def _prepare(self) -> None:
        """Give the next Job its own name and control files.

        An earlier Job's pod may still be terminating: it must not receive the new one's requests.
        """
        self._jobs_made += 1
        number = self._jobs_made
        self.name = self.folder.name if number == 1 else f"{self.folder.name}-{number}"
        self._control = self.folder / f"control-{number}"
        self._control.mkdir()
        self._control.chmod(0o777)
        for lane in range(LANES):
            (self._control / f"ask-{lane}.json").write_text("{}")
            (self._control / f"answer-{lane}.json").write_text("{}")
        (self._control / "here.json").write_text("{}")
        self._seen, self._startup = False, self._new_startup()
        self._answered, self._heard = 0, 0.0
        self._write_beat()

    def _follow(self, name: str) -> None:
        """Copy the log of a Job's pod into the logs of the builds that its lanes work for.

        A log stream that is cut is followed again from the beginning, skipping the lines already
        read.
        """
        heard = 0
        while self._opened and self.name == name:
            pod = self._startup.pod()
            phase = (pod or {}).get("status", {}).get("phase")
            if pod is None or phase in (None, "Pending"):
                time.sleep(0.2)
                continue
            try:
                pod_name = str(pod["metadata"]["name"])
                lines = self._cluster.follow(self._settings.namespace, pod_name, CONTAINER)
                for number, line in enumerate(lines, 1):
                    if self.name != name:
                        return  # what comes late belongs to no command of the current Job
                    if number > heard:
                        heard = number
                        self._hear(line)
            except GroundcrewError as error:
                log.info("the log of %s: %s", name, error)
            if phase != "Running":
                return
            time.sleep(LOOK_AT_POD)  # what is missing meanwhile comes with the answers

    def _hear(self, line: str) -> None:
        lane, _, text = line.partition(" ")
        job = self._jobs.get(int(lane)) if lane.isdigit() else None
        if job is not None:
            self._told[int(lane)] += 1
            job.say(text)

    def _tell_rest(self, lane: int, lines: list[str]) -> None:
        """Log the part of a finished command's output that the pod's log has not delivered."""
        deadline = time.monotonic() + LOG_LAG
        while self._told[lane] < len(lines) and time.monotonic() < deadline:
            time.sleep(LOOK)
        job = self._jobs.pop(lane)
        for line in lines[self._told[lane] :]:
            job.say(line)

    def beat(self) -> None:
        """Send the Job a sign of life of the daemon."""
        if self._opened:
            self._write_beat()

    def _write_beat(self) -> None:
        self._beat += 1
        replace(self._control / "alive.json", {"beat": self._beat})

    def rest(self) -> None:
        """End the idle Job and keep the folder: the next command starts another Job.

        A slot that was taken for a Job that was never created is returned, too. Never raises: a Job
        that cannot be deleted ends by itself when the signs of life stop.
        """
        with self._opening:
            owner, self._place = self._place, None
            opened, self._opened = self._opened, 0.0
            try:
                if opened:
                    self._end_job()
            finally:
                if owner is not None:
                    self._places.leave(owner)

    def _end_job(self) -> None:
        with contextlib.suppress(OSError):
            replace(self._control / "alive.json", {"end": True})
        try:
            self._cluster.delete("jobs", self._settings.namespace, self.name)
        except GroundcrewError as error:
            log.info("Job %s ends by itself: %s", self.name, error)

    def close(self) -> None:
        """End the Job and remove the folder; idempotent, never raises."""
        self.closed = True
        self.rest()
        clear(self.folder, PATIENCE)


def clear(folder: Path, patience: float) -> None:
    """Remove a Job's folder, into which its pod may write for a while yet; never raises.

    What is left after `patience` seconds is removed when a daemon next becomes the leader.
    """
    deadline = time.monotonic() + patience
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
