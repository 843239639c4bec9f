"""Verifying a build before anything live is touched (DESIGN §6).

In processes of the instance's own interpreter, with the candidate pinned: modules and entry points
import, declared DAGs parse, and Airflow lists no import error that the base alone does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.builder.candidate import (
    LOCAL,
    Candidate,
    Hot,
    did_not_end,
    hot_of,
    put_worker,
    read_report,
)
from reconciler.builder.dags import LIVE, Clean, DagParser, declared_name
from reconciler.builder.explain import place_of
from reconciler.builder.inrepo import InRepo
from reconciler.builder.job import Job
from reconciler.builder.workshop import Workshop
from reconciler.core.definitions import Instance, Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.runtime import Runtime

REPORT_KEYS = {"fatal", "warnings", "modules", "seconds", "opens", "files", "hot"}


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen: modules, files, opens and bytes counted, seconds of the imports.

    `hot` are the paths in store entries that imports need, `parsed` those that parsing DAGs needed,
    as the build's own code told them: they are names, nothing more.
    """

    report: Mapping[str, object]
    hot: Hot = field(default_factory=dict)
    parsed: Hot = field(default_factory=dict)


class Verifier:
    """Verifies candidates; `cache` keeps what the base alone fails at."""

    def __init__(self, workshop: Workshop, in_repo: InRepo, timeout: float, cache: Path) -> None:
        self._workshop = workshop
        self._in_repo = in_repo
        self._timeout = timeout
        self._dags = DagParser(workshop, timeout, cache)

    def verify(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        instance: Instance,
        candidate: Candidate,
        work: Path,
        clean: Clean,
    ) -> Verified:
        """Prove a candidate; raises Stalled("VerificationFailed") with the place and the reason."""
        (work / LOCAL).mkdir(mode=0o700)
        scratch = self._dags.prepare(job, runtime, candidate, clean)
        with ThreadPoolExecutor(2) as pool:
            imports = pool.submit(self._imports, job, recipe, runtime, candidate, work)
            dags = pool.submit(
                self._dags.parse, job, recipe, runtime, instance, candidate, work, scratch
            )
            report, parsed = imports.result(), dags.result()
        self._judge_imports(job, recipe, runtime, report)
        self._judge_dags(job, recipe, runtime, instance, candidate, clean, parsed.errors)
        job.say(f"verified: {report['modules']} modules in {report['seconds']:.1f} s")
        keep = ("modules", "seconds", "opens", "files")
        warnings = [f"{w['what']}: {w['error']}" for w in report["warnings"]]
        told = {**{k: report[k] for k in keep}, "warnings": warnings[:100]}
        return Verified(told, hot_of(report["hot"]), parsed.hot)

    def _imports(
        self, job: Job, recipe: Recipe, runtime: Runtime, candidate: Candidate, work: Path
    ) -> dict[str, Any]:
        own = {p.name for p in recipe.packages}
        home = work / "imports-home"
        home.mkdir()
        request = home / "request.json"
        request.write_text(
            json.dumps(
                {
                    "root": str(candidate.share),
                    "imports": list(recipe.checks.imports),
                    "distributions": [
                        {"name": name, "in_repo": name in own} for name in candidate.distributions
                    ],
                }
            )
        )
        worker, answer = put_worker(home), home / "report.json"
        ended = self._workshop.run(
            job,
            [runtime.python, str(worker), "imports", str(answer), str(request)],
            work=home,
            timeout=min(self._timeout, recipe.checks.timeout),
            readable=[candidate.share],
            environment=candidate.environment(runtime, home, candidate.build_id),
            writable=[home.parent / LOCAL],
            quiet=True,
            results=[answer],
        )
        found = read_report(answer)
        if not found.keys() >= REPORT_KEYS:
            raise did_not_end(ended, "importing the build's modules")
        return found

    # ------------------------------------------------------------------------------- judging

    def _judge_imports(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        report: dict[str, Any],
    ) -> None:
        for problem in report["warnings"]:
            job.say(f"warning: {problem['what']}: {problem['error']}")
        if not report["fatal"]:
            return
        for problem in report["fatal"]:
            job.say(f"{problem['what']} does not import:\n{problem['traceback']}")
        first = report["fatal"][0]
        place = self._place_of(job.team, recipe, runtime, first)
        raise Stalled(
            "VerificationFailed", f"{first['what']} does not import: {first['error']}", place
        )

    def _place_of(
        self, team: str, recipe: Recipe, runtime: Runtime, problem: dict[str, Any]
    ) -> Place | None:
        _, _, below = problem["file"].partition("/lib/")
        name = problem["distribution"]
        for package in recipe.packages:
            if below and name in ("", package.name):
                place = self._in_repo.repo_place(
                    team, recipe, package, runtime, below, problem["line"]
                )
                if place is not None:
                    return place
        for package in recipe.packages:
            if package.name == name:
                return Place(package.path)
        return place_of(name, recipe)

    def _judge_dags(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        instance: Instance,
        candidate: Candidate,
        clean: Clean,
        errors: dict[str, str],
    ) -> None:
        if not errors:
            return
        for number, (path, _) in enumerate(recipe.checks.dags):
            name = declared_name(number, path)
            if name in errors:
                job.say(errors[name])
                raise Stalled(
                    "VerificationFailed",
                    f"the declared DAG does not parse: {last_line(errors[name])}",
                    Place(path, line_in(errors[name], name)),
                )
        known = self._dags.baseline(job, runtime, instance, candidate, clean)
        for file, error in errors.items():
            if file not in known:
                job.say(error)
                name = file.removeprefix(f"{LIVE}/")
                raise Stalled(
                    "VerificationFailed",
                    f"the instance's DAG {name} parses on the base alone, but not with this build: "
                    f"{last_line(error)}",
                    recipe.requirements[0].place if recipe.requirements else None,
                )


def last_line(error: str) -> str:
    """The line of a stack trace that says what is wrong."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"


def line_in(error: str, name: str) -> int:
    """The innermost line of a file that a stack trace names; 0 when it names none."""
    found = re.findall(rf'File "[^"]*{re.escape(name)}", line (\d+)', error)
    return int(found[-1]) if found else 0
