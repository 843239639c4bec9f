"""Example of an environments repo, which `groundcrew init` writes and the demo starts with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path


def example() -> AbstractContextManager[Path]:
    """Return the example's directory for reading: packaged with this module, or in a checkout."""
    name = "environments.example"
    packaged = resources.files("reconciler") / name
    if packaged.is_dir():
        return resources.as_file(packaged)
    return resources.as_file(Path(__file__).resolve().parents[1] / name)
