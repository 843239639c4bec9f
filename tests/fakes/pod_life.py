"""Life of one pod on a node of the laboratory: a thread that simulates or really runs it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from urllib3.exceptions import HTTPError

from tests.fakes import pod_status
from tests.fakes.pod_status import Behaviour, Conditions, Json, LabImage
from tests.fakes.pod_volumes import MountError, Volumes, expand
from tests.harness.container import Container, Rootfs
from tests.harness.kube_api import Api, ApiError

BACKOFF = (0.5, 1.0, 2.0, 4.0)  # seconds between restarts; a real kubelet: 10 s to 5 min


@dataclass(slots=True)
class Node:
    """State shared by the pods of one node; `lost`: it does and reports nothing."""

    name: str
    api: Api
    work: Path
    images: Mapping[str, LabImage]
    nfs: Mapping[str, Path]
    hidden: set[str]
    prove: Callable[[Json, Json], str]
    lost: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class One:
    """Container of the pod: its state, its restarts, its process if it has one."""

    spec: Json
    image: LabImage
    state: Json
    last: Json | None = None
    ready: bool = False
    restarts: int = 0
    process: Container | None = None
    again: float = 0.0  # monotonic time of its next start

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def over(self) -> bool:
        return "terminated" in self.state

    @property
    def succeeded(self) -> bool:
        return self.over and self.state["terminated"]["exitCode"] == 0

    def status(self) -> Json:
        return pod_status.container(
            self.spec,
            self.image.image_id(self.spec["image"]),
            self.state,
            ready=self.ready,
            restarts=self.restarts,
            last=self.last,
        )


class PodLife(threading.Thread):
    """Thread started by the kubelet when a pod is bound to its node; ends when the pod is gone."""

    def __init__(self, pod: Json, node: Node, behaviour: Behaviour) -> None:
        meta = pod["metadata"]
        super().__init__(name=f"pod {meta['namespace']}/{meta['name']}", daemon=True)
        self.pod, self.node, self.behaviour = pod, node, behaviour
        self.namespace, self.pod_name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.grace: float | None = None  # seconds, once deletion is requested
        self.gone = threading.Event()  # the object no longer exists
        self._changed = threading.Event()
        self._conditions = Conditions()
        self._end: tuple[str, str, str] | None = None  # phase, reason and message from outside
        self.started = pod_status.now()
        spec = pod["spec"]
        self.inits = [self._one(c) for c in spec.get("initContainers") or []]
        self.ones = [self._one(c) for c in spec["containers"]]
        self.home: Path = node.work / self.uid
        self.phase = "Pending"

    def _one(self, spec: Json) -> One:
        first = self.pod["spec"].get("initContainers")
        state = pod_status.waiting("PodInitializing" if first else "ContainerCreating")
        return One(spec, self.node.images.get(spec["image"], LabImage()), state)

    # ------------------------------------------------------------------- requests from the kubelet

    def delete(self, grace: float) -> None:
        """Note that deletion was requested."""
        if self.grace is None or grace < self.grace:
            self.grace = grace
            self._changed.set()

    def vanish(self) -> None:
        """End everything at once, because the object is gone."""
        self.gone.set()
        self._changed.set()

    def end(self, phase: str, reason: str, message: str) -> None:
        """End the pod for a reason of the kubelet: an eviction, a node that shuts down."""
        self._end = (phase, reason, message)
        self._changed.set()

    def log_of(self, container: str, previous: bool) -> tuple[Path, Callable[[], bool]] | None:
        """Return the log of a container's current run, or of the previous one."""
        one = next((o for o in [*self.inits, *self.ones] if o.name == container), None)
        if one is None:
            return None
        run = one.restarts - (1 if previous else 0)
        path = self.log(one, run)
        return (
            (path, lambda: one.over or one.restarts != run or self.gone.is_set())
            if (path.exists())
            else None
        )

    def log(self, one: One, run: int | None = None) -> Path:
        """Return the log of one run of a container."""
        return self.home / "logs" / f"{one.name}.{one.restarts if run is None else run}"

    # ----------------------------------------------------------------------------------- simulation

    def run(self) -> None:
        """Live from bound to gone."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        try:
            if self.grace is None and self.behaviour.mode != "hang":
                self._really() if self.behaviour.mode == "run" else self._play()
            while not self._leaving() and self._end is None:
                self._pause(60.0)
            self._stop_processes()
            if self._end is not None and not self._leaving():
                self._report_end(*self._end)
                while not self._leaving():
                    self._pause(60.0)
            self._finalise()
        finally:
            self._kill_processes()
            shutil.rmtree(self.home, ignore_errors=True)

    def _leaving(self) -> bool:
        return self.gone.is_set() or self.grace is not None

    def _pause(self, seconds: float) -> bool:
        """Wait that long, or until something changes; return True to continue."""
        if self._changed.wait(seconds):
            self._changed.clear()
        return not self._leaving() and self._end is None

    def _play(self) -> None:
        asked = self.behaviour
        stuck = {
            "imagepull": ("ImagePullBackOff", asked.message or "Back-off pulling image"),
            "configerror": ("CreateContainerConfigError", asked.message or "secret not found"),
        }
        if asked.mode in stuck:
            self._all(pod_status.waiting(*stuck[asked.mode]))
            self._put("Pending")
            return
        for one in self.inits:
            one.state, one.ready = pod_status.terminated(0), True
        if asked.mode == "crashloop":
            self._crashed(asked)
            return
        self._all(pod_status.running(), log=asked.log)
        self._put("Running")
        if asked.mode == "notready" or not self._pause(asked.ready_after):
            return
        if asked.mode == "failed":
            self._all(pod_status.terminated(asked.exit_code, message=asked.message))
            self._put("Failed")
            return
        self._all(None, ready=True)
        self._put("Running")

    def _crashed(self, asked: Behaviour) -> None:
        first = [one for one in self.inits if one.name == asked.crashing]
        for one in first or self.ones:
            one.restarts = asked.restarts - 1
            self.log(one).write_text(asked.log)
            one.restarts = asked.restarts
            self.log(one).write_text(asked.log)
            one.last = pod_status.terminated(asked.exit_code, message=asked.message)
            one.state = pod_status.waiting(
                "CrashLoopBackOff", f"back-off 40s restarting failed container={one.name}"
            )
            one.ready = False
        self._put("Pending" if first else "Running")

    def _all(self, state: Json | None, *, ready: bool = False, log: str = "") -> None:
        for one in self.ones:
            one.state, one.ready = state or one.state, ready
            if "running" in one.state:
                with self.log(one).open("a") as file:
                    file.write(self.node.prove(self.pod, one.spec) + log if state else "")

    # -------------------------------------------------------------------------------------- running

    def _really(self) -> None:
        volumes = Volumes(self.node.api, self.pod, self.home / "volumes", self.node.nfs)
        for one in self.inits:
            if not self._start(one, volumes) or not self._until_over([one], volumes):
                return
            if one.state["terminated"]["exitCode"]:
                self._put("Failed")
                return
        for one in self.ones:
            if not self._start(one, volumes):
                return
        self._put("Running")
        if self._until_over(self.ones, volumes):
            bad = any(one.state["terminated"]["exitCode"] for one in self.ones)
            self._put("Failed" if bad else "Succeeded")

    def _start(self, one: One, volumes: Volumes) -> bool:
        """Start a container; return False if the pod has to go before its volumes exist."""
        while True:
            try:
                mounts, variables = volumes.mounts(one.spec), volumes.environment(one.spec)
                break
            except (MountError, ApiError, HTTPError) as error:  # or its namespace is going away
                reason = "PodInitializing" if self.inits else "ContainerCreating"
                one.state = pod_status.waiting(reason, str(error))
                self._put(self.phase)
                if not self._pause(1.0):
                    return False
        spec, image = one.spec, one.image
        command = [*(spec.get("command") or []), *(spec.get("args") or [])] or ["sleep", "infinity"]
        context = {
            **(self.pod["spec"].get("securityContext") or {}),
            **(spec.get("securityContext") or {}),
        }
        one.process = Container.start(
            [expand(word, variables) for word in command],
            Rootfs(mounts, frozenset(self.node.hidden), image.root),
            {"HOSTNAME": self.pod_name, **variables},
            self.log(one),
            uid=context.get("runAsUser", image.uid),
            cwd=spec.get("workingDir", ""),
        )
        one.state = pod_status.running()
        return True

    def _until_over(self, ones: list[One], volumes: Volumes) -> bool:
        """Watch containers until all have ended for good; return False if the pod must go first."""
        ready_at = time.monotonic() + self.behaviour.ready_after
        while not all(one.over for one in ones):
            if not self._pause(0.03):
                return False
            changed = False
            for one in ones:
                changed |= self._look_at(one, volumes)
                if "running" in one.state and not one.ready and time.monotonic() > ready_at:
                    one.ready = changed = True
            if changed:
                self._put("Running" if ones is self.ones else "Pending")
        return True

    def _look_at(self, one: One, volumes: Volumes) -> bool:
        """Record a container's end, start it again when it is time; return True on a change."""
        if "waiting" in one.state and time.monotonic() >= one.again:
            one.restarts += 1
            return self._start(one, volumes)
        code = one.process.code() if one.process and "running" in one.state else None
        if code is None or one.process is None:
            return False
        since = one.state["running"]["startedAt"]
        state = pod_status.terminated(code, one.process.killed, since=since)
        one.ready = False
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if one in self.inits or policy == "Never" or (policy == "OnFailure" and code == 0):
            one.state = state
            return True
        one.last = state
        one.again = time.monotonic() + BACKOFF[min(one.restarts, len(BACKOFF) - 1)]
        one.state = pod_status.waiting("CrashLoopBackOff", "back-off restarting failed container")
        return True

    # --------------------------------------------------------------------------------------- ending

    def _stop_processes(self) -> None:
        """Send SIGTERM, wait for the grace period, send SIGKILL."""
        alive = [o.process for o in [*self.inits, *self.ones] if o.process]
        end = time.monotonic() + (0.0 if self._end or self.gone.is_set() else self.grace or 0.0)
        for process in alive:
            process.terminate()
        while any(p.code() is None for p in alive) and time.monotonic() < end:
            if self.gone.wait(0.03):
                break
        self._kill_processes()

    def _kill_processes(self) -> None:
        for one in [*self.inits, *self.ones]:
            if one.process and one.process.code() is None:
                one.process.kill()
                one.process.process.wait(timeout=20)

    def kill_containers(self, reason: str) -> None:
        """Send SIGKILL to all containers, as the kernel does if memory is short (`OOMKilled`)."""
        for one in self.ones:
            if one.process:
                one.process.kill(reason)

    def _report_end(self, phase: str, reason: str, message: str) -> None:
        for one in self.ones:
            if not one.over:
                code = (one.process.code() if one.process else None) or 137
                one.state, one.ready = pod_status.terminated(code), False
        self._put(phase, reason=reason, message=message)

    def _finalise(self) -> None:
        """Report the end and remove the object, like a kubelet once the grace period is over."""
        asked = min(self.behaviour.stop_after, self.grace or 0.0)
        if (
            not self.gone.wait(asked)
            and self.phase not in {"Succeeded", "Failed"}
            and (self.behaviour.mode == "run")
        ):
            for one in self.ones:
                if not one.over:
                    code = one.process.code() if one.process else None
                    one.state, one.ready = (
                        pod_status.terminated(137 if code is None else code),
                        False,
                    )
            bad = any(one.state["terminated"]["exitCode"] for one in self.ones)
            self._put("Failed" if bad else "Succeeded")
        while not self.gone.is_set():
            if not self.node.lost.is_set():
                options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
                try:
                    if not self.node.api.delete("pods", self.namespace, self.pod_name, options):
                        return
                except (ApiError, OSError, HTTPError) as error:  # or the server is being restarted
                    if isinstance(error, ApiError) and error.status == 409:
                        return  # another pod of that name
            self.gone.wait(0.5)

    def _put(self, phase: str, *, reason: str = "", message: str = "") -> None:
        """Write the status; a lost node or a vanished pod writes nothing."""
        self.phase = phase
        ready = phase == "Running" and all(one.ready for one in self.ones)
        status: Json = {
            "phase": phase,
            "startTime": self.started,
            "hostIP": "127.0.0.1",
            "conditions": self._conditions.document(
                phase, ready=ready, initialized=all(one.succeeded for one in self.inits)
            ),
            "containerStatuses": [one.status() for one in self.ones],
            **({"reason": reason} if reason else {}),
            **({"message": message} if message else {}),
        }
        if self.inits:
            status["initContainerStatuses"] = [one.status() for one in self.inits]
        if phase != "Pending":
            ip = "127.0.0.1" if self.behaviour.mode == "run" else pod_status.address(self.uid)
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        body = {"metadata": {"uid": self.uid}, "status": status}
        while not self.gone.is_set() and not self.node.lost.is_set():
            try:
                self.node.api.patch("pods", self.namespace, self.pod_name, body, "status")
            except ApiError as error:
                if error.status in {404, 409, 422}:
                    return
            except (HTTPError, OSError):  # the API server is being restarted, however long it takes
                pass
            else:
                return
            self.gone.wait(0.25)
