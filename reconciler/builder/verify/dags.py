"""Import errors of DAGs as listed by Airflow itself, with a build and on the base alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from reconciler.builder.executor.protocol import Executor, read_result
from reconciler.builder.local_disk import disk_full, tells_of_full_disk
from reconciler.builder.verify.candidate import (
    LOCAL,
    NO_BUILD,
    REPORT_LIMIT,
    Hot,
    VerifyRequest,
    did_not_end,
    put_worker,
)
from reconciler.builder.verify.readers import read_dag_errors, read_document
from reconciler.builder.verify.report import Opened
from reconciler.core.definitions import Instance, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed
from reconciler.local_processes import setting_of

Clean = Callable[[], AbstractContextManager[Path]]  # creates a folder for harmless commands
DAGBAG_SETTING = "dagbag_import_timeout"
DAGBAG_TIMEOUT = 30.0  # seconds, if an instance sets nothing: Airflow's own default
LIVE = "live"  # in the folder that is parsed: a link to the instance's own DAG folder
LIST_ERRORS = ("dags", "list-import-errors", "-o", "json")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Import errors by file, and the build's files that parsing opened, as its code reports them.

    A file is `live/<its path in the instance's DAG folder>`, or the `declared_name` of a check.
    """

    errors: dict[str, str]
    hot: Hot


class DagParser:
    """Parser of DAGs; `cache` keeps a migrated database and the failures on the base alone."""

    def __init__(self, executor: Executor, timeout: float, cache: Path) -> None:
        self._executor = executor
        self._timeout = timeout
        self._cache = cache

    def prepare(self, request: VerifyRequest, clean: Clean) -> Path:
        """Return an empty, migrated metadata database for Airflow's CLI, made once per runtime."""
        runtime, candidate = request.runtime, request.candidate
        kept = self._cache / "scratch" / f"{runtime.key}.db"
        if kept.is_file():
            return kept
        with clean() as home:
            ended = self._executor.run(
                request.job,
                [runtime.python, "-m", "airflow", "db", "migrate"],
                work=home,
                timeout=self._timeout,
                readable=[candidate.share],
                environment=candidate.environment(runtime, home, NO_BUILD),
                harmless=True,
                quiet=True,
                results=[home / "scratch.db"],
            )
            made = home / "scratch.db"
            if ended.code != 0 or not made.is_file():
                raise did_not_end(ended, "airflow db migrate, on the base alone,")
            kept.parent.mkdir(parents=True, exist_ok=True)
            temp = kept.with_name(f".tmp-{os.urandom(6).hex()}")
            shutil.copyfile(made, temp)
            temp.rename(kept)
        return kept

    def parse(self, request: VerifyRequest, work: Path, scratch: Path) -> Parsed:
        """Parse the instance's DAGs and the declared ones with a candidate.

        Raises Stalled: VerificationFailed if Airflow does not finish, NotAllowed if builds may not
        read the instance's folders.
        """
        home = _home(request.instance, request.recipe, work, scratch)
        errors, opened = self._list_errors(request, home)
        return Parsed(errors, opened)

    def baseline(self, request: VerifyRequest, clean: Clean) -> set[str]:
        """Return the instance's DAG files that fail on the base alone (see `Parsed`), cached."""
        folder = dags_folder(request.instance)
        inputs = ("paths", request.runtime.key, folder_mark(folder))
        mark = hashlib.sha256("\0".join(inputs).encode())
        kept = self._cache / "baselines" / f"{mark.hexdigest()}.json"
        if kept.is_file():
            return set(json.loads(kept.read_text()))
        scratch = self.prepare(request, clean)
        with clean() as home:
            (home / "dags").mkdir(parents=True)
            if folder.is_dir():
                (home / "dags" / LIVE).symlink_to(folder)
            shutil.copyfile(scratch, home / "scratch.db")
            errors, _ = self._list_errors(request, home, alone=True)
        names = sorted(errors)
        kept.parent.mkdir(parents=True, exist_ok=True)
        temp = kept.with_name(f".tmp-{os.urandom(6).hex()}")
        temp.write_text(json.dumps(names))
        temp.rename(kept)
        return set(names)

    def _list_errors(
        self, request: VerifyRequest, home: Path, *, alone: bool = False
    ) -> tuple[dict[str, str], Hot]:
        """Return import errors by file, and the opened files; `alone` uses the base alone.

        Raises Retryable("DiskFull"): what fails for lack of space is no DAG's fault.
        """
        job, runtime, candidate = request.job, request.runtime, request.candidate
        instance = request.instance
        worker, opened, listed = put_worker(home), home / "opened.json", home / "errors.json"
        command = [runtime.python, str(worker), "airflow", str(opened), str(listed), *LIST_ERRORS]
        if not runtime.airflow_version.startswith("2."):
            command.append("--local")
        pin = NO_BUILD if alone else candidate.build_id
        shown = _live(instance)
        self.refuse_hidden(instance)
        ended = self._executor.run(
            job,
            command,
            work=home,
            timeout=self._timeout,
            readable=[candidate.share, *shown],
            environment={
                **candidate.environment(runtime, home, pin),
                f"AIRFLOW__CORE__{DAGBAG_SETTING.upper()}": _timeout_value(instance),
            },
            writable=[] if alone else [home.parent / LOCAL],
            harmless=alone,
            quiet=True,
            results=[opened, listed],
        )
        printed = read_dag_errors(job.team, read_result(listed, REPORT_LIMIT) or b"")
        if printed is None:
            raise did_not_end(ended, "airflow dags list-import-errors")
        if any(map(tells_of_full_disk, printed.values())):
            raise disk_full()
        live = dags_folder(instance)
        errors = {_where(file, home / "dags", live): error for file, error in printed.items()}
        return errors, _opened(job.team, opened)

    def refuse_hidden(self, instance: Instance) -> None:
        """Refuse folders of a local instance that no build may read.

        The author of an airflow.cfg must not choose what builds read, or what the daemon walks
        through. Raises Stalled("NotAllowed").
        """
        for folder in _live(instance):
            if not self._executor.may_show(folder):
                raise Stalled(
                    Reason.NOT_ALLOWED,
                    f"{folder}, of instance {instance.name}, has something in it or around it that "
                    f"no build may read (secrets, the daemon's state, homes); keep its DAGs and "
                    f"its AIRFLOW_HOME in folders of their own, and say so in dags_folder in its "
                    f"airflow.cfg",
                    instance.place,
                )


def _opened(team: str, answer: Path) -> Hot:
    """Return what a process opened, or nothing if its report is invalid, as it is only a hint."""
    try:
        data = read_result(answer, REPORT_LIMIT) or b"{}"
        return read_document(team, Opened, data, "report").paths()
    except Malformed:
        return {}


def _home(instance: Instance, recipe: Recipe, work: Path, scratch: Path) -> Path:
    """Return a scratch AIRFLOW_HOME: the instance's configuration and DAGs, an empty database."""
    home = work / "home"
    dags = home / "dags"
    dags.mkdir(parents=True)
    if instance.local is not None:
        config = Path(instance.local.airflow_home) / "airflow.cfg"
        if config.is_file() and config.stat().st_size < REPORT_LIMIT:
            shutil.copyfile(config, home / "airflow.cfg")
        live = dags_folder(instance)
        if live.is_dir():
            (dags / LIVE).symlink_to(live)
    shutil.copyfile(scratch, home / "scratch.db")
    for number, (path, text) in enumerate(recipe.checks.dags):
        (dags / declared_name(number, path)).write_text(text)
    return home


def _where(file: str, dags: Path, live: Path) -> str:
    """Return a file's path below the folder that was parsed, in whatever form Airflow gives it.

    That depends on its version: absolute, relative, or with the link to `live` followed.
    """
    for top, prefix in ((dags, Path()), (live, Path(LIVE))):
        for known in (top, top.resolve()):
            if Path(file).is_relative_to(known):
                return (prefix / Path(file).relative_to(known)).as_posix()
    return file


def declared_name(number: int, path: str) -> str:
    """Return the name of a declared DAG in the folder where it is parsed."""
    return f"check{number}_{Path(path).name}"


def _live(instance: Instance) -> list[Path]:
    """Return the folders of a local instance's DAGs and plugins: it loads them all."""
    if instance.local is None:
        return []
    return [Path(instance.local.airflow_home), dags_folder(instance)]


def dags_folder(instance: Instance) -> Path:
    """Return the folder of a local instance's DAGs."""
    if instance.local is None:
        return Path("/nowhere")
    named = setting_of(instance.local, "dags_folder")
    return Path(named) if named else Path(instance.local.airflow_home) / "dags"


def dagbag_timeout(instance: Instance) -> float:
    """Return the seconds in which a DAG file must import, as an instance's Airflow is set up."""
    named = setting_of(instance.local, DAGBAG_SETTING) if instance.local is not None else ""
    try:
        seconds = float(named)
    except ValueError:
        return DAGBAG_TIMEOUT
    return seconds if seconds > 0 else math.inf  # in Airflow, 0 means no limit


def _timeout_value(instance: Instance) -> str:
    """Return the time limit of a DAG file as Airflow reads it."""
    seconds = dagbag_timeout(instance)
    return str(seconds if math.isfinite(seconds) else 0)


def folder_mark(folder: Path) -> str:
    """Return a fingerprint that changes with any file of a DAG folder."""
    lines = []
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            try:
                info = (Path(here) / name).stat()
            except OSError:  # removed meanwhile, or a link to nothing
                lines.append(f"{here}/{name}")
                continue
            lines.append(f"{here}/{name} {info.st_size} {info.st_mtime_ns}")
    return "\n".join(sorted(lines))
