"""Real servers and the fixtures that several modules of the integration tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.share.share import Share
from reconciler.store.store import Lease, Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.receiver import Receiver, Said
from tests.harness.builder import Bench
from tests.harness.git_repo import Repo
from tests.harness.local_driver import Rig
from tests.harness.outbox import Post
from tests.harness.packed_share import Site


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database; tests run once for each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/groundcrew.db"
        return
    yield request.getfixturevalue("postgresql_url")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def lease(store: Store) -> Lease:
    lease = store.acquire("me", 60.0)
    assert lease is not None
    return lease


@pytest.fixture
def share(tmp_path: Path) -> Share:
    share = Share(tmp_path / "share")
    share.root.mkdir()
    share.prepare()
    return share


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a share with a build that has packs, and an interpreter beside it."""
    return Site(tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "environments")


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(answer: Callable[[str, str, bytes], Said] | None = None) -> Receiver:
        made.append(Receiver(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["2", "3"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with FakeAirflow(request.param) as airflow:
        yield Rig(airflow, tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Rig]:
    with FakeAirflow("3") as airflow:
        yield Rig(airflow, tmp_path)
