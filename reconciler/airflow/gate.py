"""Gate that decides whether a restarted instance is healthy, by Airflow's own reports.

Health stays green while every DAG is broken, so import errors are the real gate: none beyond the
baseline, once every DAG that existed before has been parsed again; and everything that the build
declares is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.airflow.declared import Declared
from reconciler.airflow.reports import Kind, ReportHistory
from reconciler.airflow.rest import AirflowApi, BrokenFile
from reconciler.core.model import Activation, Problem, StepResult
from reconciler.core.phases import Verdict
from reconciler.core.reasons import Reason

SECTIONS = {
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag_processor": "dag-processor",
}
LOOK_AGAIN = 1.0
NAMED = 5  # objects named in a message


class Gate:
    """Check of an instance after its activation's restart, with the `history` of its reports.

    `components` are those that the instance has. `started` says when a component's current process
    started, if that is known: older reports came from the process that the restart ended, which
    continues for a moment. `declared` is what the API server must have loaded.
    """

    def __init__(
        self,
        activation: Activation,
        history: ReportHistory,
        *,
        components: frozenset[str],
        started: Mapping[str, float],
        declared: Declared,
    ) -> None:
        self._components = components
        self._activation = activation
        self._history = history
        self._started = started
        self._declared = declared
        self._parsed_from = self._since(
            "dag-processor" if "dag-processor" in components else "scheduler"
        )

    def look(self, api: AirflowApi) -> StepResult:
        """Return OK, not yet (with what is missing), or failed (with what is wrong)."""
        missing = self._unhealthy(api)
        if missing:
            return self._not_yet(Reason.UNHEALTHY, missing)
        known = {*self._activation.baseline}
        errors = api.import_errors()
        unknown = [error for error in errors if error.file not in known]
        fresh = [error for error in unknown if self._is_new(Kind.BROKEN, error.file, error.at)]
        if fresh:
            return _broken(fresh)
        if unknown:
            return self._not_yet(
                Reason.NOT_PARSED, f"not parsed since the restart: {unknown[0].file}, as broken"
            )
        unparsed = self._unparsed(api, {error.file for error in errors})
        if unparsed:
            names = ", ".join(unparsed[:NAMED])
            return self._not_yet(Reason.NOT_PARSED, f"not parsed since the restart: {names}")
        absent = self._absent(api)
        if absent:
            return self._not_yet(Reason.NOT_LOADED, absent)
        return StepResult(Verdict.OK)

    def _since(self, component: str) -> float:
        """Return the time from which a component's reports are those of its current process.

        At the latest that is when probing began, whatever the process table says, or the record of
        a restart before the clock was set back.
        """
        activation = self._activation
        restarted = activation.restarted_at
        if activation.reports is not None and activation.is_reported:
            restarted = activation.reports.at
        return min(max(restarted, self._started.get(component, 0.0)), activation.step_since)

    def _not_yet(self, reason: Reason, words: str) -> StepResult:
        return StepResult(Verdict.NOT_YET, Problem(reason, words), after=LOOK_AGAIN)

    def _unhealthy(self, api: AirflowApi) -> str:
        """Return a text about what is unhealthy on the health page, or ""."""
        sections = api.health()
        database = sections.get("metadatabase")
        if database is None or database.status != "healthy":
            return "the metadata database is not healthy"
        for section, component in SECTIONS.items():
            if component not in self._components:
                continue
            report = sections.get(section)
            if report is None or report.status != "healthy":
                return f"{component} is {report.status if report else 'not reported'}"
            restarted = component in self._activation.components
            since = self._since(component)
            if restarted and not self._history.is_new(
                Kind.HEARTBEAT, section, report.heartbeat, since
            ):
                return f"{component} has not reported since its restart"
        return ""

    def _absent(self, api: AirflowApi) -> str:
        """Return a text about declared providers and plugins that the API server has not loaded."""
        not_loaded = []
        for kind, declared, ask in (
            ("provider", self._declared.providers, api.providers),
            ("plugin", self._declared.plugins, api.plugins),
        ):
            missing = sorted(declared.difference(ask())) if declared else []
            not_loaded += [f"the {kind} of {name}" for name in missing[:NAMED]]
        return f"the API server has not loaded {', '.join(not_loaded)}" if not_loaded else ""

    def _unparsed(self, api: AirflowApi, broken: set[str]) -> list[str]:
        """Return the DAGs that existed before and have not been parsed since the restart.

        Airflow lists the DAGs of a broken file for a while: those broken before are left out.
        """
        wanted = set(self._activation.expected_dags)
        dags = {d.id: d for d in api.dags()}
        return sorted(
            name
            for name in wanted & dags.keys()
            if dags[name].file not in broken
            and not self._is_new(Kind.PARSED, name, dags[name].parsed_at)
        )

    def _is_new(self, kind: Kind, name: str, at: float) -> bool:
        """Return True if the component that parses DAGs wrote a report after its restart."""
        return self._history.is_new(kind, name, at, self._parsed_from)


def _broken(fresh: list[BrokenFile]) -> StepResult:
    """Return the failure of files that did parse before the restart."""
    last = [line for line in fresh[0].text.strip().splitlines() if line.strip()]
    more = f" (and {len(fresh) - 1} more files)" if len(fresh) > 1 else ""
    reason = last[-1].strip() if last else "no reason given"
    message = f"{fresh[0].file} does not parse any more: {reason}{more}"
    return StepResult(Verdict.FAILED, Problem(Reason.NEW_IMPORT_ERRORS, message))
