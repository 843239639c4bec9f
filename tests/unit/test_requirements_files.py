"""Requirements files that an environment names: read as pip reads them, told at their own lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements

from gitsource.requirements_files import (
    FILES,
    LINES,
    LineKind,
    is_requirements_file,
    requirements_of,
)
from gitsource.validate import validate
from reconciler.core.definitions import Recipe
from reconciler.core.reasons import Reason
from tests.harness.git_repo import NOWHERE

EXAMPLE = Path(__file__).parents[2] / "environments.example"
RENOVATE = re.compile(r"(^|/)[\w-]*requirements([-.]\w+)?\.(txt|pip)$")
"""Files that Renovate's manager pip_requirements reads by default, as its documentation says."""

TYPICAL = """\
# what the team needs
humanize>=4.9,<5  # for reports
tabulate==0.9.0 ; python_version >= "3.9"
requests[socks]>=2 \\
    ,<3

\tpolars\r
numpy \\
# a comment ends the line that was continued
"""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """Return the folder of a team whose environment names requirements.txt on line 5."""
    folder = tmp_path / "teams/red"
    folder.mkdir(parents=True)
    spec = NOWHERE.replace("[humanize]", "[requirements.txt]")
    (folder / "one.yaml").write_text(spec)
    return folder


def recipe(team: Path) -> Recipe:
    """Return the recipe of the environment, which must have no finding."""
    definitions, findings = validate(team.parents[1])
    assert findings == []
    return definitions.environments["one"].recipe


def mistake(team: Path) -> tuple[str, Reason, str]:
    """Return place, reason and message of the only finding."""
    _, (finding,) = validate(team.parents[1])
    return str(finding.place), finding.reason, finding.message


def test_lines_are_those_that_pip_reads(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(TYPICAL, newline="")
    expected = [line.requirement for line in parse_requirements(str(file), PipSession())]
    lines = list(requirements_of(TYPICAL))
    assert {line.kind for line in lines} == {LineKind.REQUIREMENT}
    assert [line.text.split() for line in lines] == [line.split() for line in expected]
    assert [line.number for line in lines] == [2, 3, 4, 7, 8]


def test_a_file_adds_its_requirements_where_they_stand(team: Path) -> None:
    (team / "requirements.txt").write_text("-r more/base.txt\n\nhumanize<5 # why\n")
    (team / "more").mkdir()
    (team / "more/base.txt").write_text("tabulate\n-r ../requirements.txt\n")
    assert [(r.text, str(r.place)) for r in recipe(team).requirements] == [
        ("humanize<5", "teams/red/requirements.txt:3:1"),
        ("tabulate", "teams/red/more/base.txt:1:1"),
    ]


def test_constraints_that_a_file_names_hold(team: Path) -> None:
    (team / "requirements.txt").write_text("humanize\n--constraint=limits.txt\n")
    (team / "limits.txt").write_text("humanize<5\n")
    assert recipe(team).constraints == (("teams/red/limits.txt", "humanize<5"),)


def test_a_file_may_name_an_in_repo_package(team: Path) -> None:
    (team / "packages/etl").mkdir(parents=True)
    (team / "packages/etl/pyproject.toml").write_text("[project]\nname='etl'\nversion='1'\n")
    (team / "more").mkdir()
    (team / "more/base.txt").write_text("etl @ ../packages/etl\n")
    (team / "requirements.txt").write_text("-r more/base.txt\n")
    (package,) = recipe(team).packages
    assert package.path == "teams/red/packages/etl"


def test_the_digest_covers_what_a_file_says_and_not_its_comments(team: Path) -> None:
    file = team / "requirements.txt"
    digests = []
    for text in ("humanize\n", "# note\nhumanize  # why\n", "humanize<5\n"):
        file.write_text(text)
        digests.append(recipe(team).digest)
    assert digests[0] == digests[1] != digests[2]


def test_hashes_are_part_of_the_recipe(team: Path) -> None:
    """As pip-compile writes them, over several lines."""
    one, two = "1" * 64, "2" * 64
    lines = f"humanize==4.9.0 \\\n    --hash=sha256:{two} \\\n    --hash sha256:{one}\n    # via\n"
    (team / "requirements.txt").write_text(lines)
    hashed = recipe(team)
    assert [r.text for r in hashed.requirements] == ["humanize==4.9.0"]
    assert hashed.hashes == (("humanize", (one, two)),)
    (team / "requirements.txt").write_text("humanize==4.9.0\n")
    assert recipe(team).digest != hashed.digest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e ./packages/etl", "write an in-repo package as `etl @ ./packages/etl`"),
        ("git+https://h.example/etl.git", "commit its source and write `etl @ ./packages/etl`"),
        ("-i https://h.example/simple", "describe the index in the key `indexes`"),
        ("etl==1 --hash=sha256:aa", "write hashes as name==version --hash=sha256:DIGEST"),
        (f"etl --hash=sha256:{'0' * 64}", "write hashes as name==version"),
        (f"etl==1.* --hash=sha256:{'0' * 64}", "write hashes as name==version"),
        (f"etl==1 --hash=md5:{'0' * 32}", "write hashes as name==version"),
        (f"etl @ ./etl --hash=sha256:{'0' * 64}", "write hashes as name==version"),
        (f"etl==1 --hash=sha256:{'0' * 64} --pre", "write hashes as name==version"),
        ("-r https://h.example/r.txt", "save https://h.example/r.txt as a file"),
        ("-r ../blue/base.txt", "teams/blue/base.txt is outside teams/red/ and shared/"),
        ("-r /etc/base.txt", "/etc/base.txt is outside teams/red/ and shared/"),
        ("-c ../../limits.txt", "limits.txt is outside teams/red/ and shared/"),
        ("-r missing.txt", "teams/red/missing.txt is not in the repo; check the path"),
    ],
)
def test_a_line_that_cannot_hold_is_told_at_its_place(team: Path, line: str, message: str) -> None:
    (team / "requirements.txt").write_text(f"humanize\n{line}\n")
    location, _, said = mistake(team)
    assert location.startswith("teams/red/one.yaml:5:")
    assert said.startswith("teams/red/requirements.txt:2:1: ")
    assert message in said


def test_a_link_and_a_missing_file_are_told(team: Path) -> None:
    assert mistake(team)[1] is Reason.MISSING_FILE
    (team / "requirements.txt").symlink_to("/etc/passwd")
    assert "requirements.txt" in mistake(team)[2]


def test_the_number_of_lines_is_bounded(team: Path) -> None:
    lines = "".join(f"package-{n}\n" for n in range(LINES + 50))
    (team / "requirements.txt").write_text(lines)
    assert f"a file may have {LINES} requirements" in mistake(team)[2]
    one, two = team / "requirements.txt", team / "two.txt"
    one.write_text("-r two.txt\nhumanize\n")
    two.write_text("".join(f"package-{n}\n" for n in range(LINES)))
    assert f"an environment may have {LINES} requirements" in mistake(team)[2]


def test_the_number_of_files_is_bounded(team: Path) -> None:
    names = [f"part-{n}.txt" for n in range(FILES)]
    for name in names:
        (team / name).write_text("humanize\n")
    (team / "requirements.txt").write_text("".join(f"-r {name}\n" for name in names))
    assert f"an environment may have {FILES} requirements files" in mistake(team)[2]


@pytest.mark.parametrize("item", ["requirements.txt", "./requirements/base.in", "a-b.txt"])
def test_a_file_is_known_by_its_ending(item: str) -> None:
    assert is_requirements_file(item)


@pytest.mark.parametrize("item", ["pandas", "etl @ ./a.txt", "-r a.txt", "a.txt>=1", "h://a.txt"])
def test_anything_else_is_a_requirement(item: str) -> None:
    assert not is_requirements_file(item)


def test_the_examples_cover_the_files_of_each_team() -> None:
    """Dependabot's `directories` are globs of folders; Renovate finds files by its own pattern."""
    dependabot = yaml.safe_load((EXAMPLE / ".github/dependabot.yml").read_text())
    (update,) = dependabot["updates"]
    assert update["package-ecosystem"] == "pip"
    covered = {
        folder.relative_to(EXAMPLE).as_posix()
        for glob in update["directories"]
        for folder in EXAMPLE.glob(glob.removeprefix("/"))
    }
    assert {f"teams/{folder.name}" for folder in (EXAMPLE / "teams").iterdir()} <= covered
    renovate = json.loads((EXAMPLE / "renovate.json").read_text())
    assert "pip_requirements" in renovate["enabledManagers"]
    assert RENOVATE.search("teams/analytics/requirements.txt")
