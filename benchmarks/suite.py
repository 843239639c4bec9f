"""Registry of the benchmarks by name.

Each benchmark has `run`, which takes minutes, and `short`: the same on small sizes, counts only,
for the tests. Importing this module imports all of them.
"""

from __future__ import annotations

from types import ModuleType

from benchmarks import (
    builds,
    fragment,
    garbage,
    hostile,
    imports,
    kubernetes,
    overhead,
    pages,
    publish,
    scale,
    shared_wheels,
)

ALL: dict[str, ModuleType] = {
    "imports": imports,
    "publish": publish,
    "sharing": shared_wheels,
    "builds": builds,
    "fragment": fragment,
    "scale": scale,
    "garbage": garbage,
    "overhead": overhead,
    "pages": pages,
    "hostile": hostile,
    "kubernetes": kubernetes,
}
