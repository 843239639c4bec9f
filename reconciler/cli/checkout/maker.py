"""Builds of a checkout, by the daemon's own builder, on a share that ends with the command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler.builder.build_job import BuildJob
from reconciler.builder.resolve.lock import Lock
from reconciler.cli.checkout.bases import Base
from reconciler.cli.preview.resolution import checkout_builder
from reconciler.cli.preview.revisions import Side
from reconciler.core.definitions import Api, Environment, Instance
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.model import Problem
from reconciler.settings import Settings
from reconciler.share.share import Share

NO_DAGS = "no-dags"  # the instance that a build is verified for without an Airflow of its own


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a build: its packages by name, or the problem, or why it is not known.

    `log` is what the build said.
    """

    environment: str
    runtime: str
    instances: tuple[str, ...]
    packages: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    unknown: str = ""
    log: str = ""

    @property
    def is_good(self) -> bool:
        """Return True if the daemon would activate the same."""
        return self.problem is None and not self.unknown


class Maker:
    """Builder of the environments of a checkout; `scratch` is removed by the caller."""

    def __init__(self, settings: Settings, side: Side, scratch: Path) -> None:
        self._side = side
        self._scratch = scratch
        share = Share(scratch / "share")
        share.root.mkdir(parents=True)
        share.prepare()
        self._builder = checkout_builder(settings, side.packages(), share)

    def build(self, environment: Environment, base: Base, tell: Callable[[str], None]) -> Outcome:
        """Resolve, build and verify an environment for a base, as the daemon does."""
        outcome = Outcome(environment.name, base.runtime.key, base.instances)
        if base.unknown:
            return replace(outcome, unknown=base.unknown)
        job = self._job(environment, base)
        recipe, runtime = environment.recipe, base.runtime
        try:
            tell("resolving")
            lock = self._builder.resolve(job, recipe, runtime)
            tell("building wheels")
            built = self._builder.construct(job, recipe, runtime, lock.text)
            tell("verifying")
            for instance in self._verified_as(environment, base):
                self._builder.verify(job, recipe, runtime, instance, built.build_id)
                if instance.local is not None:
                    self._builder.check_dags(job, recipe, runtime, instance, built.build_id)
            return replace(outcome, packages=dict(built.packages), log=_said(job))
        except Stalled as error:
            problem = Problem(error.reason, error.message, error.place)
            return replace(outcome, problem=problem, log=_said(job))
        except Retryable as error:
            return replace(outcome, unknown=f"{error.message} [{error.reason}]", log=_said(job))

    def lock(self, environment: Environment, base: Base) -> Lock:
        """Return the lock of an environment for a base. Raises what `Builder.resolve` raises."""
        return self._builder.resolve(self._job(environment, base), environment.recipe, base.runtime)

    def wheels(self, environment: Environment, base: Base, lock: Lock) -> list[Path]:
        """Return the wheels of a lock as files. Raises what `Builder.wheels` raises."""
        job = self._job(environment, base)
        return self._builder.wheels(job, environment.recipe, base.runtime, lock.text)

    def _job(self, environment: Environment, base: Base) -> BuildJob:
        key = f"{environment.name}-{base.runtime.key}"
        log = self._scratch / f"{key}.log"
        return BuildJob(key, environment.name, environment.team, "", log, threading.Event())

    def _verified_as(self, environment: Environment, base: Base) -> list[Instance]:
        """Return the instances to verify a build for: those whose Airflow is on this machine.

        Their DAGs are parsed too. Without any, it is verified once, for an instance without DAGs.
        """
        instances = [self._side.definitions.instances.get(name) for name in base.instances]
        here = [
            one
            for one in instances
            if one is not None and one.local is not None and Path(one.local.airflow_home).is_dir()
        ]
        return here or [Instance(NO_DAGS, environment.team, environment.place, Api(url=""))]


def _said(job: BuildJob) -> str:
    return job.log.read_text(errors="replace") if job.log.exists() else ""
