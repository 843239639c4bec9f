"""A site that has lived, with its Airflow; its settings and secrets are a test's to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.site import Site


@pytest.fixture(scope="session")
def airflow() -> Iterator[FakeAirflow]:
    with FakeAirflow("3") as found:
        yield found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, airflow: FakeAirflow) -> Site:
    """Its environment is active and healthy."""
    found = Site(tmp_path_factory.mktemp("cli") / "site", airflow)
    (found.root / "home").mkdir()
    found.commit("1.0")
    code, output = found.once()
    assert code == 0, output
    return found


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Iterator[Path]:
    """The site's settings, which are as before when the test ends."""
    kept = site.config.read_text()
    yield site.config
    site.config.write_text(kept)
