"""DAGs of a real release, parsed with a build before the switch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.harness.local_daemon import IDENTITY
from tests.harness.node.airflow_dag import dag_file
from tests.harness.node.airflow_git import load_git_sync
from tests.harness.node.gitserver import git_server
from tests.harness.node.network import HOST
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


@pytest.fixture
def git_site(site: NodeSite) -> Iterator[NodeSite]:
    """Yield a site whose DAG processor fetches its DAGs from git."""
    load_git_sync(site.node.runtime)
    path = site.root / "dag-repository"
    path.mkdir()
    (path / "uses_acme.py").write_text(dag_file(site.image.airflow))
    (path / "needs_the_version.py").write_text(NEEDS_THE_VERSION)
    commands = (["init", "-q", "-b", "main"], ["add", "-A"], [*IDENTITY, "commit", "-q", "-m", "1"])
    for command in commands:
        subprocess.run(["git", *command], cwd=path, check=True, timeout=60)
    with git_server(site.root, HOST) as url, site.dags_from(f"{url}/{path.name}"):
        yield site


def test_a_name_that_a_build_drops_is_found_in_a_dag_from_git(git_site: NodeSite) -> None:
    """The Job fetches the reference itself, as the release's own container does."""
    site = git_site
    with site.daemon():
        before = site.reach_a_version()
        revision = site.commit(site.next_version(), "del __version__\n")
        failed = site.wait_event("BuildFailed", revision)
        assert "needs_the_version.py of instance red-dev" in failed.message
        assert site.version() == before
        version = site.next_version()
        revision = site.commit(version)
        parsed = site.wait_event("DagsParsed", revision)
        assert "2 DAG files parsed from git" in parsed.message
        site.wait_active(version)
