"""Names and counts of one team affect that team alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gitsource.validate import validate
from reconciler.core import accept
from reconciler.core.definitions import Commit, Definitions, Environment, Wave
from reconciler.core.model import EnvironmentRecord, Verb
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House
from tests.harness.git_repo import NOWHERE

RED, BLUE = Wave(("red-dev",)), Wave(("blue-dev",))


class Contested(House):
    """House in whose repo two files define `one`."""

    rivals: tuple[Environment, ...] = ()

    def definitions(self) -> Definitions | None:
        """Return the revision that was read, with the names that several files claim."""
        definitions = super().definitions()
        if definitions is None or not self.rivals:
            return definitions
        several = (definitions.environments["one"], *self.rivals)
        others = {name: one for name, one in definitions.environments.items() if name != "one"}
        return replace(definitions, environments=others, contested={"one": several})


def house_of_two_teams() -> Contested:
    """Return a house where red has `one` and blue has `two`, each on its own instance."""
    house = Contested()
    for team in ("red", "blue"):
        house.join(instance(f"{team}-dev", team))
    house.environments["one"] = environment("one", "g1", (RED,))
    house.environments["two"] = environment("two", "g2", (BLUE,), "blue")
    house.commit()
    house.settle()
    return house


def test_a_name_stays_with_the_environment_that_had_it_first() -> None:
    """Another team's file of the same name stalls nothing: the owner's next commit counts."""
    house = house_of_two_teams()
    house.rivals = (environment("one", "g9", (BLUE,), "blue"),)
    house.environments["one"] = environment("one", "g3", (RED,))
    house.commit()
    house.settle()
    assert house.airflow["red-dev"].running == "g3@cp311-linux-1"
    assert house.airflow["blue-dev"].running == "g2@cp311-linux-1"
    assert house.records.environments["one"].problem is None


def test_a_name_that_nobody_had_goes_to_nobody() -> None:
    """Both files are new: neither counts until one of them is renamed."""
    house = Contested()
    house.join(instance("red-dev"))
    house.rivals = (environment("one", "g9", (), "blue"),)
    house.environments["one"] = environment("one", "g1", (RED,))
    house.commit()
    house.settle()
    assert "one" not in house.records.environments


def test_the_reader_tells_which_files_claim_a_name(tmp_path: Path) -> None:
    """Each of them has a finding until it is known who owns the name."""
    for team in ("red", "blue"):
        file = tmp_path / "teams" / team / "one.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(NOWHERE)
    definitions, findings = validate(tmp_path)
    assert "one" not in definitions.environments
    assert [one.team for one in definitions.contested["one"]] == ["blue", "red"]
    assert {f.reason for f in findings} == {"DuplicateName"}


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_teams_loss_holds_that_team_only(confirmed: bool) -> None:
    """While the guard holds one team's eight environments back, all others keep working."""
    house = house_of_two_teams()
    for number in range(8):
        name = f"empty-{number}"
        house.environments[name] = environment(name, "g1", (), "blue")
    house.commit()
    house.settle()
    for number in range(8):
        del house.environments[f"empty-{number}"]
    house.environments["one"] = environment("one", "g5", (RED,))
    house.commit()
    if confirmed:
        house.ask(Verb.CONFIRM_PRUNE, "")
    house.settle()
    assert house.airflow["red-dev"].running == "g5@cp311-linux-1"
    held = {name for name in house.records.environments if name.startswith("empty")}
    if confirmed:
        assert not held
        assert house.records.repo.source_problem is None
    else:
        assert len(held) == 8
        assert house.records.repo.source_problem is not None
        assert "of the objects of team blue" in house.records.repo.source_problem.message


def test_a_team_cannot_fill_the_records_with_what_it_no_longer_defines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Removals that wait for an operator, and more of them with each commit."""
    monkeypatch.setattr(accept, "TEAM_ENVIRONMENTS", 4)
    house = house_of_two_teams()
    for turn in range(5):
        house.environments = {
            **{f"r{turn}-{n}": environment(f"r{turn}-{n}", "g1", ()) for n in range(3)},
            "two": house.environments["two"],
        }
        house.commit()
        house.settle()
    recorded = [e for e in house.records.environments.values() if e.team == "red"]
    assert len(recorded) <= 4 + 3
    refused = [f for f in house.records.repo.findings if f.reason == "TooLarge"]
    assert {f.team for f in refused} == {"red"}
    assert "confirm-prune" in refused[0].message
    house.environments["two"] = environment("two", "g5", (BLUE,), "blue")
    house.commit()
    house.settle()
    assert house.airflow["blue-dev"].running == "g5@cp311-linux-1", "others go on"


def test_sizes_count_like_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "TEAM_BYTES", 1000)
    known = {
        name: EnvironmentRecord(
            name, "red", replace(environment(name, "g1", ()), size=600), Commit("r")
        )
        for name in ("one", "two")
    }
    new = {"three": environment("three", "g1", ()), "four": environment("four", "g1", (), "blue")}
    left = accept.with_room(Definitions(Commit("s"), new), known)
    assert set(left.environments) == {"four"}
    (finding,) = left.findings
    assert finding.object == "Environment/three"
    known.pop("two")
    assert set(accept.with_room(Definitions(Commit("s"), new), known).environments) == set(new)
