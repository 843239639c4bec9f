"""The gate: is a restarted instance healthy, by what Airflow itself says (DESIGN §9.7).

Health stays green while every DAG is broken, so import errors are the real gate: none beyond the
baseline, once every DAG that was there has been parsed again.
"""

from __future__ import annotations

from reconciler.airflow.rest import Api
from reconciler.core.model import Activation, Instance, Problem, StepResult
from reconciler.core.phases import Verdict

SECTIONS = {
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag_processor": "dag-processor",
}
LOOK_AGAIN = 1.0
NAMED = 5  # objects named in a message


class Gate:
    """One look at an instance after `activation.restarted_at`."""

    def __init__(self, instance: Instance, activation: Activation) -> None:
        self._instance = instance
        self._activation = activation

    def look(self, api: Api) -> StepResult:
        """OK, not yet (with what is missing), or failed (with what is wrong)."""
        missing = self._unhealthy(api)
        if missing:
            return self._not_yet("Unhealthy", missing)
        known = {file for file, _ in self._activation.baseline}
        errors = [e for e in api.import_errors() if e.file not in known]
        fresh = [e for e in errors if e.at >= self._activation.restarted_at]
        if fresh:
            last = [line for line in fresh[0].text.strip().splitlines() if line.strip()]
            more = f" (and {len(fresh) - 1} more files)" if len(fresh) > 1 else ""
            return StepResult(
                Verdict.FAILED,
                Problem(
                    "NewImportErrors",
                    f"{fresh[0].file} does not parse any more: "
                    f"{last[-1].strip() if last else 'no reason given'}{more}",
                ),
            )
        unparsed = self._unparsed(api, {e.file for e in errors})
        if unparsed:
            names = ", ".join(unparsed[:NAMED])
            return self._not_yet("NotParsed", f"not parsed since the restart: {names}")
        return StepResult(Verdict.OK)

    def _not_yet(self, reason: str, words: str) -> StepResult:
        return StepResult(Verdict.NOT_YET, Problem(reason, words), after=LOOK_AGAIN)

    def _unhealthy(self, api: Api) -> str:
        """What of the health page is not as it should be, in words; "" when all is."""
        sections = api.health()
        local = self._instance.local
        there = {c.name for c in local.components} if local is not None else set()
        database = sections.get("metadatabase")
        if database is None or database.status != "healthy":
            return "the metadata database is not healthy"
        for section, component in SECTIONS.items():
            if component not in there:
                continue
            found = sections.get(section)
            if found is None or found.status != "healthy":
                return f"{component} is {found.status if found else 'not reported'}"
            restarted = component in self._activation.components
            if restarted and found.heartbeat < self._activation.restarted_at:
                return f"{component} has not reported since its restart"
        return ""

    def _unparsed(self, api: Api, broken: set[str]) -> list[str]:
        """DAGs that were there and have not been parsed since the restart."""
        wanted = set(self._activation.expected_dags)
        dags = {d.id: d for d in api.dags()}
        return sorted(
            name
            for name in wanted & dags.keys()
            if dags[name].parsed_at < self._activation.restarted_at
            and dags[name].file not in broken
        )
