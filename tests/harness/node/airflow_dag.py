"""DAG of the node's releases: its task says what it imports when it begins and when it ends."""

from __future__ import annotations

import re

DAG = """\
import time
from pathlib import Path

import acme
from airflow.sdk import dag, task


@dag(schedule=None, is_paused_upon_creation=False)
def uses_acme():
    @task
    def show():
        print("began with", acme.__version__, "in", acme.__file__)
        while not Path("/opt/airflow/logs/go-on").exists():
            time.sleep(0.5)
        from acme import late

        print("ended with", late.version)

    show()


uses_acme()
"""


def dag_file(airflow: str) -> str:
    """Return the text of its file for a version of Airflow; Airflow 2 wants a first date."""
    if not airflow.startswith("2."):
        return DAG
    dated = "schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC),"
    return (
        DAG.replace("airflow.sdk", "airflow.decorators")
        .replace("import time\n", "import time\nfrom datetime import UTC, datetime\n", 1)
        .replace("schedule=None,", dated)
    )


def imported(version: str) -> str:
    """Return the pattern of what a task logs that has a version of `acme` from a build."""
    return rf"began with {re.escape(version)} in \S+/lib/acme/__init__\.py"


def ended(version: str) -> str:
    """Return the pattern of what a task logs that still has a version of `acme` when it ends."""
    return rf"ended with {re.escape(version)}"
