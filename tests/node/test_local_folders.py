"""Loader's folder on the volumes that the docs name."""

from __future__ import annotations

import pytest

from tests.harness.kube_api import Json
from tests.harness.node.airflow_release import USER
from tests.harness.node.site import NodeSite
from tests.harness.node.task_pod import LOCAL, run_in_pod

pytestmark = pytest.mark.nightly

SHOW = "python -c 'import acme; print(acme.__version__, acme.__file__)'"


@pytest.mark.parametrize("kind", ["emptyDir", "memory", "hostPath"])
def test_a_pod_imports_from_its_own_folder(site: NodeSite, kind: str) -> None:
    """The next pod of the same node finds what the first one unpacked into a hostPath."""
    with site.daemon():
        version = site.reach_a_version()
    folder = site.root / "local"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o1777)
    volumes: dict[str, Json] = {
        "emptyDir": {"emptyDir": {}},
        "memory": {"emptyDir": {"medium": "Memory"}},
        "hostPath": {"hostPath": {"path": str(folder)}},
    }
    if kind == "hostPath":
        site.allow_host_paths()
    log = run_in_pod(site, SHOW, volumes[kind])
    assert f"{version} {LOCAL}/groundcrew-{USER}/" in log
    if kind == "hostPath":
        unpacked = {path: path.stat().st_ino for path in folder.rglob("__init__.py")}
        assert unpacked
        assert run_in_pod(site, SHOW, volumes[kind]) == log
        assert {p: p.stat().st_ino for p in folder.rglob("__init__.py")} == unpacked
