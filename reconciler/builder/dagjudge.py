"""Judgement of DAG import errors: which of them a new build causes.

A DAG counts against a build if it parses with what the instance runs now: on the base alone, or
with the active build. The second detects a module that the new build renames or removes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.builder.candidate import LOCAL, Candidate
from reconciler.builder.dags import LIVE, Clean, DagParser, declared_name
from reconciler.builder.job import Job
from reconciler.core.definitions import Instance, Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class DagJudge:
    """Judge of one candidate for one instance."""

    dags: DagParser
    job: Job
    recipe: Recipe
    runtime: Runtime
    instance: Instance
    candidate: Candidate
    clean: Clean

    def judge(self, errors: Mapping[str, str], work: Path) -> None:
        """Raise Stalled("VerificationFailed") if errors with the candidate are caused by it.

        `work` is for parsing with the active build, if that is necessary.
        """
        if not errors:
            return
        self._judge_declared(errors)
        known = self.dags.baseline(
            self.job, self.runtime, self.instance, self.candidate, self.clean
        )
        for file, error in errors.items():
            if file not in known:
                raise self._refusal(file, error, "parses on the base alone")
        active = self.candidate.active
        if active is None:
            return
        with_active = self._with_active(active, work)
        for file, error in errors.items():
            if file not in with_active:
                raise self._refusal(file, error, f"parses with the active build {active}")

    def _judge_declared(self, errors: Mapping[str, str]) -> None:
        for number, (path, _) in enumerate(self.recipe.checks.dags):
            name = declared_name(number, path)
            if name in errors:
                self.job.say(errors[name])
                raise Stalled(
                    "VerificationFailed",
                    f"the declared DAG does not parse: {last_line(errors[name])}",
                    Place(path, line_in(errors[name], name)),
                )

    def _with_active(self, active: str, work: Path) -> Mapping[str, str]:
        """Return the errors that the instance has now, with its active build."""
        candidate = replace(self.candidate, build_id=active, packed=False)
        (work / LOCAL).mkdir(mode=0o700, parents=True)
        scratch = self.dags.prepare(self.job, self.runtime, candidate, self.clean)
        return self.dags.parse(
            self.job, self.recipe, self.runtime, self.instance, candidate, work, scratch
        ).errors

    def _refusal(self, file: str, error: str, otherwise: str) -> Stalled:
        self.job.say(error)
        name = file.removeprefix(f"{LIVE}/")
        return Stalled(
            "VerificationFailed",
            f"the instance's DAG {name} {otherwise}, but not with this build: {last_line(error)}",
            self.recipe.requirements[0].place if self.recipe.requirements else None,
        )


def last_line(error: str) -> str:
    """Return the line of a stack trace that states the error."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"


def line_in(error: str, name: str) -> int:
    """Return the innermost line of a file in a stack trace, or 0 if the trace does not name it."""
    found = re.findall(rf'File "[^"]*{re.escape(name)}", line (\d+)', error)
    return int(found[-1]) if found else 0
