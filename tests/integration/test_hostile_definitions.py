"""Files that take long to read only delay their own team, and a team's commits have limits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gitsource import assemble as assembling
from gitsource import parsers, recipe, shared_files, team_sizes
from gitsource.assemble import Assembly
from gitsource.constraints import Constraint
from gitsource.objects import wrong_content
from gitsource.parsers import IsolatedParser, Text, Timed
from gitsource.tree import Checkout, Entry, Tree
from gitsource.typed import ReadFile
from reconciler.core.definitions import Commit, Definitions
from reconciler.core.reasons import Reason
from reconciler.isolation import Limits, Pool, TooExpensive

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


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(Limits(cpu=1))
    yield pool
    pool.close()


@pytest.fixture
def parser(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> IsolatedParser:
    monkeypatch.setattr(parsers, "read_texts", slow_texts)
    monkeypatch.setattr(parsers, "read_constraints", slow_constraints)
    return IsolatedParser(pool, team_seconds=1.5)


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


def texts(repo: Repo, *sizes: int) -> list[str]:
    """Write environments of team red with a DAG file of each size; return their paths."""
    paths = []
    for number, size in enumerate(sizes):
        paths.append(repo.write("red", f"e{number}", spec=f"  checks: {{dags: [{number}.py]}}\n"))
        (repo.root / "teams" / "red" / f"{number}.py").write_text("#" * size)
    return paths


def test_the_environments_of_a_team_have_so_much_room_together(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, parser: IsolatedParser
) -> None:
    """The first ones in the order of their paths have it, whatever was read before."""
    monkeypatch.setattr(team_sizes, "TEAM_BYTES", 35_000)
    paths = texts(repo, *[10_000] * 5)
    repo.write("blue", "other")

    def read(*changed: str) -> tuple[set[str], dict[str, str]]:
        definitions = repo.read(*changed)
        fresh = Assembly(parser=parser).update(Checkout(repo.root), Commit("r"))
        assert definitions == fresh, "the same as for a daemon that starts now"
        return set(definitions.environments), reasons(definitions)

    tail = dict.fromkeys(paths[3:], "TooLarge")
    assert read() == ({"e0", "e1", "e2", "other"}, tail)
    first = repo.write("red", "a", spec="  checks: {dags: [0.py]}\n")
    assert read(first) == ({"a", "e0", "e1", "other"}, {paths[2]: "TooLarge", **tail})
    (repo.root / "teams" / "red" / "1.py").write_text("")
    assert read("teams/red/1.py") == ({"a", "e0", "e1", "e2", "other"}, tail)
    (repo.root / first).unlink()
    (repo.root / "teams" / "red" / "0.py").write_text("")
    assert read(first, "teams/red/0.py")[0] == {"e0", "e1", "e2", "e3", "e4", "other"}
    assert not repo.read().findings


def test_a_finding_for_too_little_room_names_file_and_remedy(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_sizes, "TEAM_BYTES", 1 << 20)
    texts(repo, 900_000, 900_000)
    (finding,) = repo.read().findings
    assert str(finding.place) == "teams/red/e1.yaml:1:1"
    assert "larger than 1.00 MiB together" in finding.message
    assert "make constraints and DAG checks smaller" in finding.message


def test_what_is_too_large_for_a_team_is_not_read_into_memory(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there are few or many files beyond the limit, the same number of them is merged."""
    monkeypatch.setattr(team_sizes, "TEAM_BYTES", 35_000)
    merged: list[str] = []

    def merge(read: ReadFile, *more: object) -> object:
        merged.append(read.path)
        return recipe.merge(read, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(assembling, "merge", merge)
    texts(repo, *[10_000] * 30)
    repo.read()
    assert len(merged) == 4


def test_the_daemon_works_for_a_team_for_one_turn_at_a_time(
    repo: Repo, parser: IsolatedParser
) -> None:
    """The rest is read in the next turns, without a new commit; others do not wait."""
    parser.own_seconds = 0.0
    red = [repo.write("red", f"e{number}") for number in range(3)]
    repo.write("blue", "other")
    turns = [repo.read() for _ in range(3)]
    assert [set(one.environments) for one in turns] == [
        {"e0", "other"},
        {"e0", "e1", "other"},
        {"e0", "e1", "e2", "other"},
    ]
    assert reasons(turns[0]) == dict.fromkeys(red[1:], "TooExpensive")
    assert "goes on at the next poll" in turns[0].findings[0].message
    assert not turns[2].findings
    assert not parser.deferred()


def test_constraints_that_cannot_be_read_cost_their_time_once(
    repo: Repo, parser: IsolatedParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many environments name them."""
    asked: list[str] = []

    def refuse(path: str, text: str) -> list[Constraint]:
        asked.append(path)
        raise TooExpensive(f"{path}: it takes too long")

    monkeypatch.setattr(IsolatedParser, "constraints", lambda _, path, text: refuse(path, text))
    (repo.root / "teams" / "red").mkdir(parents=True)
    (repo.root / "teams" / "red" / "c.txt").write_text("numpy<2\n")
    for number in range(3):
        repo.write("red", f"e{number}", spec="  constraints: [c.txt]\n")
    assert set(reasons(repo.read()).values()) == {"TooExpensive"}
    assert asked == ["teams/red/c.txt"]


def test_a_constraints_file_has_so_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "CONSTRAINTS", 2)
    lines, _ = read_constraints("a<1\n" * 5)
    assert [(number, bool(wrong)) for number, _, wrong in lines] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    monkeypatch.setattr(parsers, "CONSTRAINTS", 500)
    lines, _ = read_constraints("-r x\n" * 100)
    assert len(lines) == 20


def test_a_package_is_looked_through_once_for_all_environments(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(tree: Tree, entry: Entry) -> object:
        looked.append(entry.path)
        return wrong_content(tree, entry)

    monkeypatch.setattr(shared_files, "wrong_content", look)
    package = repo.root / "teams" / "red" / "packages" / "one"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text("[project]\nname = 'one'\nversion = '1'\n")
    for number in range(3):
        file = repo.root / repo.write("red", f"e{number}")
        file.write_text(file.read_text().replace("[humanize]", '["one @ ./packages/one"]'))
    assert len(repo.read().environments) == 3
    assert looked == ["teams/red/packages/one/pyproject.toml"]


def test_the_packages_of_an_environment_have_so_many_files_together(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages inside of packages would count the same files again and again."""
    monkeypatch.setattr(recipe, "PACKAGES_FILES", 5)
    names = ["a", "a/b", "a/b/c"]
    for name in names:
        folder = repo.root / "teams" / "red" / "packages" / name
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text("")
    bad = repo.write("red", "bad")
    wanted = ", ".join(f'"p{n} @ ./packages/{name}"' for n, name in enumerate(names))
    file = repo.root / bad
    file.write_text(file.read_text().replace("[humanize]", f"[{wanted}]"))
    (finding,) = repo.read().findings
    assert finding.reason == "TooLarge"
    assert "5 files together" in finding.message


def test_the_indexes_of_an_environment_have_so_many_globs(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name of a package is compared with all of them."""
    monkeypatch.setattr(recipe, "GLOBS", 3)
    index = "{{name: i{}, url: 'https://x.example/', packages: [{}]}}"
    several = [index.format(n, f"'*a{n}*', 'b{n}'") for n in range(2)]
    bad = repo.write("red", "bad", spec=f"  indexes: [{', '.join(several)}]\n")
    good = repo.write("red", "good", spec=f"  indexes: [{several[0]}]\n")
    assert reasons(repo.read()) == {bad: "TooLarge"}
    assert good not in reasons(repo.read())


def test_the_findings_of_many_files_do_not_grow_with_their_number_squared(repo: Repo) -> None:
    """Forty files with the same name: each finding names a few of the others."""
    for number in range(40):
        path = repo.root / repo.write("red", f"file-{number:02}")
        path.write_text(path.read_text().replace(f"file-{number:02}", "same"))
    findings = repo.read().findings
    assert len(findings) == 40
    assert all("and 34 more" in finding.message for finding in findings)


def test_an_environment_has_so_many_findings(repo: Repo) -> None:
    wanted = ", ".join(f'"p{n} @ ./packages/p{n}"' for n in range(100))
    file = repo.root / repo.write("red", "bad")
    file.write_text(file.read_text().replace("[humanize]", f"[{wanted}]"))
    assert len(repo.read().findings) == 20


def test_a_fragment_is_included_once(repo: Repo) -> None:
    """Fifty times the same fragment would make a small file a large environment."""
    (repo.root / "shared").mkdir()
    (repo.root / "shared" / "platform.yaml").write_text(
        "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: platform}\n"
        "spec: {requirements: [boto3]}\n"
    )
    bad = repo.write("red", "bad", spec="  extends: [platform, platform]\n")
    (finding,) = repo.read().findings
    assert (finding.place.file, finding.reason) == (bad, "InvalidValue")
    assert finding.message == "platform is in extends twice; keep one"
