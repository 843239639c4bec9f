"""Gate that decides whether a restarted instance is healthy, by Airflow's own reports.

Health stays green while every DAG is broken, so import errors are the real gate: none beyond the
baseline, once every DAG that existed before has been parsed again; and everything that the build
declares is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.airflow.declared import Declared
from reconciler.airflow.rest import AirflowApi
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
    """Check of an instance after `activation.restarted_at`.

    `components` are those that the instance has. `started` says when a component's current process
    started, if that is known: older reports came from the process that the restart ended, which
    continues for a moment. `declared` is what the API server must have loaded.
    """

    def __init__(
        self,
        activation: Activation,
        *,
        components: frozenset[str],
        started: Mapping[str, float],
        declared: Declared,
    ) -> None:
        self._components = components
        self._activation = activation
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
        fresh = [e for e in errors if e.file not in known and e.at >= self._parsed_from]
        if fresh:
            last = [line for line in fresh[0].text.strip().splitlines() if line.strip()]
            more = f" (and {len(fresh) - 1} more files)" if len(fresh) > 1 else ""
            return StepResult(
                Verdict.FAILED,
                Problem(
                    Reason.NEW_IMPORT_ERRORS,
                    f"{fresh[0].file} does not parse any more: "
                    f"{last[-1].strip() if last else 'no reason given'}{more}",
                ),
            )
        unparsed = self._unparsed(api, {e.file for e in errors if e.file in known})
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
        restarted = self._activation.restarted_at
        latest = self._activation.step_since
        return min(max(restarted, self._started.get(component, 0.0)), latest)

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
            if restarted and report.heartbeat < self._since(component):
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
            if dags[name].parsed_at < self._parsed_from and dags[name].file not in broken
        )
