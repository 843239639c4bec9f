"""A base that changes while Airflow's version stays: its build, and the one it goes back to."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.model import Activation, Deployment, InstanceRecord, Records
from reconciler.core.phases import Step, Trigger
from reconciler.core.world import Draft, World
from reconciler.daemon.effects import InstanceEffects
from reconciler.share.share import Share
from tests.fakes.definitions import instance
from tests.harness.loader import Bases
from tests.harness.shares import DIGEST, A, B


class BaseOnly:
    """A driver that supports inspection only, for an interpreter of this machine."""

    def fingerprint(self, _instance: object) -> str:
        return "mark"

    def permit(self, _instance: object) -> None:
        """Permit everything."""

    def base(self, _instance: object) -> None:
        """Return None, as `Bases` inspects itself."""


class Patched:
    """An instance on build A whose base was patched since; B is built for the new base."""

    def __init__(self, tmp_path: Path) -> None:
        share = Share(tmp_path / "share")
        share.root.mkdir()
        share.prepare()
        self.site = Bases(tmp_path, share, sys.executable)
        (share.entry(DIGEST) / "entry.json").write_text("{}")
        self.before = self.site.point(A)
        share.mark_verified(A, self.before.key, {})
        self.site.install("more", "1.0")
        share.mark_verified(B, self.site.inspect().key, {})
        self.effects = InstanceEffects(
            share,
            lambda _base, _team: self.site.inspect(),
            lambda _: BaseOnly(),  # type: ignore[arg-type,return-value]
        )
        self.record = InstanceRecord(
            "dev",
            "red",
            instance("dev"),
            runtime=self.before,
            current=Deployment(A, runtime=self.before.key, load_into=("scheduler",)),
        )
        self.inspect()

    def inspect(self) -> None:
        """Inspect the base and record the result."""
        draft = Draft(World(100.0, Records(instances={"dev": self.record})))
        self.effects.inspect(self.record).apply(draft)
        self.record = draft.instances["dev"]

    def switch(self, step: Step, to_build: str | None) -> None:
        """Perform a step that moves the pointer, away from the current build."""
        activation = Activation(
            "id",
            replace(self.record.current, load_into=("scheduler",)),
            Deployment(to_build, load_into=("scheduler",)),
            Trigger.COMMIT,
            "r1",
            step,
            100.0,
            100.0,
            (("Switching", 100.0),),
        )
        record = replace(self.record, activation=activation)
        draft = Draft(World(101.0, Records(instances={"dev": record})))
        self.effects.perform(record, 101.0).apply(draft)
        after = draft.instances["dev"].activation
        assert after is not None
        assert after.step in (Step.RESTART, Step.RESTART_BACK), after.problem


@pytest.fixture
def patched(tmp_path: Path) -> Patched:
    return Patched(tmp_path)


def test_a_patched_base_is_recorded_on_the_build_that_it_goes_on_with(patched: Patched) -> None:
    """Nothing was built for it yet: its processes load the build of the earlier base."""
    record = patched.record
    assert record.runtime is not None
    assert record.runtime.key != patched.before.key
    assert (record.current.build, patched.site.loaded()) == (A, A)
    assert record.inherits


def test_going_back_on_a_patched_base_is_to_the_build_that_ran_there(patched: Patched) -> None:
    """It does not go back to the bare base: the pointer just loses its entry for the new base."""
    patched.switch(Step.SWITCH, B)
    assert patched.site.loaded() == B
    for _ in range(2):  # as after a kill
        patched.switch(Step.SWITCH_BACK, B)
        assert patched.site.loaded() == A


def test_a_patched_base_can_be_left_bare(patched: Patched) -> None:
    """If the environment is deleted before anything was built for it, it loads nothing."""
    patched.switch(Step.SWITCH, None)
    assert patched.site.loaded() == "none"
    patched.record = replace(patched.record, runtime=None)
    patched.inspect()
    assert patched.record.current.build is None
