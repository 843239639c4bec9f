"""Site with a history and its Airflow; a test may change its settings and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import Site


@pytest.fixture(scope="session")
def airflow() -> Iterator[FakeAirflow]:
    with FakeAirflow("3") as airflow:
        yield airflow


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, airflow: FakeAirflow) -> Site:
    """Return the site; its environment is active and healthy."""
    site = Site(tmp_path_factory.mktemp("cli") / "site", airflow)
    (site.root / "home").mkdir()
    site.commit("1.0")
    code, output = site.once()
    assert code == 0, output
    return site


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Iterator[Path]:
    """Yield the site's settings, which are restored when the test ends."""
    kept = site.config.read_text()
    yield site.config
    site.config.write_text(kept)
