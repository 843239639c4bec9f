"""An index that asks for a pause gets it: the next try waits, and the status says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.files import fetch_files
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.resolve.index_faults import fault_of
from reconciler.core.builds import BuildOutcome
from reconciler.core.definitions import FileItem, Place, Recipe, Wave
from reconciler.core.errors import Retryable
from reconciler.core.model import Problem
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from reconciler.core.world import Effect
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share
from tests.fakes.answers import Answers
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

PLACE = Place("teams/red/one.yaml", 5, 3)


@pytest.fixture(params=[429, 503])
def busy(request: pytest.FixtureRequest) -> Iterator[Answers]:
    with Answers(b"", {"Retry-After": "120"}, request.param) as server:
        yield server


def test_a_page_of_an_index(busy: Answers) -> None:
    indexes = Indexes(Recipe("x"), "red", Path("/nowhere"), f"{busy.url}/simple/")
    with indexes.serve(None) as url:
        httpx.get(f"{url}a/", timeout=60)
    indexes.close()
    fault = fault_of(indexes, Recipe("x"), PLACE)
    assert isinstance(fault, Retryable)
    assert (fault.reason, fault.after) == ("IndexUnreachable", 120.0)
    assert "and asks for 2m 00s until the next request" in fault.message


def test_a_file_that_a_definition_names(busy: Answers, tmp_path: Path) -> None:
    share = Share(tmp_path / "share")
    share.root.mkdir()
    share.prepare()
    recipe = Recipe("x", files=(FileItem("0" * 64, url=f"{busy.url}/tool", path="bin/tool"),))
    job = BuildJob("k", "one", "red", "r", tmp_path / "log", threading.Event())
    settings = BuilderSettings(allow_hosts=(busy.url.removeprefix("http://"),))
    with pytest.raises(Retryable, match="asks for 2m 00s") as caught:
        fetch_files(job, recipe, settings, share, tmp_path / "cache", tmp_path)
    assert caught.value.after == 120.0


class Busy(House):
    """House whose index asks for two minutes until the next request."""

    tries: int = 0

    def _build(self, effect: Effect, halfway: bool) -> BuildOutcome:
        self.tries += 1
        problem = Problem(Reason.INDEX_UNREACHABLE, "it asks for 2m 00s until the next request")
        return BuildOutcome(effect.kind, problem, retry_after=120.0)

    def turn(self) -> None:
        """Run a cycle and what it starts."""
        self.read = True
        self.cycle()
        for key in list(self.under_way):
            self.act(key)
        self.take_reports()
        self.now += 1.0


def test_the_next_try_of_a_build_waits_for_so_long() -> None:
    house = Busy()
    house.join(instance("red-dev"))
    house.environments["one"] = environment("one", "g1", (Wave(("red-dev",)),))
    house.commit()
    while not house.tries:
        house.turn()
    (build,) = house.records.builds.values()
    due = build.not_before
    assert due - house.now > 118.0
    shown = status(house.definitions(), house.records, house.now).environments[0]
    assert "asks for 2m 00s" in shown.message
    while house.now < due:
        assert house.tries == 1
        house.turn()
    house.turn()
    assert house.tries == 2
