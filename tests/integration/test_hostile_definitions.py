"""Files that take long to read only delay their own team, and a team's commits have limits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gitsource import assemble as assembling
from gitsource import parsers
from gitsource.assemble import Assembly
from gitsource.constraints import Constraint
from gitsource.parsers import IsolatedParser, Text, Timed
from gitsource.tree import Checkout
from reconciler.core.definitions import Commit, Definitions
from reconciler.core.reasons import Reason
from reconciler.isolation import Limits, Pool

ENDLESS = "# takes for ever"
read_texts, read_constraints = parsers.read_texts, parsers.read_constraints


def slow_texts(texts: Sequence[Text]) -> list[Timed]:
    """Read as usual, but slowly for a text that represents the next quadratic surprise."""
    spin(any(ENDLESS.encode() in text.data for text in texts))
    return read_texts(texts)


def slow_constraints(text: str) -> tuple[list[Constraint], float]:
    spin(ENDLESS in text)
    return read_constraints(text)


def spin(endless: bool) -> None:
    while endless:
        time.process_time()


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedParser]:
    monkeypatch.setattr(parsers, "read_texts", slow_texts)
    monkeypatch.setattr(parsers, "read_constraints", slow_constraints)
    pool = Pool(Limits(cpu=1))
    yield IsolatedParser(pool, team_seconds=1.5)
    pool.close()


class Repo:
    """A checkout with environments by team."""

    def __init__(self, root: Path, parser: IsolatedParser) -> None:
        self.root = root
        self._assembly = Assembly(parser=parser)
        self._first = True

    def write(self, team: str, name: str, more: str = "", spec: str = "") -> str:
        path = f"teams/{team}/{name}.yaml"
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"apiVersion: groundcrew/v1\nkind: Environment\nmetadata: {{name: {name}}}\n"
            f"spec:\n  requirements: [humanize]\n{spec}{more}\n"
        )
        return path

    def read(self, *changed: str) -> Definitions:
        tree, first = Checkout(self.root), self._first
        self._first = False
        return self._assembly.update(tree, Commit("r"), None if first else changed)


@pytest.fixture
def repo(tmp_path: Path, parser: IsolatedParser) -> Repo:
    return Repo(tmp_path, parser)


def reasons(found: Definitions) -> dict[str, str]:
    return {finding.place.file: finding.reason for finding in found.findings}


def test_a_file_that_takes_too_long_is_the_only_one_that_is_not_read(repo: Repo) -> None:
    """It is read in one batch with files of its own team and of another."""
    bad = repo.write("red", "bad", ENDLESS)
    repo.write("red", "good")
    repo.write("blue", "other")
    definitions = repo.read()
    assert set(definitions.environments) == {"good", "other"}
    assert reasons(definitions) == {bad: "TooExpensive"}


def test_a_team_has_so_much_time_for_a_revision(repo: Repo) -> None:
    """Files beyond that time are not read; the next revision tries those again."""
    bad = [repo.write("red", f"bad-{number}", ENDLESS) for number in range(4)]
    good = repo.write("red", "late")
    repo.write("blue", "other")
    definitions = repo.read()
    assert set(definitions.environments) == {"other"}
    assert reasons(definitions) == dict.fromkeys([*bad, good], "TooExpensive")
    unread = {f.place.file for f in definitions.findings if "not read" in f.message}
    assert good in unread
    assert len(unread) == 3
    for path in sorted(unread - {good}):
        (repo.root / path).unlink()
    definitions = repo.read(*(unread - {good}))
    assert set(definitions.environments) == {"late", "other"}, (
        "the two that are known are not read again"
    )


def test_constraints_that_take_too_long_are_a_finding(repo: Repo) -> None:
    (repo.root / "teams" / "red").mkdir(parents=True)
    (repo.root / "teams" / "red" / "constraints.txt").write_text(f"numpy<2\n{ENDLESS}\n")
    bad = repo.write("red", "bad", spec="  constraints: [constraints.txt]\n")
    repo.write("red", "good")
    definitions = repo.read()
    assert set(definitions.environments) == {"good"}
    assert reasons(definitions) == {bad: "TooExpensive"}
    assert "constraints.txt" in definitions.findings[0].message


def test_a_team_has_so_many_environments(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are not read, and nothing in the folder counts as deleted because of that."""
    monkeypatch.setattr(assembling, "TEAM_FILES", 3)
    paths = [repo.write("red", f"e{number}") for number in range(5)]
    repo.write("blue", "other")
    definitions = repo.read()
    assert set(definitions.environments) == {"e0", "e1", "e2", "other"}
    (finding,) = definitions.findings
    assert (finding.place.file, finding.reason, finding.team) == (
        "teams/red/",
        Reason.TOO_LARGE,
        "red",
    )
    assert "5 environments" in finding.message
    for path in paths[:2]:
        (repo.root / path).unlink()
    definitions = repo.read(*paths[:2])
    assert set(definitions.environments) == {"e2", "e3", "e4", "other"}
    assert not definitions.findings


def test_the_texts_of_an_environment_have_an_end_together(repo: Repo) -> None:
    """A file that is named many times counts each time."""
    (repo.root / "teams" / "red").mkdir(parents=True)
    (repo.root / "teams" / "red" / "dag.py").write_text("#" * (900 << 10))
    bad = repo.write("red", "bad", spec=f"  checks: {{dags: [{', '.join(['dag.py'] * 3)}]}}\n")
    definitions = repo.read()
    assert reasons(definitions) == {bad: "TooLarge"}
