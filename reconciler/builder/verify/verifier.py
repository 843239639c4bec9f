"""Verification of a build before anything live is touched.

It happens in processes of the instance's own interpreter, with the candidate pinned: modules and
entry points import, declared DAGs parse, and Airflow lists no import error that the base alone does
not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.builder.executor.protocol import Executor, read_result
from reconciler.builder.local_disk import disk_full, tells_of_full_disk
from reconciler.builder.resolve.uv_errors import place_of
from reconciler.builder.verify.candidate import (
    LOCAL,
    REPORT_LIMIT,
    Hot,
    VerifyRequest,
    did_not_end,
    put_worker,
)
from reconciler.builder.verify.dag_errors import DagJudge
from reconciler.builder.verify.dags import Clean, DagParser, dagbag_timeout
from reconciler.builder.verify.readers import read_document
from reconciler.builder.verify.report import WORDS_LIMIT, Problem, Report
from reconciler.builder.wheels.in_repo import InRepo
from reconciler.core.definitions import Instance, Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.documents import Malformed

WHAT = "importing the build's modules"


@dataclass(frozen=True, slots=True)
class Verified:
    """Results: numbers of modules, files, opens and bytes, and the seconds of the imports.

    `hot` are the paths in store entries that imports need, `parsed` those that parsing DAGs needed.
    The build's own code reports them, so they are only names. `errors` are the import errors of
    DAGs, by file, that the build does not cause.
    """

    report: Mapping[str, object]
    hot: Hot = field(default_factory=dict)
    parsed: Hot = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


class Verifier:
    """Verification of candidates; `cache` keeps the failures on the base alone."""

    def __init__(self, executor: Executor, in_repo: InRepo, timeout: float, cache: Path) -> None:
        self._executor = executor
        self._in_repo = in_repo
        self._timeout = timeout
        self._dags = DagParser(executor, timeout, cache)

    def verify(self, request: VerifyRequest, work: Path, clean: Clean) -> Verified:
        """Verify a candidate. Raises Stalled("VerificationFailed") with place and reason."""
        (work / LOCAL).mkdir(mode=0o700)
        scratch = self._dags.prepare(request, clean)
        with ThreadPoolExecutor(2) as pool:
            imports = pool.submit(self._imports, request, work)
            dags = pool.submit(self._dags.parse, request, work, scratch)
            report, parsed = imports.result(), dags.result()
        self._judge_imports(request, report)
        DagJudge(self._dags, request, clean).judge(parsed.errors, work / "active")
        request.job.say(f"verified: {report.modules} modules in {report.seconds:.1f} s")
        told = report.model_dump(include={"modules", "seconds", "opens", "files"})
        told["warnings"] = [f"{w.what}: {w.error}"[:WORDS_LIMIT] for w in report.warnings[:100]]
        return Verified(told, report.paths(), parsed.hot, parsed.errors)

    def _imports(self, request: VerifyRequest, work: Path) -> Report:
        job, recipe, runtime = request.job, request.recipe, request.runtime
        candidate = request.candidate
        own = {p.name for p in recipe.packages}
        home = work / "imports-home"
        home.mkdir()
        asked = home / "request.json"
        asked.write_text(
            json.dumps(
                {
                    "root": str(candidate.share),
                    "imports": list(recipe.checks.imports),
                    "exclude": list(recipe.checks.exclude),
                    "import_timeout": dagbag_timeout(request.instance),
                    "bin": list(candidate.bin),
                    "distributions": [
                        {"name": name, "in_repo": name in own} for name in candidate.distributions
                    ],
                }
            )
        )
        worker, answer = put_worker(home), home / "report.json"
        ended = self._executor.run(
            job,
            [runtime.python, str(worker), "imports", str(answer), str(asked)],
            work=home,
            timeout=min(self._timeout, recipe.checks.timeout),
            readable=[candidate.share],
            environment=candidate.environment(runtime, home, candidate.build_id),
            writable=[home.parent / LOCAL],
            quiet=True,
            results=[answer],
        )
        content = read_result(answer, REPORT_LIMIT)
        if content is None:
            raise did_not_end(ended, WHAT)
        try:
            return read_document(job.team, Report, content, f"the report of {WHAT}")
        except Malformed as error:
            raise Stalled(
                Reason.VERIFICATION_FAILED,
                f"{error}. Only code of the build can have written it so: look at its packages for "
                f"what they do when they are imported",
            ) from error

    def refuse_hidden(self, instance: Instance) -> None:
        """Refuse folders of a local instance that no build may read; see DagParser."""
        self._dags.refuse_hidden(instance)

    def parse_dags(self, request: VerifyRequest, work: Path, clean: Clean) -> Mapping[str, str]:
        """Parse an instance's DAGs with a build that was verified before, for another instance.

        Returns the errors, by file, that are not the build's fault. Raises
        Stalled("VerificationFailed") as `verify` does.
        """
        (work / LOCAL).mkdir(mode=0o700)
        scratch = self._dags.prepare(request, clean)
        parsed = self._dags.parse(request, work, scratch)
        DagJudge(self._dags, request, clean).judge(parsed.errors, work / "active")
        return parsed.errors

    # ---------------------------------------------------------------------------- assessment

    def _judge_imports(self, request: VerifyRequest, report: Report) -> None:
        job, recipe, runtime = request.job, request.recipe, request.runtime
        for problem in report.warnings:
            job.say(f"warning: {problem.words}")
        if not report.fatal:
            return
        for problem in report.fatal:
            job.say(f"{problem.words}\n{problem.traceback}")
        if any(tells_of_full_disk(problem.words) for problem in report.fatal):
            raise disk_full()
        first = report.fatal[0]
        location = self._place_of(job.team, recipe, runtime, first)
        raise Stalled(Reason.VERIFICATION_FAILED, first.words, location)

    def _place_of(
        self, team: str, recipe: Recipe, runtime: Runtime, problem: Problem
    ) -> Place | None:
        _, _, below = problem.file.partition("/lib/")
        below = below.partition("/site-packages/")[2] or below  # in a prefix
        name = problem.distribution
        for package in recipe.packages:
            if below and name in ("", package.name):
                location = self._in_repo.repo_place(
                    team, recipe, package, runtime, below, problem.line
                )
                if location is not None:
                    return location
        for package in recipe.packages:
            if package.name == name:
                return Place(package.path)
        return place_of(name, recipe)
