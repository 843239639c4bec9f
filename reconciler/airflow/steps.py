"""Steps of an activation that use Airflow's REST API, the same for every kind of target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reconciler.airflow import reports
from reconciler.airflow.reports import ReportHistories, ReportHistory
from reconciler.airflow.rest import AirflowApi
from reconciler.core.definitions import Instance, OnTimeout
from reconciler.core.errors import Retryable
from reconciler.core.machine import PAUSES_BACK
from reconciler.core.model import Activation, Problem, Reports, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import SERVERS, Layout
from reconciler.failpoints import failpoint

LOOK_AGAIN = 1.0  # seconds between two checks while draining or probing
WATCH_INTERVAL = 5.0  # seconds between two checks while a healthy instance is watched
CANNOT_ADOPT = ("apache-airflow-providers-cncf-kubernetes", "10.17.1")
"""Provider with which a scheduler ends at each start while tasks of the last one are under way.

Its executor closes the session in which the scheduler adopts them: DetachedInstanceError, until
they have ended. That is the provider in the official image of Airflow 3.2.2.
"""


class RestSteps:
    """Steps by REST, from observing to watching. They raise Retryable if Airflow is silent.

    `check` is called before each change and raises if this daemon may not act. `watch` is the
    number of seconds that an instance must stay healthy after its pools are restored. `clock` says
    how far the clock is ahead of one that nobody sets.
    """

    def __init__(
        self,
        secrets_dir: Path,
        check: Callable[[], None],
        watch: float = 0.0,
        clock: Callable[[], float] = reports.clock_offset,
    ) -> None:
        self._secrets = secrets_dir
        self._check = check
        self._clock = clock
        self._histories = ReportHistories()
        self.watch = watch

    def api(self, instance: Instance) -> AirflowApi:
        """Return a session with the instance's Airflow, with its team's credentials."""
        name = instance.api.credentials
        secret = self._secrets / instance.team / name if name else None
        return AirflowApi(instance.api.url, secret, team=instance.team)

    def observe(self, instance: Instance, layout: Layout) -> StepResult:
        """Return the pools, import errors and active DAGs before anything is changed.

        The `layout` is returned with what Airflow adds to it: whether it has plugins that may
        import anything.
        """
        with self.api(instance) as api:
            pools = tuple(sorted(api.pools().items()))
            errors = api.import_errors()
            dags = api.dags()
            loose = sorted(api.loose_plugins())
        return StepResult(
            Verdict.OK,
            pools=pools,
            baseline=tuple(sorted({e.file for e in errors})),
            expected_dags=tuple(sorted(d.id for d in dags)),
            layout=replace(layout, unknown=f"the plugin {loose[0]} may import anything")
            if loose
            else layout,
        )

    def adopts_tasks(self, instance: Instance) -> bool:
        """Return True if a scheduler may be restarted while tasks run in pods of their own."""
        name, version = CANNOT_ADOPT
        with self.api(instance) as api:
            return api.providers().get(name) != version

    def pause(self, instance: Instance, activation: Activation, now: float) -> StepResult:
        """Set the recorded pools to 0 slots: running tasks finish, new ones wait."""
        if not activation.pools:
            return StepResult(Verdict.OK)
        try:
            with self.api(instance) as api:
                present = api.pools()
                for name, _ in activation.pools:  # a newer pool could not be restored
                    if present.get(name, 0) != 0:
                        failpoint("airflow.pause.pool")
                        self._check()
                        api.set_pool(name, 0)
        except Retryable as error:
            return _silent(instance, activation, now, error)
        return StepResult(Verdict.OK)

    def drain(self, instance: Instance, activation: Activation, now: float) -> StepResult:
        """Wait until no task runs; at the deadline, do what the definition says."""
        late = now - activation.step_since > instance.drain_timeout
        try:
            with self.api(instance) as api:
                busy = api.busy()
        except Retryable as error:
            if late and activation.step is Step.DRAIN:
                return _deadline(instance, error.message)
            return _silent(instance, activation, now, error)
        if busy == 0:
            return StepResult(Verdict.OK)
        message = f"{busy} tasks still run"
        if late and activation.step is Step.DRAIN_BACK:
            return _deadline_back(instance, message)
        if late:
            return _deadline(instance, message)
        return StepResult(Verdict.NOT_YET, Problem(Reason.DRAINING, message), after=LOOK_AGAIN)

    def reports(self, instance: Instance, activation: Activation, now: float) -> Reports:
        """Return what Airflow reports right before a restart, or what it did before the last one.

        A restart may be what brings a silent Airflow back, so that is no reason to wait.
        """
        nothing = Reports(activation.restarted_at, now, self._clock(), is_complete=False)
        try:
            with self.api(instance) as api:
                return reports.read(api, activation, nothing)
        except Retryable:
            if activation.reports is None:
                return nothing
            return replace(
                activation.reports, restart=nothing.restart, at=nothing.at, clock=nothing.clock
            )

    def history(self, instance: Instance, activation: Activation) -> ReportHistory:
        """Return the reports about an instance since its last restart."""
        history = self._histories.of(instance.name, activation)
        history.look(self._clock())
        return history

    def probe(
        self,
        instance: Instance,
        activation: Activation,
        now: float,
        look: Callable[[AirflowApi], StepResult],
    ) -> StepResult:
        """Check the instance with the gate; what is missing at the deadline has failed."""
        try:
            with self.api(instance) as api:
                seen = look(api)
        except Retryable as error:
            seen = StepResult(Verdict.NOT_YET, Problem(error.reason, error.message), LOOK_AGAIN)
        return self.in_time(instance, activation, now, seen)

    def in_time(
        self, instance: Instance, activation: Activation, now: float, seen: StepResult
    ) -> StepResult:
        """Return the observed result, or a failure if the deadline has passed.

        A watch ends at the first healthy check after its time; what is missing then has the probe's
        limit to come back.
        """
        watch = self.watch if activation.step is Step.WATCH else 0.0
        passed = now - activation.step_since
        if seen.verdict is Verdict.OK and passed < watch:
            message = f"healthy for {passed:.0f} of {watch:.0f} s"
            return StepResult(
                Verdict.NOT_YET, Problem(Reason.WATCHING, message), after=WATCH_INTERVAL
            )
        if seen.verdict is Verdict.NOT_YET and passed > watch + instance.probe_timeout:
            return StepResult(Verdict.FAILED, gate_timeout(instance, seen.problem))
        return seen

    def release(self, instance: Instance, activation: Activation) -> StepResult:
        """Restore the slots of the recorded pools."""
        with self.api(instance) as api:
            present = api.pools()
            for name, slots in activation.pools:
                if present.get(name) == 0 and slots != 0:
                    failpoint("airflow.release.pool")
                    self._check()
                    api.set_pool(name, slots)
        return StepResult(Verdict.OK)


def gate_timeout(instance: Instance, last: Problem | None) -> Problem:
    """Return the problem that the gate was not passed in time, with what was last missing.

    A reason that is not the build's fault stays the reason.
    """
    detail = last.message if last else "it is not healthy"
    reason = last.reason if last and last.reason.policy.blameless else Reason.GATE_TIMEOUT
    return Problem(reason, f"not healthy within {instance.probe_timeout:.0f} s: {detail}")


def served(activation: Activation) -> tuple[str | None, bool]:
    """Return the build that the instance should load now, and whether its API server loads it."""
    back = activation.step is Step.PROBE_BACK
    build = activation.origin.build if back else activation.target.build
    loading = activation.origin.load_into if back else activation.target.load_into
    return build, bool({*SERVERS} & {*loading})


def _deadline_back(instance: Instance, words: str) -> StepResult:
    """Return what happens at the drain's deadline when the build that tasks run on has failed."""
    if instance.on_timeout is OnTimeout.PROCEED:
        return StepResult(Verdict.OK)
    return StepResult(
        Verdict.NOT_YET,
        Problem(
            Reason.DRAIN_TIMEOUT,
            f"the instance has to be rolled back, but {words} after "
            f"{instance.drain_timeout:.0f} s; it goes back once they have ended. End them, or set "
            f"`maintenance.drain.onTimeout: proceed`",
        ),
        after=LOOK_AGAIN,
    )


def _silent(instance: Instance, activation: Activation, now: float, error: Retryable) -> StepResult:
    """Return FAILED if Airflow has been silent for too long while the instance has to go back.

    The build may be why its API does not answer, and waiting would never end then.
    """
    late = now - activation.step_since > instance.probe_timeout
    if late and activation.step in PAUSES_BACK:
        return StepResult(Verdict.FAILED, Problem(error.reason, error.message))
    raise error


def _deadline(instance: Instance, words: str) -> StepResult:
    if instance.on_timeout is OnTimeout.PROCEED:
        return StepResult(Verdict.OK)
    return StepResult(
        Verdict.FAILED,
        Problem(
            Reason.DRAIN_TIMEOUT,
            f"not drained within {instance.drain_timeout:.0f} s: {words}; nothing was changed "
            f"and it is tried again later",
        ),
    )
