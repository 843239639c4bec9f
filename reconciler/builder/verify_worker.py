"""Runs in the instance's interpreter with a candidate pinned, and sees which files are opened.

`imports <report> <request>` imports what the build brought, as the request says; it must not fail
by itself: what fails is the report. `airflow <report> <output> <word>…` is Airflow's command line,
which prints to the file <output>. Request and report are JSON files. Standard library only, Python
3.9+.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import re
import runpy
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

IN_ENTRY = re.compile(r"/([0-9a-f]{64})(?:-[0-9a-f]{16})?[^/]*/((?:lib|bin|data)/.+)$")
NOT_CODE = ("docs", "examples", "test", "tests")  # folders that some wheels bring along
AIRFLOW_GROUPS = ("airflow.plugins", "apache_airflow_provider")


class Budget:
    """What the imports cost: files opened, and which of the build's store entries."""

    def __init__(self) -> None:
        self.opens = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def hot(self) -> dict[str, list[str]]:
        """Paths in store entries that imports need, by the entries' digests; folders end with /."""
        paths = {path for path in self.files if not path.endswith("/RECORD")}
        paths |= {source for path in paths if (source := _source(path))} | self.folders
        for module in list(sys.modules.values()):
            paths.add(str(getattr(module, "__file__", None) or ""))
        with contextlib.suppress(OSError), Path("/proc/self/maps").open() as maps:
            paths |= {line.split(None, 5)[-1].rstrip() for line in maps}  # shared objects
        found: dict[str, list[str]] = {}
        for path in sorted(paths):
            match = IN_ENTRY.search(path)
            if match is not None:
                found.setdefault(match[1], []).append(match[2])
        return found

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Count an audit event if it opens a file; note it if it lists a folder."""
        if event == "open" and args and isinstance(args[0], str):
            self.opens += 1
            self.files.add(args[0])
        elif event in ("os.listdir", "os.scandir") and args and isinstance(args[0], str):
            self.folders.add(args[0].rstrip("/") + "/")


def _source(path: str) -> str:
    """The source of a module's bytecode: Python looks at it first, also if the import fails."""
    folder, _, name = path.rpartition("/__pycache__/")
    return f"{folder}/{name.split('.')[0]}.py" if folder and name.endswith(".pyc") else ""


def _modules(dist: importlib.metadata.Distribution, everything: bool) -> list[str]:
    """Importable modules of a distribution; only its outermost ones unless `everything`.

    Those of a namespace package are its own outermost packages: google.cloud.storage.
    """
    found: dict[tuple[str, ...], bool] = {}  # is it a package
    for file in dist.files or ():
        parts = file.parts
        if not str(file).endswith(".py") or ".." in parts or parts[0].endswith(".dist-info"):
            continue
        names = list(parts[:-1])
        stem = parts[-1][:-3]
        if stem == "__main__" or (not names and stem.startswith("setup")):
            continue
        if stem != "__init__":
            names.append(stem)
        if names and all(re.match(r"^[A-Za-z_]\w*$", n) for n in names):
            found[tuple(names)] = stem == "__init__"
    wanted = found if everything else filter(partial(_is_outermost, found), found)
    return sorted(".".join(names) for names in wanted)


def _is_outermost(found: dict[tuple[str, ...], bool], names: tuple[str, ...]) -> bool:
    """Is it public, and either a module of no package or a package in namespaces only."""
    if any(name.startswith("_") for name in names) or (len(names) > 1 and names[0] in NOT_CODE):
        return False
    around = (names[:n] for n in range(1, len(names)))
    return len(names) == 1 or (found[names] and not any(found.get(one) for one in around))


def _where(error: BaseException, root: str) -> tuple[str, int]:
    """The innermost frame in a store entry or else below `root`: (path in it, line)."""
    best = ("", 0)
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno or 0)]
    else:
        frames = []
    summary = traceback.extract_tb(error.__traceback__)
    for name, line in [(f.filename, f.lineno or 0) for f in summary] + frames:
        match = IN_ENTRY.search(name)
        if match is not None:
            best = (f"/{match[1]}/{match[2]}", line)
        elif name.startswith(root):
            best = (name[len(root) :], line)
    return best


def _try(
    problems: list[dict[str, Any]], what: str, dist: str, action: Callable[[], object], root: str
) -> None:
    try:
        action()
    except BaseException as error:  # SystemExit at import is a failure too
        file, line = _where(error, root)
        problems.append(
            {
                "what": what,
                "distribution": dist,
                "error": f"{type(error).__name__}: {error}",
                "file": file,
                "line": line,
                "traceback": traceback.format_exc()[-6000:],
            }
        )


def _check(budget: Budget, request: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    fatal: list[dict[str, Any]] = []
    warnings: list[dict[str, Any]] = []
    modules = 0
    root = request["root"]
    for item in request["distributions"]:
        dist = importlib.metadata.distribution(item["name"])
        own = item["in_repo"]
        for name in _modules(dist, own):
            modules += 1
            kind = fatal if own or "." not in name else warnings
            _try(kind, name, item["name"], partial(importlib.import_module, name), root)
        for point in dist.entry_points:
            kind = fatal if own or point.group in AIRFLOW_GROUPS else warnings
            what = f"entry point {point.name} of {point.group}"
            _try(kind, what, item["name"], point.load, root)
    for name in request["imports"]:
        _try(fatal, name, "", partial(importlib.import_module, name), root)
    seconds = time.perf_counter() - begun
    hot = budget.hot()
    return {
        "fatal": fatal,
        "warnings": warnings,
        "modules": modules,
        "seconds": seconds,
        "opens": budget.opens,
        "files": sum(not path.endswith("/") for paths in hot.values() for path in paths),
        "hot": hot,
    }


def _print_to(path: str) -> None:
    """Send standard output to a file, also that of programs which are started from here."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.close(handle)


def _main() -> None:
    mode, answer, *words = sys.argv[1:]
    budget = Budget()
    sys.addaudithook(budget.hook)
    report: dict[str, Any] = {}
    try:
        if mode == "imports":
            with Path(words[0]).open() as file:
                request = json.load(file)
            report = _check(budget, request)
        else:
            _print_to(words[0])
            sys.argv[1:] = words[1:]
            runpy.run_module("airflow", run_name="__main__", alter_sys=True)
    finally:
        with Path(answer).open("w") as file:
            json.dump({"hot": budget.hot(), **report}, file)


_main()
