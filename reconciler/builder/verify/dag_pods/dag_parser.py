"""Program of a pod in a release's namespace: parses the release's DAGs and logs a report.

dag_parser.py settings <airflow.cfg> <settings.json>   in an init container
dag_parser.py check                                    with its request in GROUNDCREW_DAGS
dag_parser.py parse <request.json> <result.json>       started by `check`, once for each build

`settings` copies the few options that parsing needs, so that the container that runs the DAGs never
sees the configuration itself. `parse` imports Airflow once and forks for each file, so that a file
that hangs, kills its process or leaves others behind can be named. The report is a JSON document in
the log: compressed, in short lines with a prefix, and a digest at the end, because the share is
read-only here. Standard library and the image's Airflow only, Python 3.9 and newer.
"""

import base64
import configparser
import contextlib
import gzip
import hashlib
import importlib
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PREFIX = "groundcrew-dags"
LINE_LENGTH = 2000
REPORT_LIMIT = 600_000  # characters of the packed report: at most 1 MiB of a log is read
ERROR_LIMIT = 3000  # characters of one error
ROWS_LIMIT = 200
NAMES_LIMIT = 1000
LANES = 2
POLL_INTERVAL = 0.02
GRACE = 30.0  # seconds in which a process for one build writes its result after its time limit
DEFAULT_TIMEOUT = 30.0  # of Airflow, for the import of one file
UNLIMITED = 300.0  # seconds for one file if the release sets no limit

OPTIONS = {
    "dags_folder": ("core", "dags_folder"),
    "plugins_folder": ("core", "plugins_folder"),
    "dagbag_import_timeout": ("core", "dagbag_import_timeout"),
    "dag_discovery_safe_mode": ("core", "dag_discovery_safe_mode"),
    "dag_ignore_file_syntax": ("core", "dag_ignore_file_syntax"),
    "default_timezone": ("core", "default_timezone"),
    "dag_bundle_config_list": ("dag_processor", "dag_bundle_config_list"),
}
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


# ------------------------------------------------------------------------------------ settings


def read_settings(path: str) -> Any:
    """Return the options that parsing needs from an airflow.cfg; {} if it cannot be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeError, configparser.Error):
        return {}
    return {
        name: parser.get(section, option)
        for name, (section, option) in OPTIONS.items()
        if parser.has_option(section, option)
    }


def variable_of(name: str) -> str:
    """Return the environment variable that sets an option."""
    section, option = OPTIONS[name]
    return f"AIRFLOW__{section.upper()}__{option.upper()}"


def _option(name: str, settings: Any, default: str = "") -> str:
    return os.environ.get(variable_of(name)) or settings.get(name) or default


def folders_of(request: Any, settings: Any) -> Any:
    """Return ([(name, folder)] of the DAGs, [reasons why some are not seen])."""
    home = request["home"]
    usual = request["folder"] or _option("dags_folder", settings, os.path.join(home, "dags"))
    usual = os.path.expanduser(os.path.expandvars(usual.replace("{AIRFLOW_HOME}", home)))
    if request["folder"] or request["airflow"].startswith("2."):
        return [("", usual)], []
    try:
        bundles = json.loads(_option("dag_bundle_config_list", settings, "[]"))
        folders, unseen = [], []
        for bundle in bundles:
            if bundle["classpath"] == LOCAL_BUNDLE:
                path = (bundle.get("kwargs") or {}).get("path") or usual
                folders.append((str(bundle["name"]), str(path)))
            else:
                unseen.append(
                    f"the DAG bundle {bundle['name']} ({bundle['classpath'].rpartition('.')[2]}) "
                    f"is fetched by Airflow with a connection, which is not given to verification"
                )
    except (ValueError, TypeError, KeyError, AttributeError):
        return [("", usual)], ["dag_bundle_config_list is not a list of bundles"]
    return (folders, unseen) if bundles else ([("", usual)], [])


# --------------------------------------------------------------------------------------- check


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _environment(request: Any, settings: Any, build: str, home: str, folder: str) -> Any:
    """Return the variables of the process that parses with one build."""
    environment = dict(os.environ)
    environment.pop("GROUNDCREW_DAGS", None)
    environment.setdefault("PYTHONUSERBASE", site.getuserbase())
    for name in settings:
        if settings[name]:
            environment.setdefault(variable_of(name), settings[name])
    paths = [request["loader"], *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment.update(
        {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(p for p in paths if p)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GROUNDCREW_BUILD": build,
            "GROUNDCREW_LOCAL": os.path.join(tempfile.gettempdir(), "groundcrew"),
            "HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": os.path.join(home, "logs"),
        }
    )
    if not request["as_release"]:
        plugins = os.path.join(request["home"], "plugins")
        executor = "SequentialExecutor" if request["airflow"].startswith("2.") else "LocalExecutor"
        environment.setdefault(variable_of("plugins_folder"), plugins)
        environment.update(
            {
                "AIRFLOW_HOME": home,
                "AIRFLOW__CORE__DAGS_FOLDER": folder,
                "AIRFLOW__CORE__EXECUTOR": executor,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/none.db",
            }
        )
    return environment


class Check:
    """Parsing of all DAGs, with the candidate and with the build that it is compared to."""

    def __init__(self, request: Any, settings: Any) -> None:
        self.request, self.settings = request, settings
        self.folders, self.unseen = folders_of(request, settings)
        missing = [folder for _, folder in self.folders if not os.path.isdir(folder)]
        self.unseen += [f"there is no folder {folder} in the pod" for folder in missing]
        self.folders = [pair for pair in self.folders if pair[1] not in missing]
        self._until = time.monotonic() + request["timeout"]
        self._passes = 0

    def run(self) -> Any:
        """Return the report."""
        report: Any = {
            "folders": [folder for _, folder in self.folders],
            "unseen": self.unseen,
            "files": [],
            "late": 0,
            "mark": "",
            "commit": _commit(self.folders),
            "rows": [],
            "failed": "",
            "reference_failed": "",
        }
        if not self.folders:
            return report
        parsed = self._parse(self.request["candidate"], None)
        report["failed"] = parsed["failed"]
        files = parsed["files"]
        wrong = [name for name, row in parsed["rows"].items() if row["kind"] != "ok"]
        compared: Any = {"rows": {}, "failed": ""}
        unlike = [name for name in wrong if parsed["rows"][name]["kind"] != "forks"]
        if unlike or parsed["failed"]:
            compared = self._parse(self.request["reference"], unlike or None)
            files = files or compared["files"]
            report["reference_failed"] = compared["failed"]
        again = [
            n
            for n in unlike
            if parsed["rows"][n]["kind"] in ("hung", "died")
            and compared["rows"].get(n, {}).get("kind") == "ok"
        ]
        if again:  # a busy node is no reason to refuse a build
            parsed["rows"].update(self._parse(self.request["candidate"], again)["rows"])
        rows = [
            {
                "file": name,
                "candidate": parsed["rows"][name],
                "reference": compared["rows"].get(name),
            }
            for name in wrong
        ]
        return {
            **report,
            "files": files,
            "late": parsed["late"],
            "mark": parsed["mark"],
            "rows": rows,
        }

    def _parse(self, build: str, only: Any) -> Any:
        """Return the result of each file with a build, in a process that loads it."""
        self._passes += 1
        home = os.path.join(tempfile.gettempdir(), f"home-{self._passes}")
        os.makedirs(home)
        limit = max(1.0, self._until - time.monotonic())
        asked = {"folders": self.folders, "only": only, "seconds": limit}
        request, result = os.path.join(home, "request.json"), os.path.join(home, "result.json")
        Path(request).write_text(json.dumps(asked))
        folder = self.folders[0][1]
        _say(f"parsing with {build}")
        with open(os.path.join(home, "said"), "w+b") as said:
            process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "parse", request, result],
                env=_environment(self.request, self.settings, build, home, folder),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limit + GRACE)
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            said.seek(max(0, said.seek(0, os.SEEK_END) - ERROR_LIMIT))
            tail = said.read().decode(errors="replace")
        for line in tail.splitlines():
            if line.startswith("groundcrew: "):  # a line of the loader
                _say(line)
        try:
            parsed = json.loads(Path(result).read_text())
        except (OSError, ValueError):
            message = f"exit code {code}: {tail}"
            return {"failed": message, "files": [], "rows": {}, "late": 0, "mark": ""}
        _say(f"parsed {len(parsed['rows'])} files with {build}")
        return {"failed": "", **parsed}


def _commit(folders: Any) -> str:
    """Return the commit that git-sync checked out, from the folder's name; "" if there is none."""
    for _, folder in folders:
        for name in reversed(Path(folder).resolve().parts):
            part = name.removeprefix("rev-")  # version 3 of git-sync
            if len(part) == 40 and all(c in "0123456789abcdef" for c in part):
                return part
    return ""


def packed(report: Any) -> Any:
    """Return the lines of a report; parts that are too long for a log are cut."""
    for rows, size in ((ROWS_LIMIT, ERROR_LIMIT), (ROWS_LIMIT, 500), (20, 500)):
        text = json.dumps(
            {
                **report,
                "files": report["files"][:NAMES_LIMIT],
                "count": len(report["files"]),
                "rows": [_cut(row, size) for row in report["rows"][:rows]],
                "more": max(0, len(report["rows"]) - rows),
            }
        )
        data = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
        if len(data) < REPORT_LIMIT:
            break
    digest = hashlib.sha256(data.encode()).hexdigest()
    pieces = [data[n : n + LINE_LENGTH] for n in range(0, len(data), LINE_LENGTH)]
    lines = [f"{PREFIX} {number} {piece}" for number, piece in enumerate(pieces)]
    return [*lines, f"{PREFIX} end {digest}"]


def _cut(row: Any, size: int) -> Any:
    def cut(side: Any) -> Any:
        return side and {**side, "error": side["error"][-size:]}

    return {**row, "candidate": cut(row["candidate"]), "reference": cut(row["reference"])}


# --------------------------------------------------------------------------------------- parse


def _dag_bag() -> Any:
    """Return Airflow's DagBag, wherever this version has it."""
    for name in ("airflow.dag_processing.dagbag", "airflow.models.dagbag"):
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(name)
            if hasattr(module, "DagBag"):
                return module.DagBag
    raise ImportError("this Airflow has no DagBag")


def _list_files(folders: Any, *, safe_mode: bool) -> Any:
    """Return {name: path} of the files that Airflow would parse."""
    from airflow.utils.file import list_py_file_paths  # type: ignore[import-not-found]

    paths = {}
    for bundle, folder in folders:
        before = f"{bundle}/" if len(folders) > 1 else ""
        for path in list_py_file_paths(folder, safe_mode=safe_mode):
            paths[before + os.path.relpath(path, folder)] = str(path)
    return paths


def _look(bag_class: Any, path: str, *, safe_mode: bool) -> str:
    """Parse one file; return Airflow's error, or "" if it has none."""
    bag = bag_class(dag_folder=path, collect_dags=False)
    bag.process_file(path, only_if_updated=False, safe_mode=safe_mode)
    return "\n".join(str(error) for error in bag.import_errors.values())


class Parser:
    """Parser that forks for each file, a few at a time."""

    def __init__(self, look: Any, folder: str, limit: float, until: float) -> None:
        self._look, self._folder, self._limit, self._until = look, folder, limit, until
        self._running: Any = {}
        self._started = 0
        self.rows: Any = {}
        self.late = 0

    def run(self, files: Any) -> None:
        """Parse all files, as far as the time allows."""
        left = list(files.items())
        while left or self._running:
            if time.monotonic() > self._until:
                self.late += len(left)
                left = []
            while left and len(self._running) < LANES:
                self._start(*left.pop(0))
            for pid in list(self._running):
                self._watch(pid)
            time.sleep(POLL_INTERVAL)

    def _start(self, name: str, path: str) -> None:
        self._started += 1
        answer = os.path.join(self._folder, f"answer-{self._started}")
        pid = os.fork()
        if pid == 0:
            os.setsid()
            mine = os.getpid()
            try:
                error = self._look(path)
            except BaseException as raised:
                error = f"{type(raised).__name__}: {raised}"
            if os.getpid() == mine:  # the file may have forked, and its copy also arrives here
                with open(answer + ".new", "w", errors="replace") as file:
                    file.write(error[-ERROR_LIMIT:])
                os.rename(answer + ".new", answer)
            os._exit(0)
        self._running[pid] = (name, answer, time.monotonic())

    def _watch(self, pid: int) -> None:
        """Record the result of a file's process if it has ended, or end it."""
        name, answer, begun = self._running[pid]
        ended, status = os.waitpid(pid, os.WNOHANG)
        late = time.monotonic() - begun > self._limit
        if not ended and not late:
            return
        left_some = _kill_group(pid)
        if not ended:
            _, status = os.waitpid(pid, 0)
        del self._running[pid]
        self.rows[name] = _row(answer, status, late=not ended, left_some=bool(ended) and left_some)


def _kill_group(group: int) -> bool:
    """End all processes of a group; return True if there were any."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return False
    return True


def _row(answer: str, status: int, *, late: bool, left_some: bool) -> Any:
    if late:
        return {"kind": "hung", "error": "it did not finish in time"}
    try:
        error = Path(answer).read_text(errors="replace")
    except OSError:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an exit"
        return {"kind": "died", "error": f"its process was ended by {how}"}
    if not error:
        return {"kind": "forks" if left_some else "ok", "error": ""}
    timeouts = ("DagBag import timeout", "AirflowTaskTimeout", "AirflowDagBagTimeout")
    hung = any(word in error for word in timeouts)
    return {"kind": "hung" if hung else "error", "error": error}


def _mark(files: Any) -> str:
    """Return a digest of the DAG files' names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode(errors="replace") + b"\0")
        with contextlib.suppress(OSError), open(files[name], "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    return digest.hexdigest()


def _parse_all(request_path: str, result_path: str) -> None:
    request = json.loads(Path(request_path).read_text())
    for _, folder in request["folders"]:
        if folder not in sys.path:
            sys.path.append(folder)
    bag_class = _dag_bag()
    from airflow.configuration import conf  # type: ignore[import-not-found]

    safe_mode = conf.getboolean("core", "dag_discovery_safe_mode")
    one = conf.getfloat("core", "dagbag_import_timeout")
    limit = 2 * one + 10 if one > 0 else UNLIMITED
    _look(bag_class, os.devnull, safe_mode=safe_mode)  # an error here is no file's fault
    files = _list_files(request["folders"], safe_mode=safe_mode)
    wanted = (
        files
        if request["only"] is None
        else {name: files[name] for name in request["only"] if name in files}
    )
    until = time.monotonic() + request["seconds"]
    parser = Parser(
        lambda path: _look(bag_class, path, safe_mode=safe_mode),
        os.path.dirname(result_path),
        limit,
        until,
    )
    parser.run(wanted)
    parsed = {
        "files": sorted(files),
        "rows": parser.rows,
        "late": parser.late,
        "mark": _mark(files),
    }
    Path(result_path + ".new").write_text(json.dumps(parsed))
    os.rename(result_path + ".new", result_path)


def _check_all() -> None:
    request = json.loads(os.environ["GROUNDCREW_DAGS"])
    settings = {}
    with contextlib.suppress(OSError, ValueError):
        settings = json.loads(Path(request["settings"]).read_text())
    for line in packed(Check(request, settings).run()):
        _say(line)


def _main() -> None:
    mode, *arguments = sys.argv[1:]
    if mode == "settings":
        Path(arguments[1]).write_text(json.dumps(read_settings(arguments[0])))
    elif mode == "check":
        _check_all()
    else:
        _parse_all(*arguments)


if __name__ == "__main__":
    _main()
