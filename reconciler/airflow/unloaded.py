"""Components that run without the instance's loader and therefore never load a build.

The local driver reads the environments of running processes while it probes, and so does
`groundcrew doctor`. Only certain cases count: a process whose environment cannot be read, or that
belongs to another Airflow of the same interpreter, is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import psutil

from reconciler.airflow.crashloop import left_out
from reconciler.core.definitions import LocalTarget


def unloaded(
    local: LocalTarget,
    names: Collection[str],
    loads: Callable[[int, str], bool],
    since: float = 0.0,
) -> dict[str, int]:
    """Return a process (its pid) of each component that does not satisfy `loads(pid, PYTHONPATH)`.

    Only processes that started after `since` are considered.
    """
    found: dict[str, int] = {}
    since -= left_out()
    for process in psutil.process_iter(["pid", "cmdline", "create_time"]):
        name = _component(process.info["cmdline"] or [], local, names)
        if not name or process.info["create_time"] < since:
            continue
        try:
            variables = process.environ()
        except psutil.Error:  # it ended, or it belongs to another user
            continue
        if _of(local, variables) and not loads(process.pid, variables.get("PYTHONPATH", "")):
            found[name] = min(found.get(name, process.info["pid"]), process.info["pid"])
    return found


def _component(words: list[str], local: LocalTarget, names: Collection[str]) -> str:
    """Return the component that a command line runs with the instance's interpreter, or "".

    A process that has changed its title does not count: that overwrites the environment in memory.
    """
    python = Path(words[0]) if words else Path()
    folder = Path(local.python).parent
    if python.parent != folder or not python.name.startswith("python"):
        return ""
    airflow = next((i for i, word in enumerate(words) if Path(word).name == "airflow"), None)
    if airflow is None:
        return ""
    rest = [word for word in words[airflow + 1 :] if word != "celery"]
    return rest[0] if rest and rest[0] in names else ""


def _of(local: LocalTarget, variables: Mapping[str, str]) -> bool:
    """Return True if a process with these variables uses the instance's Airflow home."""
    home = variables.get("AIRFLOW_HOME") or Path(variables.get("HOME", "")) / "airflow"
    return Path(home).resolve() == Path(local.airflow_home).resolve()
