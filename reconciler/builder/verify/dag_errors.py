"""Judgement of DAG import errors: which of them a new build causes.

A DAG counts against a build if it parses with what the instance runs now: the active build, or the
base alone where none is active.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.builder.verify.candidate import LOCAL, VerifyRequest
from reconciler.builder.verify.dag_pods.judgement import NAMES, needs_values
from reconciler.builder.verify.dags import LIVE, Clean, DagParser, dags_folder, declared_name
from reconciler.core.definitions import Instance, Place
from reconciler.core.errors import Stalled
from reconciler.core.model import DagCheck
from reconciler.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class DagJudge:
    """Judge of one candidate for one instance."""

    dags: DagParser
    request: VerifyRequest
    clean: Clean

    def judge(self, errors: Mapping[str, str], work: Path) -> None:
        """Raise Stalled("VerificationFailed") if errors with the candidate are caused by it.

        `work` is for parsing with the active build, if that is necessary.
        """
        if not errors:
            return
        self._judge_declared(errors)
        active = self.request.candidate.active
        if active is None:
            otherwise = "parses on the base alone"
            known: Collection[str] = self.dags.baseline(self.request, self.clean)
        else:
            otherwise = f"parses with the active build {active}"
            known = self._with_active(active, work)
        for file, error in errors.items():
            if file not in known:
                raise self._refusal(file, error, otherwise)

    def _judge_declared(self, errors: Mapping[str, str]) -> None:
        for number, (path, _) in enumerate(self.request.recipe.checks.dags):
            name = declared_name(number, path)
            if name in errors:
                self.request.job.say(errors[name])
                raise Stalled(
                    Reason.VERIFICATION_FAILED,
                    f"the declared DAG does not parse: {last_line(errors[name])}",
                    Place(path, line_in(errors[name], name)),
                )

    def _with_active(self, active: str, work: Path) -> Mapping[str, str]:
        """Return the errors that the instance has now, with its active build."""
        candidate = replace(self.request.candidate, build_id=active, packed=False)
        request = replace(self.request, candidate=candidate)
        (work / LOCAL).mkdir(mode=0o700, parents=True)
        scratch = self.dags.prepare(request, self.clean)
        return self.dags.parse(request, work, scratch).errors

    def _refusal(self, file: str, error: str, otherwise: str) -> Stalled:
        recipe = self.request.recipe
        self.request.job.say(error)
        name = file.removeprefix(f"{LIVE}/")
        return Stalled(
            Reason.VERIFICATION_FAILED,
            f"the instance's DAG {name} {otherwise}, but not with this build: {last_line(error)}",
            recipe.requirements[0].place if recipe.requirements else None,
        )


def dag_check(instance: Instance, errors: Mapping[str, str]) -> DagCheck:
    """Return which DAG files of a local instance were parsed; `errors` are known ones by file."""
    folder = dags_folder(instance)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py"))
    known = {
        file.removeprefix(f"{LIVE}/"): error
        for file, error in errors.items()
        if file.startswith(f"{LIVE}/")
    }
    needy = {file for file, error in known.items() if needs_values(error)}
    return DagCheck(
        instance.name,
        source=str(folder),
        seen=len(names),
        names=tuple(names[:NAMES]),
        failing=tuple(sorted(known.keys() - needy)[:NAMES]),
        unjudged=tuple(
            (file, f"it needs a variable or connection: {last_line(known[file])}")
            for file in sorted(needy)[:NAMES]
        ),
        unseen="" if names else f"there is no DAG file in {folder}",
    )


def last_line(error: str) -> str:
    """Return the line of a stack trace that states the error."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"


def line_in(error: str, name: str) -> int:
    """Return the innermost line of a file in a stack trace, or 0 if the trace does not name it."""
    lines = re.findall(rf'File "[^"]*{re.escape(name)}", line (\d+)', error)
    return int(lines[-1]) if lines else 0
