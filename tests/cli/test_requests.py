"""End and outcome of `--wait`, derived from the records while a whole house goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from reconciler.cli.exit_codes import Exit
from reconciler.cli.sources.records import RecordsSource, status_of
from reconciler.cli.wait import Outcome, Waited, settled, wait_until_settled
from reconciler.core.definitions import Wave
from reconciler.core.events import Event
from reconciler.core.model import Change, Verb
from reconciler.settings import Settings
from reconciler.store.store import Store
from tests.fakes.definitions import environment, instance
from tests.fakes.events import event as stored_event
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn

DEV, ONE = "instance/dev", "environment/one"

# ---------------------------------------------------------------------------------- the refusals


def history(tmp_path: Path, *events: Event) -> RecordsSource:
    """Return records with these events."""
    store = Store(f"sqlite:///{tmp_path}/db")
    store.migrate()
    lease = store.acquire("me", 60)
    assert lease is not None
    store.write(lease, Change(events=events))
    store.close()
    return RecordsSource(Settings(database=f"sqlite:///{tmp_path}/db"))


def refusal(request: int, message: str) -> Event:
    data = {"request": request, "who": "someone"}
    return stored_event(1.0, "RequestRefused", "repo", "", "RequestRefused", message, data=data)


def confirmation() -> Waited:
    return Waited(7, Verb.CONFIRM_PRUNE, "", 0, 5.0)


def test_a_request_was_refused_whatever_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and the reason; the sentence need not name the verb."""
    with pytest.raises(typer.Exit) as ended:
        wait_until_settled(history(tmp_path, refusal(7, "not now")), confirmation())
    assert ended.value.exit_code == Exit.WRONG
    assert "confirm-prune: refused: not now" in capsys.readouterr().err


def test_the_refusal_of_another_request_is_not_this_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two people make the same request at once."""
    wait_until_settled(history(tmp_path, refusal(6, "confirm-prune: no")), confirmation())
    assert "confirm-prune: done" in capsys.readouterr().out


# ----------------------------------------------------------------------------------- the outcomes


def on_second_build() -> House:
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.settle()
    return house


def ask(house: House, verb: Verb, target: str) -> tuple[Outcome, set[str]]:
    """Ask for something, and go on until it is settled: its outcome, and the phases on the way."""
    house.ask(verb, target)
    waited = Waited(house.asked, verb, target, 0, 5.0, "g1@cp311-linux-1")
    phases: set[str] = set()
    for _ in range(400):
        turn(house, 1)
        shown = status_of(house.records, house.now)
        outcome = settled(waited, shown)
        if outcome is not None:
            return outcome, phases
        phases |= {one.phase for one in shown.instances}
        house.now += 1.0
    raise AssertionError("it is never settled")


def activation_of(house: House) -> object:
    return house.records.instances["dev"].activation


def test_a_rollback_is_settled_when_the_instance_is() -> None:
    """Not when the daemon has taken it."""
    house = on_second_build()
    outcome, phases = ask(house, Verb.ROLLBACK, DEV)
    assert outcome == Outcome(is_good=True, message="dev runs g1@cp311-linux-1")
    assert {"Draining", "Restarting", "Probing"} <= phases
    assert activation_of(house) is None


@pytest.mark.parametrize("fault", ["restart", "shut"])
def test_a_rollback_that_fails_has_ended_badly(fault: str) -> None:
    """Going back from it worked or did not: the instance is not where it was to be."""
    house = on_second_build()
    house.faults.add(fault)
    outcome, _ = ask(house, Verb.ROLLBACK, DEV)
    assert not outcome.is_good
    assert "[" in outcome.message, "it says why"


def test_a_rollback_that_is_suspended_has_ended_badly() -> None:
    """It is not carried out until someone resumes."""
    house = on_second_build()
    house.ask(Verb.SUSPEND, DEV)
    turn(house)
    outcome, _ = ask(house, Verb.ROLLBACK, DEV)
    assert outcome == Outcome(is_good=False, message="dev: it waits on: suspended: the instance")


@pytest.mark.parametrize("target", [DEV, ONE])
@pytest.mark.parametrize(("digest", "is_good"), [("g3", True), ("l3", False), ("r3", False)])
def test_a_resume_is_settled_with_what_was_held_up(
    target: str, digest: str, *, is_good: bool
) -> None:
    """The build is made and activated; one that fails, or is rolled back, has ended badly."""
    house = on_second_build()
    house.ask(Verb.SUSPEND, target)
    ask_for(house, digest)
    turn(house)
    outcome, _ = ask(house, Verb.RESUME, target)
    assert outcome.is_good == is_good, outcome
    assert activation_of(house) is None


@pytest.mark.parametrize("target", [DEV, ONE])
def test_a_suspension_lets_what_runs_end(target: str) -> None:
    """Only then is it settled."""
    house = on_second_build()
    ask_for(house, "g3")
    while house.switched < 3:
        turn(house, 1)
    assert activation_of(house) is not None
    outcome, phases = ask(house, Verb.SUSPEND, target)
    assert outcome.is_good
    assert phases
    assert activation_of(house) is None


def test_a_retry_is_settled_with_the_next_try() -> None:
    """It ends well once what was wrong is mended, and badly while it is not."""
    house = on_second_build()
    house.faults.add("image")
    ask_for(house, "g3")
    turn(house, 60)
    outcome, _ = ask(house, Verb.RETRY, DEV)
    assert not outcome.is_good
    assert "[ImagePull]" in outcome.message
    house.faults.clear()
    outcome, _ = ask(house, Verb.RETRY, DEV)
    assert outcome == Outcome(is_good=True, message="")
    assert house.records.instances["dev"].current.build == "g3@cp311-linux-1"


def test_a_refresh_is_settled_with_its_build() -> None:
    """It is resolved anew before that."""
    house = on_second_build()
    outcome, _ = ask(house, Verb.REFRESH, ONE)
    assert outcome.is_good
    assert all(build.phase == "Ready" for build in house.records.builds.values())


def test_a_confirmed_loss_is_settled_on_the_bare_base() -> None:
    """The instances of environments that went away have been taken back."""
    house = house_of("dev", "test", "prod")
    for name in ("two", "three"):
        house.join(instance(f"{name}-dev"))
        house.environments[name] = environment(name, "g1", (Wave((f"{name}-dev",)),))
    house.commit()
    house.settle()
    for name in ("one", "two", "three"):
        del house.environments[name]
    house.commit()
    turn(house)
    assert house.records.repo.held is not None
    outcome, _ = ask(house, Verb.CONFIRM_PRUNE, "")
    assert outcome.is_good
    assert {i.current.build for i in house.records.instances.values()} == {None}


def test_an_object_that_goes_away_meanwhile_has_ended_badly() -> None:
    """There is nothing to wait for any more."""
    house = on_second_build()
    nothing: dict[str, list[object]] = {"instances": [], "environments": []}
    shown = status_of(house.records, house.now).model_copy(update=nothing)
    for verb, target in ((Verb.ROLLBACK, DEV), (Verb.RETRY, ONE)):
        outcome = settled(Waited(1, verb, target, 0, 5.0), shown)
        assert outcome == Outcome(is_good=False, message="the object is no longer defined")
