"""Builds that components on this machine have loaded, by their environments and their proofs.

Asked by the local driver while it probes, at each look at the world, and by `groundcrew doctor`.
Only what is certain counts: a process whose environment cannot be read, or that belongs to another
Airflow of the same interpreter, is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from reconciler.airflow.crashloop import left_out
from reconciler.airflow.proof import LIMIT, parse
from reconciler.core.definitions import LocalTarget
from reconciler.core.loaded import Loaded

ALL_READ_WRITE = "/tmp"  # noqa: S108 - where the loader writes if nothing else is said


@dataclass(frozen=True, slots=True)
class _Component:
    """A process that runs a component: the first one, not what it has forked."""

    name: str
    pid: int
    parent: int
    uid: int
    variables: Mapping[str, str]
    started: float


def loaded(
    local: LocalTarget,
    names: Collection[str],
    loads: Callable[[int, str], bool],
    since: float = 0.0,
) -> tuple[Loaded, ...]:
    """Return what the processes of these components have loaded.

    `loads` says whether a process with this PYTHONPATH may have the loader. Only processes that
    started after `since` are looked at.
    """
    processes = []
    for component in _components(local, names, since - left_out()):
        who = Loaded(component.name, f"pid {component.pid}", None, proven=False)
        if not loads(component.pid, component.variables.get("PYTHONPATH", "")):
            processes.append(who)
            continue
        proof = _proof(component)
        if proof is not None:
            processes.append(replace(proof, component=component.name))
        # A process without a proof is passed over: others may have removed the file.
    return tuple(processes)


def variables_of(local: LocalTarget, names: Collection[str]) -> set[tuple[str, str]]:
    """Return (name, value) of the variables of all processes that run these components."""
    return {
        variable
        for component in _components(local, names, 0.0)
        for variable in component.variables.items()
    }


def _components(local: LocalTarget, names: Collection[str], since: float) -> Iterator[_Component]:
    """Yield the processes that run a component, without those that such a process has forked."""
    components: dict[int, _Component] = {}
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
            components[process.pid] = _Component(name, process.pid, parent, uid, variables, begun)
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


# ----------------------------------------------------------------------------------------- proofs


def _proof(component: _Component) -> Loaded | None:
    """Return the proof that a process has left, as the loader writes it."""
    pid = component.pid
    for folder in _folders(component):
        try:
            handle = os.open(folder / str(pid), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        with os.fdopen(handle, "rb") as file:
            if os.fstat(handle).st_mtime < component.started - left_out():
                continue  # of an earlier process with this number
            data = file.read(LIMIT + 1)
        return parse(data.decode(errors="replace"), f"pid {pid}")
    return None


def _folders(component: _Component) -> list[Path]:
    """Return the folders for proofs that the loader tries, as seen by the process."""
    named = component.variables.get("GROUNDCREW_LOCAL", "")
    temp = component.variables.get("TMPDIR") or ALL_READ_WRITE
    tops = [p for p in named.split(os.pathsep) if p and p != "off"] or [temp]
    root = Path(f"/proc/{component.pid}/root")  # a service may have a /tmp of its own
    root = root if root.is_dir() else Path("/")
    own = f"groundcrew-{component.uid}"
    return [root / top.lstrip("/") / own / "proofs" for top in tops]
