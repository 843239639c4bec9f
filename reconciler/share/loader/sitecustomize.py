"""Groundcrew's loader: gives this interpreter the packages of its instance's build.

It lies on the share as instances/<instance>/loader/sitecustomize.py and is on PYTHONPATH, so that
Python imports it at start. It reads the pointer once, and pins what it found for all children. The
base always wins: paths are appended. Standard library only, Python 3.9 and newer; it never raises.

Environment: GROUNDCREW_BUILD pins a build id ("none": the bare base) and wins over the pointer;
GROUNDCREW_COMPONENT names the Airflow component where the command line does not tell.
"""

from __future__ import annotations

import os
import sys

_LIMIT = 8 << 20
_COMMANDS = {
    "scheduler": "scheduler",
    "dag-processor": "dag-processor",
    "triggerer": "triggerer",
    "api-server": "api-server",
    "webserver": "webserver",
    "worker": "worker",
    "tasks": "worker",
}
_REFUSED = ("PATH", "PYTHON", "LD_", "GROUNDCREW_", "AIRFLOW__")


def _airflow() -> str | None:
    """The version of the Airflow installed beside this interpreter, or None."""
    for folder in sys.path:
        if not folder.endswith("-packages"):
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.startswith("apache_airflow-") and name.endswith(".dist-info"):
                return name[len("apache_airflow-") : -len(".dist-info")]
        for name in names:
            if name.startswith("apache_airflow_core-") and name.endswith(".dist-info"):
                return name[len("apache_airflow_core-") : -len(".dist-info")]
    return None


def _component() -> str:
    """The Airflow component that this process is, or "" when it is none."""
    named = os.environ.get("GROUNDCREW_COMPONENT", "")
    if named:
        return named
    words = list(getattr(sys, "orig_argv", None) or getattr(sys, "argv", None) or [])
    for index, word in enumerate(words):
        name = os.path.basename(word)
        module = index > 0 and words[index - 1] == "-m" and word == "airflow"
        if name == "airflow" or module or word.endswith("/airflow/__main__.py"):
            rest = [w for w in words[index + 1 :] if not w.startswith("-")]
            if rest[:2] == ["celery", "worker"]:
                return "worker"
            return _COMMANDS.get(rest[0], "") if rest else ""
        if word.startswith(("airflow.sdk.execution_time", "airflow.executors")):
            return "worker"
    return ""


def _read(path: str) -> dict | None:  # type: ignore[type-arg]  # typing costs an import
    """A JSON document from the share, or None."""
    import json

    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    found = json.loads(data) if len(data) <= _LIMIT else None
    return found if isinstance(found, dict) else None


def _chosen(here: str, abi: str, airflow: str) -> str | None:
    """The build id for this process: the pin, or what the pointer names; None for the bare base."""
    pin = os.environ.get("GROUNDCREW_BUILD")
    if pin:
        return None if pin == "none" else pin
    pointer = _read(os.path.join(os.path.dirname(here), "pointer.json")) or {}
    component = _component()
    wanted = pointer.get("loadInto")
    if component and isinstance(wanted, list) and component not in wanted:
        os.environ["GROUNDCREW_COMPONENT"] = component
        return None
    for entry in (pointer.get("builds") or {}).values():
        if entry.get("abi") == abi and entry.get("airflow") == airflow:
            return str(entry.get("build"))
    return None


def _load(here: str) -> None:
    """Find this process's build, pin it for the children, and put it in place."""
    airflow = _airflow()
    if airflow is None:
        return
    system = os.uname()
    version = sys.version_info
    abi = "cp%d%d-%s_%s" % (version[0], version[1], system.sysname.lower(), system.machine)
    build = _chosen(here, abi, airflow)
    if not build or not build.isalnum():
        os.environ["GROUNDCREW_BUILD"] = "none"
        return
    os.environ["GROUNDCREW_BUILD"] = build
    root = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    manifest = _read(os.path.join(root, "builds", build, "build.json"))
    if manifest is None or manifest.get("abi") != abi:
        _say("build %s is not for %s; going on with the bare base" % (build, abi))
        return
    _apply(root, manifest)


def _apply(root: str, manifest: dict) -> None:  # type: ignore[type-arg]
    """Append the build's paths and set what its definition asks for."""
    known = set(sys.path)
    for item in manifest.get("paths", ()):
        path = os.path.join(root, item["path"])
        if item.get("pth"):
            import site

            site.addsitedir(path)
        elif path not in known:
            sys.path.append(path)
    for name, value in (manifest.get("env") or {}).items():
        if not name.startswith(_REFUSED):
            os.environ[name] = str(value)
    for variable, items in (("PATH", manifest.get("bin")), ("CLASSPATH", manifest.get("jars"))):
        parts = [p for p in os.environ.get(variable, "").split(os.pathsep) if p]
        parts += [p for p in (os.path.join(root, item) for item in items or ()) if p not in parts]
        if parts:
            os.environ[variable] = os.pathsep.join(parts)


def _say(words: str) -> None:
    try:
        sys.stderr.write("groundcrew: %s\n" % words)
    except Exception:
        pass


def _shadowed(here: str) -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    others = [p for p in sys.path if os.path.abspath(p or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        _load(here)
    except Exception as error:
        _say("the bare base, because: %s: %s" % (type(error).__name__, error))
    try:
        _shadowed(here)
    except Exception as error:
        _say("sitecustomize: %s: %s" % (type(error).__name__, error))


_start()
