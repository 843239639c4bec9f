"""Proofs: what the loader of a running component says it has loaded.

The loader (reconciler/share/loader/groundcrew_proof.py) leaves one at the start of each component.
Drivers find them; what is in them was written by a process of the instance and is not trusted
beyond that instance.
"""

from __future__ import annotations

import json

from reconciler.core.loaded import Loaded

MARK = "groundcrew: proof "
LIMIT = 16 << 10  # bytes of one proof
WORDS = 500  # characters of what a loader said that are told


def parse(line: str, process: str) -> Loaded | None:
    """Return what the proof in a line of JSON says of a process; None if it is not one."""
    if len(line) > LIMIT:
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    component, build, said = (document.get(name) for name in ("component", "build", "said"))
    if not (isinstance(component, str) and isinstance(build, str) and isinstance(said, str)):
        return None
    return Loaded(
        component=component[:WORDS],
        process=process,
        build=None if build == "none" else build[:WORDS],
        pinned=document.get("pinned") is True,
        local=document.get("local") is True,
        said=" ".join(said.split())[:WORDS],
    )


def find(log: str, process: str) -> Loaded | None:
    """Return what the last proof in a log says of a process; None if there is no proof."""
    lines = (line.partition(MARK) for line in log.splitlines())
    proofs = [one for _, mark, rest in lines if mark and (one := parse(rest, process)) is not None]
    return proofs[-1] if proofs else None
