"""One Job while it lives: commands go in by files on the share, its log comes by the API.

Whatever ends a Job early (a lost node, an eviction, somebody's kubectl) ends the session with
Retryable("JobLost"): the phase is done again, in a new Job and a new folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.builder.job import Job
from reconciler.builder.jobs.manifest import CONTAINER, MANAGED
from reconciler.builder.workshop import Ended, read_result
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.words import trouble
from reconciler.core.errors import Cancelled, GroundcrewError, Retryable
from reconciler.settings import JobSettings

log = logging.getLogger(__name__)

LANES = 4  # commands of one build at once
LOOK = 0.05  # seconds between two looks for an answer
LOOK_AT_POD = 1.0
SLACK = 30.0  # seconds beyond a command's time limit in which its answer must come
PATIENCE = 3.0  # seconds in which the pod of an ended Job stops writing
LOG_LAG = 2.0  # seconds that the log may come after the answer
ANSWER_LIMIT = 32 << 20  # bytes


class Session:
    """A Job and its folder. Opened with the first command; used by several threads."""

    def __init__(
        self, cluster: Cluster, settings: JobSettings, manifest: dict[str, Any], folder: Path
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._manifest = manifest
        self.folder = folder
        self.name = str(manifest["metadata"]["name"])
        self.used = time.monotonic()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._numbers = dict.fromkeys(range(LANES), 0)
        self._jobs: dict[int, Job] = {}
        self._told: dict[int, int] = {}
        self._beat = 0
        self._answered = 0
        self._heard = 0.0  # when the worker last answered a sign of life
        self._opening = threading.Lock()
        self._opened = False
        self._seen = False  # its pod was there
        self._closed = False
        self._running = 0
        for lane in range(LANES):
            self._free.put(lane)
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # the pod's user is another than ours
        for lane in range(LANES):
            (folder / f"ask-{lane}.json").write_text("{}")
            (folder / f"answer-{lane}.json").write_text("{}")
        (folder / "here.json").write_text("{}")
        self.beat()

    # ------------------------------------------------------------------------------- commands

    def run(
        self,
        job: Job,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
        quiet: bool,
    ) -> Ended:
        """Run one command in the Job; see Workshop.run."""
        self._open(job)
        lane = self._free.get(timeout=timeout + SLACK)
        self._numbers[lane] += 1
        number = self._numbers[lane]
        self._told[lane], self._jobs[lane] = 0, job
        self._running += 1
        try:
            ask = {
                "number": number, "command": list(command), "folder": str(folder),
                "environment": dict(environment), "timeout": timeout, "quiet": quiet,
            }  # fmt: skip
            _replace(self.folder / f"ask-{lane}.json", ask)
            answer = self._answer(job, lane, number, timeout)
            lines = [str(line) for line in answer["lines"]]
            if not quiet:
                self._tell_rest(lane, lines)
            text = "\n".join(lines) + ("\n" if lines else "")
            return Ended(int(answer["code"]), job.clean(text), bool(answer["timed_out"]))
        finally:
            self._running -= 1
            self.used = time.monotonic()
            self._jobs.pop(lane, None)
            self._free.put(lane)

    @property
    def busy(self) -> bool:
        """Is a command under way."""
        return self._running > 0

    def _answer(self, job: Job, lane: int, number: int, timeout: float) -> dict[str, Any]:
        """Wait for a lane's answer; the time the pod takes to start does not count."""
        path = self.folder / f"answer-{lane}.json"
        begun = time.monotonic()
        looked = running_since = 0.0
        while True:
            found = _document(path)
            if found.get("number") == number:
                text = "\n".join(found.get("lines", []))
                if hashlib.sha256(text.encode()).hexdigest() == found.get("sha256"):
                    return found
            now = time.monotonic()
            if now - looked > LOOK_AT_POD:
                looked = now
                if self._look(now - begun) and not running_since:
                    running_since = now
            if running_since and now - running_since > timeout + SLACK:
                raise Retryable("JobSilent", f"Job {self.name} does not answer; it is ended")
            if job.cancelled.wait(LOOK):
                raise Cancelled

    def _look(self, waited: float) -> bool:
        """Does the pod run; raises Retryable when it will not, or no longer."""
        if self._closed:
            raise Retryable("JobLost", f"Job {self.name} was ended; the build goes on in a new one")
        pod = self._pod()
        if pod is None:
            if self._seen or (waited > 3 * LOOK_AT_POD and self._over()):
                raise Retryable("JobLost", f"Job {self.name} was deleted; building in a new one")
        else:
            self._seen = True
            status = pod.get("status", {})
            ended = status.get("phase") in ("Failed", "Succeeded")
            if ended or pod["metadata"].get("deletionTimestamp"):
                words = status.get("message") or status.get("reason") or "its pod has ended"
                raise Retryable("JobLost", f"Job {self.name} was lost ({words}); building anew")
            if status.get("phase") == "Running":
                self._listen()
                return True
        if waited > self._settings.start_timeout:
            words = trouble(pod) if pod is not None else "it has no pod"
            raise Retryable(
                "JobNotStarted",
                f"Job {self.name} did not start within {self._settings.start_timeout:g} s: "
                f"{words or 'its pod is pending'}",
            )
        return False

    def _listen(self) -> None:
        """The worker answers the daemon's signs of life; its node may be gone without a word."""
        answered = _document(self.folder / "here.json").get("beat", 0)
        if answered != self._answered or self._heard == 0.0:
            self._answered, self._heard = answered, time.monotonic()
        if time.monotonic() - self._heard > self._settings.idle:
            raise Retryable("JobSilent", f"Job {self.name} is silent; building in a new one")

    def _pod(self) -> dict[str, Any] | None:
        mirror = self._cluster.mirror("pods", self._settings.namespace, MANAGED)
        pods: list[dict[str, Any]] = mirror.items()
        for pod in pods:
            if pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") == self.name:
                return pod
        return None

    def _over(self) -> bool:
        """Is the Job gone, or has it ended."""
        found = self._cluster.get("jobs", self._settings.namespace, self.name)
        conditions = (found or {}).get("status", {}).get("conditions") or []
        ended = any(
            c["type"] in ("Failed", "Complete") and c["status"] == "True" for c in conditions
        )
        return found is None or ended

    # ------------------------------------------------------------------------------- the Job

    def _open(self, job: Job) -> None:
        """Create the Job, once; what it says is followed from then on."""
        with self._opening:
            if self._opened:
                return
            self._cluster.mirror("pods", self._settings.namespace, MANAGED).synced(
                self._cluster.limits.request_timeout
            )
            self._opened = True  # from here on there may be a Job, whatever the answer is
            self._cluster.create("jobs", self._settings.namespace, self._manifest)
            job.say(f"Job {self.name} was created in {self._settings.namespace}")
            threading.Thread(target=self._follow, name=f"log-{self.name}", daemon=True).start()

    def _follow(self) -> None:
        """Copy the pod's log into the logs of the jobs that its lanes work for."""
        while not self._closed:
            pod = self._pod()
            if pod is None or pod.get("status", {}).get("phase") in (None, "Pending"):
                time.sleep(0.2)
                continue
            try:
                name = str(pod["metadata"]["name"])
                for line in self._cluster.follow(self._settings.namespace, name, CONTAINER):
                    self._hear(line)
            except GroundcrewError as error:
                log.info("the log of %s: %s", self.name, error)
            return  # what is missing comes with the answers

    def _hear(self, line: str) -> None:
        lane, _, text = line.partition(" ")
        job = self._jobs.get(int(lane)) if lane.isdigit() else None
        if job is not None:
            self._told[int(lane)] += 1
            job.say(text)

    def _tell_rest(self, lane: int, lines: list[str]) -> None:
        """Say what of an ended command's output the log has not brought in time."""
        deadline = time.monotonic() + LOG_LAG
        while self._told[lane] < len(lines) and time.monotonic() < deadline:
            time.sleep(LOOK)
        job = self._jobs.pop(lane)
        for line in lines[self._told[lane] :]:
            job.say(line)

    def beat(self) -> None:
        """Tell the Job that the daemon is there."""
        self._beat += 1
        _replace(self.folder / "alive.json", {"beat": self._beat})

    def close(self) -> None:
        """End the Job and remove its folder; idempotent, never raises."""
        self._closed = True
        with contextlib.suppress(OSError):
            _replace(self.folder / "alive.json", {"end": True})
        if self._opened:
            try:
                self._cluster.delete("jobs", self._settings.namespace, self.name)
            except GroundcrewError as error:
                log.info("Job %s ends by itself: %s", self.name, error)
        clear(self.folder, PATIENCE)


def clear(folder: Path, patience: float) -> None:
    """Remove a Job's folder, into which its pod may write for a while yet; never raises.

    What is left after `patience` seconds goes when a daemon next begins to lead.
    """
    deadline = time.monotonic() + patience
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def _replace(path: Path, document: Mapping[str, object]) -> None:
    """Replace a small document; a mode that the pod's user can read."""
    temp = path.with_name(f".{path.name}.new")
    with temp.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temp.chmod(0o644)
    temp.rename(path)


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_result(path, ANSWER_LIMIT) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
