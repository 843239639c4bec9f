"""Version of the installed distribution."""

from __future__ import annotations

DISTRIBUTION = "groundcrew-airflow"


def installed_version() -> str:
    """Return the version of Groundcrew, or "unknown" where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # it takes 30 ms to import

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
