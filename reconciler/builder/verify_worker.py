"""Runs in the instance's interpreter with a candidate pinned: imports what the build brought.

Reads a request (JSON, path in argv[1]), writes a report (JSON, path in argv[2]). Standard library
only, Python 3.9+. It must not fail by itself: what fails is the report.
"""

import importlib
import importlib.metadata
import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

AIRFLOW_GROUPS = ("airflow.plugins", "apache_airflow_provider")


class Budget:
    """What the imports cost: files opened, and bytes of those that are on the share."""

    def __init__(self) -> None:
        self.opens = 0
        self.files: set[str] = set()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Count an audit event if it opens a file."""
        if event == "open" and args and isinstance(args[0], str):
            self.opens += 1
            self.files.add(args[0])


def _modules(dist: importlib.metadata.Distribution, everything: bool) -> list[str]:
    """Importable modules of a distribution; only its top level unless `everything`."""
    found = []
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
        if not names or not all(re.match(r"^[A-Za-z_]\w*$", n) for n in names):
            continue
        if everything or (len(names) == 1 and not names[0].startswith("_")):
            found.append(".".join(names))
    return sorted(set(found))


def _where(error: BaseException, root: str) -> tuple[str, int]:
    """The innermost frame below `root`: (path relative to it, line)."""
    best = ("", 0)
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno or 0)]
    else:
        frames = []
    summary = traceback.extract_tb(error.__traceback__)
    for name, line in [(f.filename, f.lineno or 0) for f in summary] + frames:
        if name.startswith(root):
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


def _check(request: dict[str, Any]) -> dict[str, Any]:
    budget = Budget()
    sys.addaudithook(budget.hook)
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
    shared = [f for f in budget.files if f.startswith(root)]
    return {
        "fatal": fatal,
        "warnings": warnings,
        "modules": modules,
        "seconds": seconds,
        "opens": budget.opens,
        "files": len(shared),
    }


def _main() -> None:
    with Path(sys.argv[1]).open() as file:
        request = json.load(file)
    report = _check(request)
    with Path(sys.argv[2]).open("w") as file:
        json.dump(report, file)


_main()
