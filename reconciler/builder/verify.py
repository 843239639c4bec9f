"""Verifying a build before anything live is touched (DESIGN §6).

In processes of the instance's own interpreter, with the candidate pinned: modules and entry points
import, declared DAGs parse, and Airflow lists no import error that the base alone does not have.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from reconciler.builder.explain import place_of
from reconciler.builder.inrepo import InRepo
from reconciler.builder.job import Job
from reconciler.builder.sandbox import Ended, Sandbox, read_result
from reconciler.core.definitions import Instance, Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.model import Runtime

REPORT_LIMIT = 16 << 20  # bytes
REPORT_KEYS = {"fatal", "warnings", "modules", "seconds", "opens", "files"}


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen: modules, files and opens counted, seconds of the imports."""

    report: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A build to be verified, as its instance would load it."""

    build_id: str
    share: Path
    loader: Path
    distributions: tuple[str, ...]


class Verifier:
    """Verifies candidates; `cache` keeps what the base alone fails at."""

    def __init__(self, sandbox: Sandbox, in_repo: InRepo, timeout: float, cache: Path) -> None:
        self._sandbox = sandbox
        self._in_repo = in_repo
        self._timeout = timeout
        self._cache = cache

    def verify(
        self,
        job: Job,
        recipe: Recipe,
        runtime: Runtime,
        instance: Instance,
        candidate: Candidate,
        work: Path,
    ) -> Verified:
        """Prove a candidate; raises Stalled("VerificationFailed") with the place and the reason."""
        scratch = self._scratch(job, runtime, candidate, work)
        home = self._home(instance, recipe, work, scratch)
        with ThreadPoolExecutor(2) as pool:
            imports = pool.submit(self._imports, job, recipe, runtime, candidate, work)
            dags = pool.submit(self._list_errors, job, runtime, candidate, home, candidate.build_id)
            report, errors = imports.result(), dags.result()
        self._judge_imports(job, recipe, runtime, report)
        self._judge_dags(job, recipe, runtime, instance, candidate, work, errors)
        job.say(f"verified: {report['modules']} modules in {report['seconds']:.1f} s")
        keep = ("modules", "seconds", "opens", "files")
        warnings = [f"{w['what']}: {w['error']}" for w in report["warnings"]]
        return Verified({**{k: report[k] for k in keep}, "warnings": warnings[:100]})

    def _scratch(self, job: Job, runtime: Runtime, candidate: Candidate, work: Path) -> Path:
        """An empty, migrated metadata database, made once per runtime: Airflow's CLI wants one."""
        kept = self._cache / "scratch" / f"{runtime.key}.db"
        if kept.is_file():
            return kept
        home = work / "scratch-home"
        home.mkdir()
        ended = self._sandbox.run(
            job,
            [runtime.python, "-m", "airflow", "db", "migrate"],
            work=home,
            timeout=self._timeout,
            readable=[candidate.share],
            environment=self._environment(candidate, runtime, home, "none"),
            quiet=True,
        )
        made = home / "scratch.db"
        if ended.code != 0 or not made.is_file():
            raise _did_not_end(ended, "airflow db migrate, on the base alone,")
        kept.parent.mkdir(parents=True, exist_ok=True)
        temp = kept.with_name(f".tmp-{os.urandom(6).hex()}")
        shutil.copyfile(made, temp)
        temp.rename(kept)
        return kept

    def _home(self, instance: Instance, recipe: Recipe, work: Path, scratch: Path) -> Path:
        """A scratch AIRFLOW_HOME: the instance's configuration and DAGs, an empty database."""
        home = work / "home"
        dags = home / "dags"
        dags.mkdir(parents=True)
        if instance.local is not None:
            config = Path(instance.local.airflow_home) / "airflow.cfg"
            if config.is_file() and config.stat().st_size < REPORT_LIMIT:
                shutil.copyfile(config, home / "airflow.cfg")
            live = dags_folder(instance)
            if live.is_dir():
                (dags / "live").symlink_to(live)
        shutil.copyfile(scratch, home / "scratch.db")
        for number, (path, text) in enumerate(recipe.checks.dags):
            (dags / f"check{number}_{Path(path).name}").write_text(text)
        return home

    def _environment(
        self, candidate: Candidate, runtime: Runtime, home: Path, pin: str
    ) -> dict[str, str]:
        two = runtime.airflow_version.startswith("2.")
        executor = "SequentialExecutor" if two else "LocalExecutor"  # what SQLite allows
        return {
            "PYTHONPATH": str(candidate.loader),
            "GROUNDCREW_BUILD": pin,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'scratch.db'}",
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        }

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
        worker = home / "verify_worker.py"
        source = resources.files("reconciler.builder") / "verify_worker.py"
        worker.write_bytes(source.read_bytes())
        answer = home / "report.json"
        ended = self._sandbox.run(
            job,
            [runtime.python, str(worker), str(request), str(answer)],
            work=home,
            timeout=min(self._timeout, recipe.checks.timeout),
            readable=[candidate.share],
            environment=self._environment(candidate, runtime, home, candidate.build_id),
            quiet=True,
        )
        try:
            found = json.loads(read_result(answer, REPORT_LIMIT) or b"")
        except ValueError:
            found = None
        if not isinstance(found, dict) or not found.keys() >= REPORT_KEYS:
            raise _did_not_end(ended, "importing the build's modules")
        return found

    def _list_errors(
        self, job: Job, runtime: Runtime, candidate: Candidate, home: Path, pin: str
    ) -> dict[str, str]:
        """Import errors by file, as Airflow itself lists them."""
        command = [
            runtime.python, "-m", "airflow", "dags", "list-import-errors", "-o", "json",
        ]  # fmt: skip
        if not runtime.airflow_version.startswith("2."):
            command.append("--local")
        ended = self._sandbox.run(
            job,
            command,
            work=home,
            timeout=self._timeout,
            readable=[candidate.share],
            environment=self._environment(candidate, runtime, home, pin),
            quiet=True,
        )
        for line in reversed(ended.output.splitlines()):
            if line.startswith("["):
                try:
                    rows = json.loads(line)
                except ValueError:
                    continue
                if isinstance(rows, list):
                    return {str(r.get("filepath", "")): str(r.get("error", "")) for r in rows}
        if "No data found" in ended.output:
            return {}
        raise _did_not_end(ended, "airflow dags list-import-errors")

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
                place = self._in_repo.repo_place(team, package, runtime, below, problem["line"])
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
        work: Path,
        errors: dict[str, str],
    ) -> None:
        if not errors:
            return
        for number, (path, _) in enumerate(recipe.checks.dags):
            name = f"check{number}_{Path(path).name}"
            for file, error in errors.items():
                if Path(file).name == name:
                    job.say(error)
                    raise Stalled(
                        "VerificationFailed",
                        f"the declared DAG does not parse: {last_line(error)}",
                        Place(path, line_in(error, name)),
                    )
        known = self._baseline(job, runtime, instance, candidate, work)
        for file, error in errors.items():
            if Path(file).name not in known:
                job.say(error)
                raise Stalled(
                    "VerificationFailed",
                    f"the instance's DAG {Path(file).name} parses on the base alone, but not with "
                    f"this build: {last_line(error)}",
                    recipe.requirements[0].place if recipe.requirements else None,
                )

    def _baseline(
        self, job: Job, runtime: Runtime, instance: Instance, candidate: Candidate, work: Path
    ) -> set[str]:
        """Names of the instance's DAG files that fail on the base alone, kept by their content."""
        mark = hashlib.sha256(f"{runtime.key}\0{_folder_mark(dags_folder(instance))}".encode())
        kept = self._cache / "baselines" / f"{mark.hexdigest()}.json"
        if kept.is_file():
            return set(json.loads(kept.read_text()))
        home = work / "base-home"
        (home / "dags").mkdir(parents=True)
        if dags_folder(instance).is_dir():
            (home / "dags" / "live").symlink_to(dags_folder(instance))
        shutil.copyfile(self._scratch(job, runtime, candidate, work), home / "scratch.db")
        errors = self._list_errors(job, runtime, candidate, home, "none")
        names = sorted(Path(file).name for file in errors)
        kept.parent.mkdir(parents=True, exist_ok=True)
        temp = kept.with_name(f".tmp-{os.urandom(6).hex()}")
        temp.write_text(json.dumps(names))
        temp.rename(kept)
        return set(names)


def dags_folder(instance: Instance) -> Path:
    """Where a local instance's DAGs are."""
    home = Path(instance.local.airflow_home) if instance.local is not None else Path("/nowhere")
    config = home / "airflow.cfg"
    if config.is_file():
        for line in config.read_text(errors="replace")[:REPORT_LIMIT].splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip() == "dags_folder" and value.strip():
                return Path(value.strip())
    return home / "dags"


def _folder_mark(folder: Path) -> str:
    """Changes with any file of a DAG folder."""
    lines = []
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            info = (Path(here) / name).stat()
            lines.append(f"{here}/{name} {info.st_size} {info.st_mtime_ns}")
    return "\n".join(sorted(lines))


def last_line(error: str) -> str:
    """The line of a stack trace that says what is wrong."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"


def line_in(error: str, name: str) -> int:
    """The innermost line of a file that a stack trace names; 0 when it names none."""
    found = re.findall(rf'File "[^"]*{re.escape(name)}", line (\d+)', error)
    return int(found[-1]) if found else 0


def _did_not_end(ended: Ended, what: str) -> Stalled:
    tail = "\n".join(ended.output.strip().splitlines()[-8:])
    how = "took too long" if ended.timed_out else f"ended with code {ended.code}"
    return Stalled("VerificationFailed", f"{what} {how}: {tail}")
