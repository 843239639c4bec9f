"""A daemon after good and bad commits, monitored by a real Prometheus and Alertmanager."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import BAD_IMPORT, BAD_LIVE, INSTANCE, TEAM, Site
from tests.harness.monitoring import Watch, missing, until, watching

SECOND = "red-prod"  # waits until the first one has soaked
ROLLOUT = [{"instances": [INSTANCE], "soak": "1h"}, {"instances": [SECOND]}]


@dataclass
class Scene:
    """The objects that the tests examine."""

    site: Site
    watch: Watch
    target: str  # host:port of the daemon


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Yield a scene: 1.0 (before monitoring) and 1.1 were activated, 2.0 was rolled back."""
    if missing():
        pytest.skip(f"not on this machine: {', '.join(missing())}")
    root = tmp_path_factory.mktemp("scene")
    with FakeAirflow() as airflow:
        site = Site(root / "site", airflow)
        definition = site.repo / "instances" / f"{SECOND}.yaml"
        definition.write_text(yaml.safe_dump(site.instance(SECOND)))
        commit(site, "1.0")
        code, output = site.once()
        assert code == 0, output
        with running(site) as target, watching(root / "watch", target, TEAM) as watch:
            ended = f'groundcrew_activation_total{{instance="{INSTANCE}", result="active"}}'
            until(lambda: watch.query(f"{ended} == 1"), "the first activation is scraped")
            commit(site, "1.1")
            until(lambda: watch.query(f"{ended} == 2"), "the second activation is scraped")
            commit(site, "2.0", BAD_LIVE)
            phase = f'groundcrew_instance_phase{{instance="{INSTANCE}"}}'
            until(
                lambda: watch.query(f"{phase} and on () groundcrew_rollback_total"),
                "the rollback is scraped",
            )
            yield Scene(site, watch, target)


@pytest.fixture(scope="package")
def failed(scene: Scene) -> Scene:
    """Return the scene once 3.0, which cannot be imported, has failed."""
    commit(scene.site, "3.0", BAD_IMPORT)
    until(
        lambda: scene.watch.query('groundcrew_object_problem{source="build"}'),
        "the failed build is scraped",
    )
    return scene


def commit(site: Site, *words: str) -> None:
    """Ask for a version on both instances, one after the other."""
    spec: dict[str, Any] = {"rollout": ROLLOUT}
    site.commit(*words, **spec)


@contextmanager
def running(site: Site) -> Iterator[str]:
    """Run the daemon as a process; yield host:port of its HTTP side."""
    log: Path = site.root / "daemon.log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "reconciler.cli", "run"],
            env=site.environment(GROUNDCREW_HTTP__ENABLED="true", GROUNDCREW_HTTP__PORT="0"),
            stdout=out,
            stderr=out,
        )
    try:
        until(
            lambda: "listening on" in log.read_text() or daemon.poll() is not None,
            "the daemon listens",
        )
        assert daemon.poll() is None, log.read_text()
        yield log.read_text().split("listening on http://")[1].split()[0].rstrip("/")
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=60) == 0, log.read_text()
