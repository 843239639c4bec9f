"""Airflow on this machine: REST for pools and health, the definition's commands for restarts.

Commands are run only when the settings allow their executables: whoever may write the environments
repo must not thereby run anything on the daemon's machine.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from reconciler.airflow.crashloop import Starts
from reconciler.airflow.declared import Declared
from reconciler.airflow.gate import Gate
from reconciler.airflow.steps import LOOK_AGAIN, SERVERS, RestSteps, served
from reconciler.airflow.unloaded import unloaded
from reconciler.core.definitions import Component, Instance
from reconciler.core.errors import Stalled
from reconciler.core.model import Activation, Problem, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.runtime import Base
from reconciler.core.steps import RELEASES
from reconciler.faults import failpoint
from reconciler.settings import LocalSettings

COMMAND_TIMEOUT = 300.0  # seconds of one restart command: a scheduler waits for its tasks
STATUS_TIMEOUT = 20.0
OUTPUT = 1500  # characters of a failed command's output that are told


class LocalDriver:
    """Drives instances with `local:`; used from several threads, for different instances.

    `declared` says of a build which providers and plugins it brings; `check` raises when this
    daemon may not act. `share` is where the loaders are; None: on any share.
    """

    def __init__(
        self,
        settings: LocalSettings,
        secrets_dir: Path,
        declared: Callable[[str], Declared] = lambda _: Declared(),
        check: Callable[[], None] = lambda: None,
        share: Path | None = None,
    ) -> None:
        self._share = share
        self._allow = settings.allow
        self._rest = RestSteps(secrets_dir, check)
        self._starts = Starts()
        self._check = check
        self._declared = declared

    def permit(self, instance: Instance) -> None:
        """Raise Stalled("NotAllowed") for an executable that the settings do not allow."""
        assert instance.local is not None, "this driver gets local instances only"
        executables = [instance.local.python]
        for component in instance.local.components:
            executables += [argv[0] for argv in (component.restart, component.status) if argv]
        for executable in executables:
            clean = os.path.normpath(executable)
            if not any(fnmatch.fnmatchcase(clean, pattern) for pattern in self._allow):
                raise Stalled(
                    "NotAllowed",
                    f"instance {instance.name} wants to run {executable}, which the daemon's "
                    f"setting local.allow does not hold; the platform team may add it",
                    instance.place,
                )

    def base(self, instance: Instance) -> Base:
        """The interpreter that the definition names."""
        assert instance.local is not None, "this driver gets local instances only"
        return Base(python=instance.local.python)

    def fingerprint(self, instance: Instance) -> str:
        """Changes when something is installed into or removed from the base."""
        assert instance.local is not None, "this driver gets local instances only"
        python = Path(instance.local.python)
        prefix = python.parent.parent
        parts = [str(python)]
        folders = sorted(prefix.glob("lib/python3*/site-packages"))
        for path in (prefix / "pyvenv.cfg", *folders):
            try:
                parts.append(f"{path} {path.stat().st_mtime_ns}")
            except OSError:
                parts.append(f"{path} -")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def oldest_process(self, instance: Instance, now: float) -> float | None:
        """Start of the oldest process that runs the instance's interpreter or has its loader.

        With none alive, `now`. None when another user's processes hide what they run.
        """
        assert instance.local is not None, "this driver gets local instances only"
        prefix = str(Path(instance.local.python).parent) + "/"
        oldest = now
        for process in psutil.process_iter(["cmdline", "create_time"]):
            try:
                words = process.info["cmdline"] or []
                mine = any(word.startswith(prefix) for word in words[:2])
                mine = mine or self._loads(process.environ().get("PYTHONPATH", ""), instance.name)
            except psutil.AccessDenied:
                if any("airflow" in word for word in process.info["cmdline"] or []):
                    return None
                continue
            except psutil.Error:
                continue
            if mine:
                oldest = min(oldest, float(process.info["create_time"]))
        return oldest

    def _loads(self, path: str, name: str) -> bool:
        """Is an instance's loader on a PYTHONPATH; one that is not seen from here counts."""
        loader = f"instances/{name}/loader"
        found = [e for e in path.split(os.pathsep) if e.rstrip("/").endswith(f"/{loader}")]
        if self._share is None:
            return bool(found)
        return any(_may_be(Path(entry), self._share / loader) for entry in found)

    def unloaded(
        self, instance: Instance, names: Collection[str], since: float = 0.0
    ) -> Problem | None:
        """Return LoaderMissing if one of these components runs without the instance's loader.

        Only processes that started after `since` are looked at.
        """
        assert instance.local is not None, "this driver gets local instances only"
        own = {component.name for component in instance.local.components}.intersection(names)
        found = unloaded(instance.local, own, lambda path: self._loads(path, instance.name), since)
        if not found:
            return None
        loader = f"{self._share or '<share>'}/instances/{instance.name}/loader"
        told = ", ".join(f"{name} (pid {pid})" for name, pid in sorted(found.items()))
        words = (
            f"running without the loader, and so without any build: {told}; "
            f"set PYTHONPATH={loader} for it and restart it"
        )
        return Problem("LoaderMissing", words)

    # ---------------------------------------------------------------------------------- steps

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Carry out one step; see Driver. Raises Retryable while Airflow does not answer."""
        if step not in RELEASES:  # these run no command: pools come back whatever is allowed
            self.permit(instance)
        rest = self._rest
        match step:
            case Step.OBSERVE:
                return rest.observe(instance)
            case Step.PAUSE:
                return rest.pause(instance, activation)
            case Step.DRAIN:
                return rest.drain(instance, activation, now)
            case Step.RESTART | Step.RESTART_BACK:
                return self._restart(instance, activation)
            case Step.PROBE | Step.PROBE_BACK:
                return self._probe(instance, activation, now)
            case Step.RELEASE | Step.RELEASE_BACK | Step.RELEASE_ABORT:
                return rest.release(instance, activation)
            case _:
                raise AssertionError(f"{step} is not a driver's")

    def _restart(self, instance: Instance, activation: Activation) -> StepResult:
        assert instance.local is not None, "this driver gets local instances only"
        loading = [c for c in instance.local.components if c.name in activation.components]
        servers = [c for c in loading if c.name in SERVERS]
        workers = [c for c in loading if c.name not in SERVERS]
        for together in (workers, servers):  # the API answers while the others start
            failpoint("airflow.restart.components")
            self._check()
            with ThreadPoolExecutor(max(1, len(together))) as pool:
                ended = list(pool.map(lambda c: _run(c.restart, COMMAND_TIMEOUT), together))
            for component, (code, output) in zip(together, ended, strict=True):
                if code != 0:
                    words = f"restarting {component.name} failed with code {code}: {output}"
                    return StepResult(Verdict.FAILED, Problem("RestartFailed", words))
        return StepResult(Verdict.OK)

    def _probe(self, instance: Instance, activation: Activation, now: float) -> StepResult:
        assert instance.local is not None, "this driver gets local instances only"
        if activation.step is Step.PROBE and activation.to_build is not None:
            since = activation.restarted_at
            missing = self.unloaded(instance, activation.load_into, since)
            if missing is not None:  # no fault of the build, whatever else is wrong without it
                return StepResult(Verdict.FAILED, missing)
        for component in instance.local.components:
            down = _down(component) if component.name in activation.components else ""
            if down:
                problem = Problem("ComponentDown", f"{component.name} is down: {down}")
                young = now - activation.step_since < LOOK_AGAIN * 5
                if not young:
                    return StepResult(Verdict.FAILED, problem)
                return StepResult(Verdict.NOT_YET, problem, after=LOOK_AGAIN)
        loop = self._starts.look(instance, activation)
        if loop:
            return StepResult(Verdict.FAILED, Problem("CrashLoop", loop))
        gate = Gate(
            activation,
            components=frozenset(c.name for c in instance.local.components),
            started=self._starts.living(instance),
            declared=self._wanted(instance, activation),
        )
        return self._rest.probe(instance, activation, now, gate.look)

    def _wanted(self, instance: Instance, activation: Activation) -> Declared:
        """What the API server must have loaded: what the build declares, if the server loads it."""
        assert instance.local is not None, "this driver gets local instances only"
        build, loads = served(activation)
        there = loads and {c.name for c in instance.local.components} & {*SERVERS}
        return self._declared(build) if build is not None and there else Declared()


def _down(component: Component) -> str:
    """In words, why a component is down; "" while it is up or cannot be asked."""
    if not component.status:
        return ""
    code, output = _run(component.status, STATUS_TIMEOUT)
    return "" if code == 0 else " ".join(output.split()) or f"its status command ended with {code}"


def _run(argv: tuple[str, ...], timeout: float) -> tuple[int, str]:
    """Run a command without a shell; (exit code, the end of what it said)."""
    with tempfile.TemporaryFile() as output:  # a pipe would be held open by what it starts
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            with suppress(OSError):  # it may be another user's, by sudo
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            return 124, f"no end within {timeout:.0f} s"
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * OUTPUT))
        return code, output.read().decode(errors="replace").strip()[-OUTPUT:]


def _may_be(one: Path, other: Path) -> bool:
    """Are two paths one folder, as far as can be seen from here."""
    try:
        return one.samefile(other)
    except OSError:
        return True
