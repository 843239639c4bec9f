"""Fleet behind the HTTP server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.harness.pages import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield twelve instances, in every state."""
    server = Served(tmp_path_factory.mktemp("served"), 12)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    """Return the URL of the server."""
    return served.start()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """Yield a client without credentials."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client
