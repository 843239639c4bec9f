"""DAGs of a real release, parsed with a build before the switch."""

from __future__ import annotations

import pytest

from tests.harness.node.site import NodeSite

pytestmark = pytest.mark.nightly

NEEDS_THE_VERSION = """\
from acme import __version__
from airflow.sdk import dag


@dag(schedule=None)
def needs_the_version():
    pass


needs_the_version()
"""


def test_a_name_that_a_build_drops_is_found_in_a_dag_on_a_claim(site: NodeSite) -> None:
    """The build fails by the DAG's name, and nothing live is touched."""
    file = site.dags / "needs_the_version.py"
    with site.daemon():
        before = site.reach_a_version()
        file.write_text(NEEDS_THE_VERSION)
        try:
            revision = site.commit(site.next_version(), "del __version__\n")
            failed = site.wait_event("BuildFailed", revision)
            assert "needs_the_version.py of instance red-dev" in failed.message
            assert "parses with the active build" in failed.message
            assert "cannot import name '__version__'" in failed.message
            assert site.version() == before
        finally:
            file.unlink()
        version = site.next_version()
        revision = site.commit(version)
        parsed = site.wait_event("DagsParsed", revision)
        assert "1 DAG file" in parsed.message
        assert "the claim airflow-dags" in parsed.message
        site.wait_active(version)
