"""Command `groundcrew init`: its output is valid, and nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gitsource.validate import validate
from reconciler.builder.uv import uv_path
from reconciler.demo.repo import DEFINITION
from tests.harness.local_daemon import IDENTITY

ROOT = Path(__file__).resolve().parents[2]


def init(directory: Path, *words: str) -> tuple[int, str]:
    """Return (exit code, output)."""
    done = subprocess.run(
        [sys.executable, "-m", "reconciler.cli", "init", str(directory), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def files(directory: Path) -> set[str]:
    """Return the files, without git's own."""
    paths = (p.relative_to(directory) for p in directory.rglob("*") if p.is_file())
    return {str(p) for p in paths if p.parts[0] != ".git"}


@pytest.mark.parametrize("team", ["analytics", "data", "x"])
@pytest.mark.parametrize("on", ["kubernetes", "local"])
def test_what_is_written_is_accepted(on: str, team: str, tmp_path: Path) -> None:
    """One environment and two instances, of that team and that kind, and no finding."""
    repo = tmp_path / "repo"
    code, said = init(repo, "--team", team, "--on", on)
    assert code == 0, said
    definitions, findings = validate(repo)
    assert findings == []
    assert set(definitions.environments) == {team}
    assert set(definitions.instances) == {f"{team}-dev", f"{team}-prod"}
    for instance in definitions.instances.values():
        assert instance.team == team
        assert (instance.kubernetes is not None) == (on == "kubernetes")
        assert instance.api.credentials == f"{team}-airflow"
    if team != "analytics":
        assert "analytics" not in "".join((repo / f).read_text() for f in files(repo))
    if on == "kubernetes":
        spaces = {i.kubernetes.namespace for i in definitions.instances.values() if i.kubernetes}
        assert spaces == {f"airflow-{team}-dev", f"airflow-{team}-prod"}


@pytest.mark.parametrize(
    ("ci", "there"),
    [
        ("github", {".github/workflows/groundcrew.yml", ".github/dependabot.yml"}),
        ("gitlab", {".gitlab-ci.yml", "renovate.json"}),
        ("none", set()),
    ],
)
def test_the_ci_of_one_forge_is_written(ci: str, there: set[str], tmp_path: Path) -> None:
    """The README also mentions only that one."""
    code, _ = init(tmp_path / "repo", "--ci", ci)
    written = files(tmp_path / "repo")
    assert code == 0
    assert {name for name in written if "git" in name or "renovate" in name} == there
    readme = (tmp_path / "repo" / "README.md").read_text()
    assert ("In CI" in readme) == bool(there)
    assert all(name in readme for name in there)
    assert "Copy this directory" not in readme


def test_it_is_a_git_repository_ready_to_commit(tmp_path: Path) -> None:
    """It is on branch main, without commits or ignored files; the next steps are printed."""
    repo = tmp_path / "repo"
    code, said = init(repo)
    assert code == 0
    for step in ("groundcrew validate", "git.url", "groundcrew doctor"):
        assert step in said

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=repo, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    assert git("symbolic-ref", "HEAD").strip() == "refs/heads/main"
    git("add", ".")
    git(*IDENTITY, "commit", "-q", "-m", "first")
    assert set(git("ls-files").split()) == files(repo)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A directory with a file is left alone; an empty one and a fresh clone are accepted."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    code, said = init(full)
    assert (code, files(full)) == (2, {"mine"})
    assert "not empty" in said
    code, said = init(full / "mine")
    assert code == 2
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True, timeout=60)
    assert init(clone)[0] == 0
    assert init(clone)[0] == 2


@pytest.mark.parametrize("team", ["", "Data", "a_b", "../x", "-x", "x" * 60, "a b"])
def test_a_team_that_cannot_be_one(team: str, tmp_path: Path) -> None:
    """Exit 2, and nothing is written."""
    code, said = init(tmp_path / "repo", f"--team={team}")
    assert code == 2, said
    assert not (tmp_path / "repo").exists()
    assert "Traceback" not in said


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A message, not a traceback."""
    (tmp_path / "file").write_text("")
    code, said = init(tmp_path / "file" / "repo")
    assert code == 3
    assert "Traceback" not in said


DEMO = """\
import sys
from pathlib import Path
from reconciler import example
from reconciler.demo.repo import Repo
with example.example() as source:
    Repo(Path(sys.argv[1]), source, "apiVersion: groundcrew/v1")
print(example.__file__)
"""


def test_the_wheel_brings_the_example(tmp_path: Path) -> None:
    """Outside a checkout, init and the demo write the same from it as in one."""
    site = tmp_path / "site"
    subprocess.run(
        [uv_path(), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)],
        check=True,
        timeout=120,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)

    def told(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words],
            env=os.environ | {"PYTHONPATH": str(site)},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    told("-m", "reconciler.cli", "init", str(tmp_path / "installed"))
    assert init(tmp_path / "checkout")[0] == 0
    assert files(tmp_path / "installed") == files(tmp_path / "checkout")
    assert told("-c", DEMO, str(tmp_path / "demo")).startswith(str(site))
    assert (tmp_path / "demo" / DEFINITION).is_file()
