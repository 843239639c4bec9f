"""Builds that components on this machine have loaded, by their environments and their proofs.

Asked by the local driver while it probes, at each look at the world, and by `groundcrew doctor`.
Only what is certain counts: a process whose environment cannot be read, or that belongs to another
Airflow of the same interpreter, is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from reconciler.airflow.crashloop import left_out
from reconciler.airflow.proof import LIMIT, parse
from reconciler.core.definitions import LocalTarget
from reconciler.core.loaded import Loaded
from reconciler.local_processes import ComponentProcess, component_processes

ALL_READ_WRITE = "/tmp"  # noqa: S108 - where the loader writes if nothing else is said


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
    for component in component_processes(local, names, since - left_out()):
        who = Loaded(component.name, f"pid {component.pid}", None, proven=False)
        if not loads(component.pid, component.variables.get("PYTHONPATH", "")):
            processes.append(who)
            continue
        proof = _proof(component)
        if proof is not None:
            processes.append(replace(proof, component=component.name))
        # A process without a proof is passed over: others may have removed the file.
    return tuple(processes)


# ----------------------------------------------------------------------------------------- proofs


def _proof(component: ComponentProcess) -> Loaded | None:
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


def _folders(component: ComponentProcess) -> list[Path]:
    """Return the folders for proofs that the loader tries, as seen by the process."""
    named = component.variables.get("GROUNDCREW_LOCAL", "")
    temp = component.variables.get("TMPDIR") or ALL_READ_WRITE
    tops = [p for p in named.split(os.pathsep) if p and p != "off"] or [temp]
    root = Path(f"/proc/{component.pid}/root")  # a service may have a /tmp of its own
    root = root if root.is_dir() else Path("/")
    own = f"groundcrew-{component.uid}"
    return [root / top.lstrip("/") / own / "proofs" for top in tops]
