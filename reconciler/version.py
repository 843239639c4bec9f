"""Version of the installed distribution."""

from __future__ import annotations

DISTRIBUTION = "groundcrew-airflow"


def installed_version() -> str:
    """Return the version of Groundcrew."""
    from importlib.metadata import version  # it takes 30 ms to import

    return version(DISTRIBUTION)
