"""Verification of a build on the share: spread, verified, packed, marked and judged.

The mark says that the build works; whether it is within an environment's import budget is judged by
that environment's own limits each time, from the mark's report if that suffices.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from reconciler.builder.build_job import BuildJob
from reconciler.builder.verify.candidate import Candidate, VerifyRequest
from reconciler.builder.verify.dag_errors import dag_check
from reconciler.builder.verify.dags import dags_folder, folder_mark
from reconciler.builder.verify.verifier import Verified, Verifier
from reconciler.builder.wheels.download import entry_digest
from reconciler.core.budget import exceeded, measured, must_measure, refusal
from reconciler.core.definitions import Instance, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.model import DagCheck, ImportCost
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.failpoints import failpoint
from reconciler.share.hot import Need
from reconciler.share.schemas import Distribution
from reconciler.share.share import Share

if TYPE_CHECKING:
    from reconciler.builder.verify.dag_pods.runner import DagPods

_CHECKS = TypeAdapter(DagCheck)


class Work(Protocol):
    """Factory of folders in the executor, each removed at the end."""

    def __call__(self, job: BuildJob, *, harmless: bool = False) -> AbstractContextManager[Path]:
        """Yield a separate folder."""


class Prover:
    """Verification of builds that are on the share."""

    def __init__(
        self,
        share: Share,
        verifier: Verifier,
        work: Work,
        cache: Path,
        releases: DagPods | None = None,
    ) -> None:
        self._cache = cache
        self._releases = releases
        self._share = share
        self._verifier = verifier
        self._work = work

    def verify(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> Verified:
        """Verify a build for an instance's runtime, and judge it by the recipe's import budget.

        Raises Stalled: VerificationFailed, or ImportBudgetExceeded. The latter leaves the build
        marked: it works, and others may use it. Raises Retryable("BuildMissing").
        """
        report = self._share.report(build_id, runtime.key)
        if report is not None and not must_measure(recipe.checks.budget, measured(report)):
            job.say(f"build {build_id} was verified for {runtime.key} before")
            verified = Verified(report)
            if instance.local is not None:
                self._check_local(job, recipe, runtime, instance, build_id)
        else:
            if report is not None:
                job.say("the build was verified before; its imports are measured again")
            verified = self._prove(job, recipe, runtime, instance, build_id)
        _judge(job, recipe, verified.report)
        return verified

    def check_dags(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> DagCheck:
        """Parse an instance's DAGs with a verified build, unless that was done, and say which.

        Raises Stalled("VerificationFailed") for a DAG that breaks with it.
        """
        if instance.local is not None:
            return self._check_local(job, recipe, runtime, instance, build_id)
        if self._releases is None:
            return DagCheck(instance.name, unseen="DAGs of releases are not parsed here")
        candidate, _ = self._candidate(instance, runtime, build_id)
        location = recipe.requirements[0].place if recipe.requirements else None
        return self._releases.check(job, runtime, instance, candidate, location)

    def _prove(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> Verified:
        """Verify and mark a build.

        It starts with the whole packs of entries that are new on the share, which are spread
        meanwhile: the folders that every process can fall back to exist before the build counts as
        verified.
        """
        self._verifier.refuse_hidden(instance)
        candidate, rows = self._candidate(instance, runtime, build_id)
        kept = self._kept_check(runtime, instance, candidate)
        spread = self._share.is_spread_build(build_id)

        def once(*, packed: bool) -> Verified:
            with self._work(job) as work:
                shown = replace(candidate, packed=packed)
                request = VerifyRequest(job, recipe, runtime, instance, shown)
                return self._verifier.verify(request, work, lambda: self._work(job, harmless=True))

        with ThreadPoolExecutor(1) as pool:
            spreading = pool.submit(self._share.spread_build, build_id, job.check)
            try:
                verified = once(packed=not spread)
            except Stalled:
                spreading.result()
                if spread:
                    raise
                job.say("verifying again, with what is spread on the share now")
                verified = once(packed=False)
            spreading.result()
        failpoint("builder.verified")
        needs = self._share.put_packs(build_id, verified.hot, verified.parsed)
        size = sum(need.bytes for need in needs.values())
        job.say(f"packed {size / 1e6:.1f} MB that imports need")
        report = {
            **verified.report,
            "files": sum(need.files for need in needs.values()),
            "bytes": size,
            "packages": _packages(rows, runtime, needs),
        }
        self._share.mark_verified(build_id, runtime.key, report)
        if instance.local is not None:
            _keep(kept, dag_check(instance, verified.errors))
        return Verified(report, verified.hot)

    def _candidate(
        self, instance: Instance, runtime: Runtime, build_id: str
    ) -> tuple[Candidate, Sequence[Distribution]]:
        """Return a build to be verified, and its rows. Raises Retryable("BuildMissing")."""
        described = self._share.build(build_id)
        if described is None:
            words = f"build {build_id} is not complete on the share; it is built anew"
            raise Retryable(Reason.BUILD_MISSING, words)
        pointer = self._share.pointer(instance.name)
        named = pointer.entries.get(runtime.key) if pointer is not None else None
        active = named.build if named is not None else build_id
        known = active != build_id and self._share.build(active) is not None
        candidate = Candidate(
            build_id,
            self._share.root,
            self._share.install_loader(instance.name),
            tuple(row.name for row in described.distributions),
            bin=tuple(described.bin),
            active=active if known else None,
        )
        return candidate, described.distributions

    def _check_local(
        self, job: BuildJob, recipe: Recipe, runtime: Runtime, instance: Instance, build_id: str
    ) -> DagCheck:
        """Parse a local instance's DAGs with a build that was already verified.

        This is done once for the same DAGs and the same active build.
        """
        self._verifier.refuse_hidden(instance)
        folder = dags_folder(instance)
        if not folder.is_dir() or not any(folder.rglob("*.py")):
            return dag_check(instance, {})
        candidate, _ = self._candidate(instance, runtime, build_id)
        kept = self._kept_check(runtime, instance, candidate)
        known = _read_kept(kept)
        if known is not None:
            return replace(known, instance=instance.name)
        with self._work(job) as work:
            request = VerifyRequest(job, recipe, runtime, instance, candidate)
            errors = self._verifier.parse_dags(
                request, work, lambda: self._work(job, harmless=True)
            )
        outcome = dag_check(instance, errors)
        _keep(kept, outcome)
        return outcome

    def _kept_check(self, runtime: Runtime, instance: Instance, candidate: Candidate) -> Path:
        """Return the path of the result for these DAGs with this build and this active one."""
        inputs = [candidate.build_id, runtime.key, candidate.active or ""]
        inputs.append(folder_mark(dags_folder(instance)))
        mark = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
        return self._cache / "parsed" / f"{mark}.json"


def _keep(path: Path, check: DagCheck) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".tmp-{os.urandom(6).hex()}")
    temp.write_bytes(_CHECKS.dump_json(check))
    temp.rename(path)


def _read_kept(path: Path) -> DagCheck | None:
    try:
        return _CHECKS.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _packages(
    rows: Sequence[Distribution], runtime: Runtime, needs: Mapping[str, Need]
) -> list[list[object]]:
    """Return [name, files, bytes] of each distribution that imports need, largest first."""
    sizes = []
    for row in rows:
        need = needs.get(entry_digest(row.sha256, runtime.python_tag))
        if need is not None and need.files:
            sizes.append((-need.bytes, row.name, need.files))
    return [[name, files, -less] for less, name, files in sorted(sizes)]


def _judge(job: BuildJob, recipe: Recipe, report: Mapping[str, object]) -> None:
    """Refuse a build that exceeds the definition's limits."""
    cost = measured(report)
    over = exceeded(recipe.checks.budget, cost)
    if not over:
        return
    rows: Any = report.get("packages", [])
    problem = refusal(over, cost, {n: ImportCost(files=f, bytes=b) for n, f, b in rows})
    job.say(problem.message)
    raise Stalled(problem.reason, problem.message, problem.place)
