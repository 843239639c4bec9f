"""The example of an environments repo: what `groundcrew init` writes and the demo begins with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path


def example() -> AbstractContextManager[Path]:
    """Its directory, for reading: packaged beside this module, or in a checkout of the project."""
    name = "environments.example"
    packaged = resources.files("reconciler") / name
    if packaged.is_dir():
        return resources.as_file(packaged)
    return resources.as_file(Path(__file__).resolve().parents[1] / name)
