"""Driver for Airflow on this machine: REST for pools and health, commands for restarts.

Commands come from the definition and are run only if the settings allow their executables: whoever
can write to the environments repo must not be able to run anything on the daemon's machine.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from reconciler.airflow.commands import STATUS_TIMEOUT, TIMED_OUT, restart, run
from reconciler.airflow.configured import layout_of, settings_in
from reconciler.airflow.crashloop import Starts
from reconciler.airflow.declared import Declared
from reconciler.airflow.gate import Gate
from reconciler.airflow.local_proofs import loaded
from reconciler.airflow.processes import has_loader
from reconciler.airflow.steps import LOOK_AGAIN, RestSteps, served
from reconciler.core.definitions import Component, Instance
from reconciler.core.errors import Stalled
from reconciler.core.loaded import Loaded, disagreement
from reconciler.core.machine import RELEASES
from reconciler.core.model import Activation, Problem, Reports, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import SERVERS, Layout
from reconciler.core.runtime import Base
from reconciler.failpoints import failpoint
from reconciler.local_processes import component_processes
from reconciler.settings import LocalSettings

DOWN_LOOKS = 5  # consecutive checks that must find a component down


class LocalDriver:
    """Driver of instances with `local:`; used from several threads, for different instances.

    `declared` returns the providers and plugins of a build; `check` raises if this daemon may not
    act. `share` is where the loaders are; None: on any share. `notes` is a folder for notes of
    running restart commands, which may outlive the daemon; None: there are no notes. `watch` is
    the number of seconds that an instance must stay healthy after its pools are restored.
    """

    def __init__(
        self,
        settings: LocalSettings,
        secrets_dir: Path,
        declared: Callable[[str], Declared] = lambda _: Declared(),
        check: Callable[[], None] = lambda: None,
        share: Path | None = None,
        notes: Path | None = None,
        watch: float = 0.0,
    ) -> None:
        self._share = share
        self._notes = notes
        self._allow = settings.allow
        self._rest = RestSteps(secrets_dir, check, watch)
        self._starts = Starts(share)
        self._down = _Downs()
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
                    Reason.NOT_ALLOWED,
                    f"instance {instance.name} wants to run {executable}, which the daemon's "
                    f"setting local.allow does not hold; the platform team may add it",
                    instance.place,
                )

    def base(self, instance: Instance) -> Base:
        """Return the interpreter that the definition names."""
        assert instance.local is not None, "this driver gets local instances only"
        return Base(python=instance.local.python)

    def fingerprint(self, instance: Instance) -> str:
        """Return a fingerprint that changes when something is installed or removed in the base."""
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
        """Return when the oldest process started that runs the instance's interpreter or loader.

        If none is alive, return `now`; None if another user's processes hide what they run.
        """
        assert instance.local is not None, "this driver gets local instances only"
        prefix = str(Path(instance.local.python).parent) + "/"
        oldest = now
        for process in psutil.process_iter(["cmdline", "create_time"]):
            try:
                arguments = process.info["cmdline"] or []
                mine = any(word.startswith(prefix) for word in arguments[:2])
                path = process.environ().get("PYTHONPATH", "")
                mine = mine or self._may_load(process.pid, path, instance.name)
            except psutil.AccessDenied:
                if any("airflow" in word for word in process.info["cmdline"] or []):
                    return None
                continue
            except psutil.Error:
                continue
            if mine:
                oldest = min(oldest, float(process.info["create_time"]))
        return oldest

    def _may_load(self, pid: int, python_path: str, name: str) -> bool:
        """Return True if a process may have an instance's loader, as far as can be seen."""
        return has_loader(pid, python_path, self._share, name) is not False

    def processes(
        self, instance: Instance, load_into: Collection[str], since: float = 0.0
    ) -> tuple[Loaded, ...]:
        """Return what processes of these components have loaded, as far as that is certain.

        Only processes that started after `since` are looked at.
        """
        assert instance.local is not None, "this driver gets local instances only"
        own = {component.name for component in instance.local.components}.intersection(load_into)

        def loads(pid: int, python_path: str) -> bool:
            return self._may_load(pid, python_path, instance.name)

        return loaded(instance.local, own, loads, since)

    def unloaded(
        self, instance: Instance, names: Collection[str], since: float = 0.0
    ) -> Problem | None:
        """Return LoaderMissing if one of these components runs without the instance's loader.

        Only processes that started after `since` are considered.
        """
        return self._missing(instance, self.processes(instance, names, since))

    def _missing(self, instance: Instance, found: Collection[Loaded]) -> Problem | None:
        missing = {f"{one.component} ({one.process})" for one in found if not one.proven}
        if not missing:
            return None
        loader = f"{self._share or '<share>'}/instances/{instance.name}/loader"
        told = ", ".join(sorted(missing))
        message = (
            f"running without the loader and therefore without any build: {told}; "
            f"set PYTHONPATH={loader} for it and restart it"
        )
        return Problem(Reason.LOADER_MISSING, message)

    def _require_loader(self, instance: Instance, activation: Activation) -> None:
        """Raise Stalled if running components show that a restart would load no build.

        These are processes that started when the loader was there already, and that do not have it.
        """
        if self._share is None or activation.target.build is None:
            return
        loader = self._share / "instances" / instance.name / "loader" / "sitecustomize.py"
        try:
            since = loader.stat().st_mtime
        except OSError:
            return  # there is none yet, or it cannot be seen: the probe decides
        problem = self.unloaded(instance, activation.target.load_into, since)
        if problem is not None:
            raise Stalled(problem.reason, problem.message, instance.place)

    # ---------------------------------------------------------------------------------- steps

    def reports(self, instance: Instance, activation: Activation, now: float) -> Reports:
        """Return what Airflow reports right before a restart."""
        return self._rest.reports(instance, activation, now)

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Carry out one step; see Driver. Raises Retryable while Airflow does not respond."""
        if step not in RELEASES:  # these run no command: pools are restored whatever is allowed
            self.permit(instance)
        rest = self._rest
        match step:
            case Step.OBSERVE:
                self._require_loader(instance, activation)
                return rest.observe(instance, self._layout(instance))
            case Step.PAUSE | Step.PAUSE_BACK:
                return rest.pause(instance, activation, now)
            case Step.DRAIN | Step.DRAIN_BACK:
                return rest.drain(instance, activation, now)
            case Step.RESTART | Step.RESTART_BACK | Step.RESTART_SERVERS_BACK:
                return self._restart(instance, activation)
            case Step.WATCH if not rest.watch:
                return StepResult(Verdict.OK)
            case Step.PROBE | Step.PROBE_BACK | Step.WATCH:
                return self._probe(instance, activation, now)
            case Step.RELEASE | Step.RELEASE_BACK | Step.RELEASE_ABORT:
                return rest.release(instance, activation)
            case _:
                raise AssertionError(f"{step} is not a driver's")

    def _layout(self, instance: Instance) -> Layout:
        """Return the components; the scheduler counts as one that runs tasks, as it mostly does."""
        assert instance.local is not None, "this driver gets local instances only"
        names = [component.name for component in instance.local.components]
        try:
            texts = settings_in(Path(instance.local.airflow_home))
        except OSError as error:
            unknown = f"its configuration cannot be read: {error}"
            return Layout(tuple(sorted(names)), unknown=unknown)
        values = {
            value
            for process in component_processes(instance.local, names)
            for name, value in process.variables.items()
            if name.startswith("AIRFLOW__")
        }
        return layout_of(names, [*texts, *values], runs_tasks=True)

    def _restart(self, instance: Instance, activation: Activation) -> StepResult:
        assert instance.local is not None, "this driver gets local instances only"
        loading = [c for c in instance.local.components if c.name in activation.components]
        servers = [c for c in loading if c.name in SERVERS]
        workers = [c for c in loading if c.name not in SERVERS]
        if activation.step is Step.RESTART_SERVERS_BACK:  # tasks may run on the others
            workers = []
        for together in (workers, servers):  # the API responds while the others start
            failpoint("airflow.restart.components")
            self._check()
            with ThreadPoolExecutor(max(1, len(together))) as pool:
                ended = list(
                    pool.map(lambda c: restart(c.restart, self._note(instance, c)), together)
                )
            for component, (code, output) in zip(together, ended, strict=True):
                if code != 0:
                    message = f"restarting {component.name} failed with code {code}: {output}"
                    return StepResult(Verdict.FAILED, Problem(Reason.RESTART_FAILED, message))
        return StepResult(Verdict.OK)

    def _note(self, instance: Instance, component: Component) -> Path | None:
        return self._notes and self._notes / f"{instance.name}.{component.name}"

    def _probe(self, instance: Instance, activation: Activation, now: float) -> StepResult:
        assert instance.local is not None, "this driver gets local instances only"
        if activation.step is Step.PROBE and activation.target.build is not None:
            unproven = self._unproven(instance, activation, activation.target.build)
            if unproven is not None:  # not the build's fault, whatever else fails without it
                return StepResult(Verdict.FAILED, unproven)
        problem, times = self._down.look(instance, activation)
        if problem is not None:
            if times >= DOWN_LOOKS:
                return StepResult(Verdict.FAILED, problem)
            seen = StepResult(Verdict.NOT_YET, problem, after=LOOK_AGAIN)
            return self._rest.in_time(instance, activation, now, seen)
        loop = self._starts.look(instance, activation)
        if loop:
            return StepResult(Verdict.FAILED, Problem(Reason.CRASH_LOOP, loop))
        gate = Gate(
            activation,
            self._rest.history(instance, activation),
            components=frozenset(c.name for c in instance.local.components),
            started=self._starts.living(instance),
            declared=self._wanted(instance, activation),
        )
        return self._rest.probe(instance, activation, now, gate.look)

    def _unproven(self, instance: Instance, activation: Activation, build: str) -> Problem | None:
        """Return why a restarted component does not run the build; None if none is known not to."""
        processes = self.processes(instance, activation.target.load_into, activation.restarted_by)
        problems = (disagreement(one, build) for one in processes if one.proven)
        return self._missing(instance, processes) or next(filter(None, problems), None)

    def _wanted(self, instance: Instance, activation: Activation) -> Declared:
        """Return what the API server must have loaded: the build's declarations, or nothing."""
        assert instance.local is not None, "this driver gets local instances only"
        build, loads = served(activation)
        there = loads and {c.name for c in instance.local.components} & {*SERVERS}
        return self._declared(build) if build is not None and there else Declared()


class _Downs:
    """Number of consecutive checks that found a component of each instance down.

    Checks are counted, not seconds: in between the machine may have been suspended, or too busy.
    """

    def __init__(self) -> None:
        self._times: dict[str, tuple[tuple[str, Step], int]] = {}

    def look(self, instance: Instance, activation: Activation) -> tuple[Problem | None, int]:
        """Return what is down, if anything, and how many consecutive checks have found it so.

        A status command without a result says nothing: it is run again, and does not count.
        """
        assert instance.local is not None, "this driver gets local instances only"
        mark = (activation.id, activation.step)
        known, times = self._times.pop(instance.name, (mark, 0))
        silent: Problem | None = None
        for component in instance.local.components:
            if component.name not in activation.components or not component.status:
                continue
            code, output = run(component.status, STATUS_TIMEOUT)
            if code == 0:
                continue
            detail = " ".join(output.split()) or f"its status command failed with code {code}"
            problem = Problem(Reason.COMPONENT_DOWN, f"{component.name} is down: {detail}")
            if code != TIMED_OUT:
                times = times + 1 if known == mark else 1
                self._times[instance.name] = (mark, times)
                return problem, times
            unknown = f"the status command of {component.name} did not answer"
            silent = silent or Problem(Reason.STATUS_UNKNOWN, unknown)
        return silent, 0
