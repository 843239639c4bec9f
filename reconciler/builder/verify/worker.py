"""Worker in the instance's interpreter, with a candidate pinned, that records opened files.

`imports <report> <request>` imports what the build installs, according to the request; it must not
fail itself: failures go into the report. `airflow <report> <output> <word>…` is Airflow's command
line, which prints to the file <output>. Request and report are JSON files. Standard library only,
Python 3.9+.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

IN_ENTRY = re.compile(r"/([0-9a-f]{64})(?:-[0-9a-f]{16})?[^/]*/((?:lib|bin|data)/.+)", re.DOTALL)
NOT_CODE = ("docs", "examples", "test", "tests")  # folders that some wheels contain
ASIDE = {
    "alembic",
    "conftest",
    "cookiecutter",
    "doc",
    "docs",
    "example",
    "examples",
    "migrations",
    "template",
    "templates",
    "test",
    "tests",
}  # parts of a module's name that show that no DAG imports it
JINJA = re.compile(r"\{\{|\{%")
REQUIRED = re.compile(r"[A-Za-z0-9][\w.-]*")
EXTRA = re.compile(r"\bextra\s*==\s*['\"]([^'\"]+)")
POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_SIZES = range(100, 1025)  # bytes that a Git LFS pointer may have
PROBLEMS_LIMIT = 1000  # of each kind in a report
STARTING = 10.0  # seconds in which a program either fails to start, or has started
CANNOT_START = (126, 127)  # exit codes of shells and of the dynamic linker
AIRFLOW_GROUPS = ("airflow.plugins", "apache_airflow_provider")


class Budget:
    """Cost of the imports: files opened, and those in the build's store entries."""

    def __init__(self) -> None:
        self.opens = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def hot(self) -> dict[str, list[str]]:
        """Return paths in store entries that imports need, by digest; folders end with /."""
        paths = {path for path in self.files if not path.endswith("/RECORD")}
        paths |= {source for path in paths if (source := _source(path))} | self.folders
        for module in list(sys.modules.values()):
            paths.add(str(getattr(module, "__file__", None) or ""))
        with contextlib.suppress(OSError), Path("/proc/self/maps").open() as maps:
            paths |= {line.split(None, 5)[-1].rstrip() for line in maps}  # shared objects
        by_digest: dict[str, list[str]] = {}
        for path in sorted(paths):
            match = IN_ENTRY.search(path)
            if match is not None:
                by_digest.setdefault(match[1], []).append(match[2])
        return by_digest

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Count an audit event if it opens a file; record it if it lists a folder."""
        if event == "open" and args and isinstance(args[0], str):
            self.opens += 1
            self.files.add(args[0])
        elif event in ("os.listdir", "os.scandir") and args and isinstance(args[0], str):
            self.folders.add(args[0].rstrip("/") + "/")


def _source(path: str) -> str:
    """Return the source of a module's bytecode: Python checks it first, even if it is missing."""
    folder, _, name = path.rpartition("/__pycache__/")
    return f"{folder}/{name.split('.')[0]}.py" if folder and name.endswith(".pyc") else ""


def _modules(dist: importlib.metadata.Distribution, everything: bool) -> list[str]:
    """Return the importable modules of a distribution; only its outermost ones unless `everything`.

    Those of a namespace package are its own outermost packages: google.cloud.storage.
    """
    modules: dict[tuple[str, ...], bool] = {}  # is it a package
    for file in dist.files or ():
        parts = file.parts
        suffix = next((s for s in all_suffixes() if parts[-1].endswith(s)), None)
        if suffix is None or ".." in parts or parts[0].endswith(".dist-info"):
            continue
        names = list(parts[:-1])
        stem = parts[-1][: -len(suffix)]
        if stem == "__main__" or (not names and stem.startswith("setup")):
            continue
        if stem != "__init__":
            names.append(stem)
        if names and all(re.match(r"^[A-Za-z_]\w*$", n) for n in names):
            modules[tuple(names)] = stem == "__init__"
    wanted = modules if everything else filter(partial(_is_outermost, modules), modules)
    return sorted(".".join(names) for names in wanted)


def _is_outermost(found: dict[tuple[str, ...], bool], names: tuple[str, ...]) -> bool:
    """Return True if it is public and outside packages, or a package only in namespaces."""
    if any(name.startswith("_") for name in names) or (len(names) > 1 and names[0] in NOT_CODE):
        return False
    around = (names[:n] for n in range(1, len(names)))
    return len(names) == 1 or (found[names] and not any(found.get(one) for one in around))


def _where(error: BaseException, root: str) -> tuple[str, int]:
    """Return the innermost frame in a store entry, or else below `root`: (path in it, line)."""
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


class Problem(Exception):
    """Problem of a build other than failing imports; `kind` identifies it."""

    def __init__(self, kind: str, words: str, file: str = "") -> None:
        super().__init__(words)
        self.kind, self.words, self.file = kind, words, file


def _told(error: BaseException, what: str, dist: str, root: str) -> dict[str, Any]:
    """Return a row of the report."""
    file, line = (error.file, 0) if isinstance(error, Problem) else _where(error, root)
    plain = isinstance(error, Problem)
    return {
        "kind": error.kind if isinstance(error, Problem) else "import",
        "what": what,
        "distribution": dist,
        "error": str(error) if plain else f"{type(error).__name__}: {error}",
        "file": file,
        "line": line,
        "traceback": ""
        if plain
        else "".join(traceback.format_exception(type(error), error, error.__traceback__))[-6000:],
    }


def _from_elsewhere(name: str) -> None:
    """Raise Problem if a module that was imported is not the build's.

    Modules that replace themselves, or have no file, are accepted as their authors intended.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    origin = str(getattr(spec, "origin", None) or getattr(module, "__file__", None) or "")
    if getattr(spec, "name", name) != name or not os.path.isabs(origin):
        return
    if IN_ENTRY.search(origin) is None:
        owner = _owner(origin)
        raise Problem("shadowed", owner or origin)


def _owner(path: str) -> str:
    """Return name and version of the distribution that has a file, or ""."""
    base = os.path.basename(path)
    for dist in importlib.metadata.distributions():
        for file in dist.files or ():
            if file.name == base and os.path.samefile(os.path.dirname(path), _folder(dist, file)):
                return f"{dist.metadata['Name']} {dist.version}"
    return ""


def _folder(dist: importlib.metadata.Distribution, file: Any) -> str:
    folder = os.path.dirname(str(dist.locate_file(file)))
    return folder if os.path.isdir(folder) else os.devnull


def _is_aside(name: str) -> bool:
    """Return True for a module that is not meant to be imported: tests, migrations, templates."""
    parts = name.split(".")
    last = parts[-1]
    tests = last.startswith("test_") or last.endswith("_test")
    return tests or not ASIDE.isdisjoint(parts)


def _is_excluded(name: str, globs: list[str]) -> bool:
    """Return True if a glob of checks.exclude matches a module or a package around it."""
    parts = name.split(".")
    around = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(one, glob) for one in around for glob in globs)


def _is_optional(dist: importlib.metadata.Distribution, error: BaseException) -> str:
    """Return why an own package's module may fail, such as a missing extra, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        with contextlib.suppress(OSError, UnicodeError), open(error.filename) as file:
            return "it is a template, not Python" if JINJA.search(file.read()) else ""
    seen: BaseException | None = error
    for _ in range(20):
        if isinstance(seen, ModuleNotFoundError) and seen.name:
            return _extra_of(dist, seen.name)
        seen = getattr(seen, "__cause__", None) or getattr(seen, "__context__", None)
    return ""


def _extra_of(dist: importlib.metadata.Distribution, module: str) -> str:
    """Return a text about the extra of a distribution that would install a module, or ""."""
    top = re.sub(r"[-_.]+", "-", module.split(".")[0]).lower()
    for text in dist.requires or ():
        requirement, _, marker = text.partition(";")
        required, extra = REQUIRED.match(requirement.strip()), EXTRA.search(marker)
        name = re.sub(r"[-_.]+", "-", required[0]).lower() if required else ""
        if required and extra and len(top) > 2 and (top in name or name in top):
            return f"it needs {required[0]}, of the extra {extra[1]}, which is not asked for"
    return ""


class Check:
    """All checks of one build."""

    def __init__(self, budget: Budget, request: dict[str, Any]) -> None:
        self._budget = budget
        self._request = request
        self._root: str = request["root"]
        self._exclude: list[str] = request["exclude"]
        self._begun = time.perf_counter()
        self._aside: list[tuple[str, str]] = []
        self._modules = 0
        self._cost: dict[str, Any] = {}
        self._fatal: list[dict[str, Any]] = []
        self._warnings: list[dict[str, Any]] = []

    def imports(self) -> None:
        """Import what the build installs, and what the definition names."""
        for item in self._request["distributions"]:
            dist = importlib.metadata.distribution(item["name"])
            for name in _modules(dist, item["in_repo"]):
                if item["in_repo"] and _is_aside(name):
                    self._aside.append((name, item["name"]))
                elif not _is_excluded(name, self._exclude):
                    self._module(name, dist, item)
            for point in dist.entry_points:
                if not _is_excluded(point.value.partition(":")[0].strip(), self._exclude):
                    self._entry_point(point, item)
        for name in self._request["imports"]:
            self._try(self._fatal, name, "", partial(importlib.import_module, name))
        hot = self._budget.hot()
        self._cost = {
            "modules": self._modules,
            "seconds": time.perf_counter() - self._begun,
            "opens": self._budget.opens,
            "files": sum(not path.endswith("/") for paths in hot.values() for path in paths),
            "hot": [[digest, paths] for digest, paths in hot.items()],
        }

    def _module(self, name: str, dist: importlib.metadata.Distribution, item: Any) -> None:
        self._modules += 1
        own, outermost = item["in_repo"], "." not in name
        begun = time.perf_counter()
        try:
            importlib.import_module(name)
        except BaseException as error:  # SystemExit at import is a failure too
            row = _told(error, name, item["name"], self._root)
            optional = _is_optional(dist, error) if own and not outermost else ""
            if optional:
                row["error"] = f"{row['error']} ({optional})"
            (self._fatal if outermost or (own and not optional) else self._warnings).append(row)
            return
        self._try(self._fatal, name, item["name"], partial(_from_elsewhere, name))
        seconds, limit = time.perf_counter() - begun, self._request["import_timeout"]
        if own and seconds > limit:
            detail = f"{seconds:.1f} s, and the instance allows {limit:g} s (dagbag_import_timeout)"
            file = str(getattr(sys.modules.get(name), "__file__", None) or "")
            match = IN_ENTRY.search(file)
            path = f"/{match[1]}/{match[2]}" if match else ""
            problem = Problem("slow", detail, path)
            self._fatal.append(_told(problem, name, item["name"], self._root))

    def _entry_point(self, point: importlib.metadata.EntryPoint, item: Any) -> None:
        kind = self._fatal if item["in_repo"] or point.group in AIRFLOW_GROUPS else self._warnings
        self._try(kind, f"entry point {point.name} of {point.group}", item["name"], point.load)

    def _try(
        self, rows: list[dict[str, Any]], what: str, dist: str, action: Callable[[], object]
    ) -> None:
        try:
            action()
        except BaseException as error:
            rows.append(_told(error, what, dist, self._root))

    def others(self) -> None:
        """Check what counts for no budget: data, programs, modules that nothing needs to import."""
        for item in self._request["distributions"]:
            dist = importlib.metadata.distribution(item["name"])
            rows = self._fatal if item["in_repo"] else self._warnings
            for problem in _pointers(dist):
                rows.append(_told(problem, problem.file, item["name"], self._root))
        for path, own in _programs(self._root, self._request["bin"]):
            rows = self._fatal if own else self._warnings
            self._try(rows, os.path.basename(path), "", partial(_start, path))
        for name, dist_name in self._aside:
            if not _is_excluded(name, self._exclude):
                action = partial(importlib.import_module, name)
                self._try(self._warnings, name, dist_name, action)

    def report(self) -> dict[str, Any]:
        """Return the results so far."""
        most = PROBLEMS_LIMIT
        return {**self._cost, "fatal": self._fatal[:most], "warnings": self._warnings[:most]}


def _pointers(dist: importlib.metadata.Distribution) -> Iterator[Problem]:
    """Yield the files of a distribution that are Git LFS pointers instead of their contents."""
    for file in dist.files or ():
        if file.size is None or file.size not in POINTER_SIZES:
            continue
        path = str(dist.locate_file(file))
        with contextlib.suppress(OSError), open(path, "rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                match = IN_ENTRY.search(path)
                yield Problem("pointer", str(file), f"/{match[1]}/{match[2]}" if match else "")


def _programs(root: str, folders: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield the programs to start, and whether the definition itself names them.

    Those that wheels contain as scripts run the build's Python: their entry points are loaded.
    """
    for folder in folders:
        own = folder.endswith("/files/bin")
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(os.path.join(root, folder))):
                path = os.path.join(root, folder, name)
                if os.path.isfile(path) and (own or _head(path) == b"\x7fELF"):
                    yield path, own


def _head(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4)
    return b""


def _start(path: str) -> None:
    """Raise Problem for a program that cannot be started here; its exit code does not matter."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STARTING,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return
    except OSError as error:
        raise Problem("program", str(error.strerror)) from error
    if done.returncode in CANNOT_START:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        raise Problem("program", lines[-1] if lines else f"exit code {done.returncode}")


def _write(answer: str, document: dict[str, Any]) -> None:
    """Write a report atomically, so that it is complete whatever ends this process later."""
    with open(answer + ".new", "w") as file:
        json.dump(document, file)
    os.replace(answer + ".new", answer)


def _hot_rows(budget: Budget) -> list[list[Any]]:
    return [[digest, paths] for digest, paths in budget.hot().items()]


def _print_to(path: str) -> None:
    """Redirect standard output to a file, also for programs started from here."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.close(handle)


def _main() -> None:
    mode, answer, *arguments = sys.argv[1:]
    budget = Budget()
    sys.addaudithook(budget.hook)
    if mode == "imports":
        with open(arguments[0]) as file:
            check = Check(budget, json.load(file))
        check.imports()
        _write(answer, check.report())
        check.others()
        _write(answer, check.report())
        return
    try:
        _print_to(arguments[0])
        sys.argv[1:] = arguments[1:]
        runpy.run_module("airflow", run_name="__main__", alter_sys=True)
    finally:
        _write(answer, {"hot": _hot_rows(budget)})


_main()
