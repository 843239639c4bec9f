"""Processes on this machine that run the components of a local instance, with their variables.

Only what is certain counts: a process whose environment cannot be read, or that belongs to another
Airflow of the same interpreter, is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from reconciler.core.definitions import LocalTarget

CONFIG_LIMIT = 1 << 20  # bytes of an airflow.cfg that are read


@dataclass(frozen=True, slots=True)
class ComponentProcess:
    """A process that runs a component: the first one, not what it has forked."""

    name: str
    pid: int
    parent: int
    uid: int
    variables: Mapping[str, str]
    started: float


def component_processes(
    local: LocalTarget, names: Collection[str], since: float = 0.0
) -> Iterator[ComponentProcess]:
    """Yield the processes that run a component, without those that such a process has forked."""
    components: dict[int, ComponentProcess] = {}
    for process in psutil.process_iter(["pid", "cmdline", "create_time"]):
        name = _named(process.info["cmdline"] or [], local, names)
        if not name or process.info["create_time"] < since:
            continue
        try:
            variables, parent, uid = process.environ(), process.ppid(), process.uids().real
        except psutil.Error:  # it ended, or it is another user's
            continue
        if _of(local, variables):
            begun = float(process.info["create_time"])
            components[process.pid] = ComponentProcess(
                name, process.pid, parent, uid, variables, begun
            )
    for component in components.values():
        above = components.get(component.parent)
        if above is None or above.name != component.name:
            yield component


def _named(words: list[str], local: LocalTarget, names: Collection[str]) -> str:
    """Return the component that a command line runs with the instance's interpreter, or "".

    A process that has changed its title is none: that overwrites the environment that is read.
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


def setting_of(local: LocalTarget, key: str) -> str:
    """Return a setting of the section `core`, or "": from processes' variables, else airflow.cfg.

    The variables win, as in Airflow. One that names a command or a secret is not followed.
    """
    names = [component.name for component in local.components]
    variable = f"AIRFLOW__CORE__{key.upper()}"
    for process in component_processes(local, names):
        if process.variables.get(variable):
            return process.variables[variable]
    config = Path(local.airflow_home) / "airflow.cfg"
    if config.is_file():
        with config.open(errors="replace") as file:
            text = file.read(CONFIG_LIMIT)
        for line in text.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip() == key and value.strip():
                return value.strip()
    return ""
