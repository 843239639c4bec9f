"""Groundcrew on a real node: a commit's way to the release, and imports in its pods.

Kubelet, containers, Airflow 3.2.2 of 310 distributions and PostgreSQL are real, and share the
machine; the share is a folder of the node, not a network. Needs root and `make node`. Beside a
commit is the part of `helm upgrade` that Groundcrew spares, for an image that is on the node
already: building, pushing and pulling the image is not in it.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.rows import Row
from tests.harness.kube_api import Json
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.node import Node
from tests.harness.node.programs import missing, programs
from tests.harness.node.runtime import Runtime
from tests.harness.node.site import NodeSite
from tests.harness.node.task_pod import run_in_pod

TURNS = 3
MODULES = 600  # of the package whose import is measured
MIB = 1 << 20
IMPORT = """\
import time
start = time.perf_counter()
import {name}
print("took", time.perf_counter() - start)
"""


@dataclass(frozen=True, slots=True)
class Rebuilt(AirflowImage):
    """The image under another name, as if it had been built again and pulled."""

    @property
    def reference(self) -> str:
        """The image's other name on the node."""
        return f"{self.name}-rebuilt"

    def load(self, runtime: Runtime) -> None:
        """Name the image, which is there."""
        old = AirflowImage(self.airflow, self.python).reference
        runtime.ctr("images", "tag", "--force", old, self.reference)


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    if lacking := missing():
        raise SystemExit("this machine cannot run a node:\n" + "\n".join(lacking))
    with _site() as site:
        site.let_tasks_end()
        return [*_commits(site), *_imports(site)]


@contextmanager
def _site() -> Iterator[NodeSite]:
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-node-") as folder,
        tempfile.TemporaryDirectory(prefix="groundcrew-site-") as site_root,
        Node(Path(folder), programs()) as node,
        NodeSite(node, Path(site_root), AirflowImage("3.2.2", "3.12")) as site,
    ):
        yield site


def _commits(site: NodeSite) -> list[Row]:
    """Measure commits, what they cost, and an upgrade of the release."""
    took, asked = [], []
    with site.daemon() as daemon:
        site.reach_a_version()
        for _ in range(TURNS):
            version, before = site.next_version(), len(_asked(site))
            begun = time.monotonic()
            site.commit(version)
            site.wait_active(version)
            took.append(time.monotonic() - begun)
            asked.append(len(_asked(site)) - before)
        memory = psutil.Process(daemon.pid).memory_info().rss / MIB
    begun = time.monotonic()
    site.upgrade(Rebuilt("3.2.2", "3.12"))
    upgrade = time.monotonic() - begun
    return [
        Row(
            "node",
            "commit → active, with the gate's 30 s of staying up",
            statistics.median(took),
            "s",
            peer="helm upgrade to an image that is there: migration, rollout",
            peer_value=upgrade,
        ),
        Row("node", "API requests of a commit, watches left out", max(asked), "requests"),
        Row("node", "memory of the daemon after four commits", memory, "MiB"),
    ]


def _asked(site: NodeSite) -> list[Json]:
    return [e for e in site.node.plane.audit(site.user) if e["verb"] != "watch"]


def _imports(site: NodeSite) -> Iterator[Row]:
    """Measure the first import of a package of a build in new pods, by where its files lie."""
    name = "acme.many"
    with site.daemon():
        version = site.next_version()
        site.commit(version, more=_many())
        site.wait_active(version)
    disk = site.root / "disk"
    disk.mkdir()
    disk.chmod(0o777)
    volumes: dict[str, Json] = {
        "an emptyDir": {"emptyDir": {}},
        "an emptyDir in memory": {"emptyDir": {"medium": "Memory"}},
        "a hostPath": {"hostPath": {"path": str(disk)}},
    }
    beside = _median(site, None, name)
    for kind, volume in volumes.items():
        yield Row(
            "node",
            f"first import of {MODULES} modules in a new pod, through {kind}",
            _median(site, volume, name) * 1000,
            "ms",
            peer="the same files in the pod's own layer",
            peer_value=beside * 1000,
        )


def _many() -> dict[str, str]:
    """Return a module that imports many others, of some 400 lines each."""
    functions = "".join(f"def step_{n}(value):\n    return value + {n}\n\n" for n in range(130))
    files = {f"acme/part_{n}.py": f"NUMBER = {n}\n{functions}" for n in range(MODULES)}
    imports = "".join(f"from acme import part_{n}\n" for n in range(MODULES))
    return {**files, "acme/many.py": imports}


def _median(site: NodeSite, volume: Json | None, module: str) -> float:
    return statistics.median(_first_import(site, volume, module) for _ in range(TURNS))


def _first_import(site: NodeSite, volume: Json | None, module: str) -> float:
    """Return the seconds that an import takes in a pod of the release; no volume: from a copy."""
    command = f"python -c '{IMPORT.format(name=module)}'"
    if volume is None:
        there = "$(python -c 'import acme; print(acme.__path__[0])')"
        command = f"cp -r {there} /tmp/acme && PYTHONPATH=/tmp {command}"
    log = run_in_pod(site, command, volume)
    match = re.search(r"took ([0-9.]+)", log)
    assert match is not None, log
    return float(match[1])
