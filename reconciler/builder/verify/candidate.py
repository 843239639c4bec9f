"""Candidate: a build to be verified, and the environment in which a process loads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.protocol import Ended
from reconciler.builder.local_disk import disk_full, ran_out_of_disk
from reconciler.core.definitions import Instance, Recipe
from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime

REPORT_LIMIT = 16 << 20  # bytes
LOCAL = "local"  # in a verification's folder: the directory in which whole packs are unpacked
NO_BUILD = "none"  # pinned: only the base

Hot = Mapping[str, frozenset[str]]  # paths in store entries, by the entries' digests


@dataclass(frozen=True, slots=True)
class Candidate:
    """Build to be verified, as its instance would load it."""

    build_id: str
    share: Path
    loader: Path
    distributions: tuple[str, ...]
    packed: bool = False  # load it from whole packs, unpacked for this verification
    bin: tuple[str, ...] = ()  # folders of programs, relative to the share
    active: str | None = None  # the build that the instance currently runs

    def environment(self, runtime: Runtime, home: Path, pin: str) -> dict[str, str]:
        """Return the variables of a process that loads a build; `home` is a scratch Airflow's."""
        two = runtime.airflow_version.startswith("2.")
        executor = "SequentialExecutor" if two else "LocalExecutor"  # the one that SQLite allows
        return {
            "PYTHONPATH": str(self.loader),
            "GROUNDCREW_BUILD": pin,
            "GROUNDCREW_PROOF": "off",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'scratch.db'}",
            "AIRFLOW__CORE__EXECUTOR": executor,
            "GROUNDCREW_LOCAL": _local_folders(home) if self.packed else "off",
            "GROUNDCREW_LOCAL_LIMIT": str(1 << 40),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        }


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Candidate to be verified by a recipe's checks, for an instance and its runtime."""

    job: BuildJob
    recipe: Recipe
    runtime: Runtime
    instance: Instance
    candidate: Candidate


def _local_folders(home: Path) -> str:
    """Return the folders for whole packs: beside the command's home, or in a pod's own /tmp.

    The loader uses the first that is writable and not on the share, where a Job's home is.
    """
    return f"{home.parent / LOCAL}{os.pathsep}{home / LOCAL}{os.pathsep}/tmp/groundcrew"  # noqa: S108


def put_worker(home: Path) -> Path:
    """Write the worker that checks imports into a command's folder."""
    worker = home / "verify_worker.py"
    worker.write_bytes((resources.files("reconciler.builder.verify") / "worker.py").read_bytes())
    return worker


def did_not_end(ended: Ended, what: str) -> GroundcrewError:
    """Return the error for a command that did not finish properly, with its last lines."""
    if ran_out_of_disk(ended):
        return disk_full()
    tail = "\n".join(ended.output.strip().splitlines()[-8:])
    return Stalled(Reason.VERIFICATION_FAILED, f"{what} {ended.manner}: {tail}")
