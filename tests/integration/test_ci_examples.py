"""The example CI files of an environments repo, checked by their schemas and really run.

`gh` and `pip` are stand-ins that record their arguments; git, groundcrew and python-gitlab are
real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.fakes.receiver import JSON, Receiver, Said

EXAMPLE = Path(__file__).resolve().parents[2] / "environments.example"
GITHUB = EXAMPLE / ".github/workflows/groundcrew.yml"
GITLAB = EXAMPLE / ".gitlab-ci.yml"
MARK = "<!-- groundcrew plan -->"
NOTED = '#!/bin/sh\necho "$(basename "$0") $*" >> "$NOTES"\n{more}\n'


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        (GITHUB, ["--builtin-schema", "vendor.github-workflows"]),
        (GITLAB, ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
    ids=["github", "gitlab"],
)
def test_the_file_is_what_its_forge_takes(file: Path, schema: list[str]) -> None:
    """The forge's published schema accepts it."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Runner:
    """A checkout of a pull request that changes the example, and a shell as on the forges."""

    def __init__(self, root: Path) -> None:
        self.repo = root / "repo"
        self.notes = root / "notes"
        self.notes.touch()
        self.bin = root / "bin"
        self.bin.mkdir()
        shutil.copytree(EXAMPLE, self.repo)
        origin = root / "origin.git"
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("first")
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", str(self.repo), str(origin)], check=True
        )
        self.git("remote", "add", "origin", str(origin))
        self.git("fetch", "--quiet", "origin")
        self.git("checkout", "--quiet", "-b", "change")
        self.tool("pip")
        self.env = {
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(root),
            "NOTES": str(self.notes),
            "LC_ALL": "C.UTF-8",
        }

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=A. Author", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.repo, check=True, timeout=60)

    def commit(self, subject: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", subject)

    def tool(self, name: str, more: str = "") -> None:
        path = self.bin / name
        path.write_text(NOTED.format(more=more))
        path.chmod(0o755)

    def definition(self, old: str, new: str) -> None:
        path = self.repo / "teams/analytics/analytics.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        self.commit("change")

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.repo,
            env=self.env | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def noted(self) -> str:
        return self.notes.read_text()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def step(name: str) -> str:
    """Return the script of a step of the GitHub workflow."""
    steps: list[dict[str, Any]] = yaml.safe_load(GITHUB.read_text())["jobs"]["plan"]["steps"]
    (script,) = [s["run"] for s in steps if s.get("name") == name]
    return str(script)


ADDRESS = "groundcrew-airflow @ git+https://git.example.com/platform/groundcrew@v0.1.0"


def test_only_the_platform_teams_groundcrew_is_installed(runner: Runner) -> None:
    """Nothing is installed by name alone: without an address the job fails."""
    gitlab = yaml.safe_load(GITLAB.read_text())["plan"]["script"][0]
    for script, name in ((step("Install"), "PACKAGE"), (gitlab, "GROUNDCREW_PACKAGE")):
        refused = runner.run(script)
        assert refused.returncode != 0
        assert "variable" in refused.stderr
        assert runner.noted() == ""
        assert runner.run(script, **{name: ADDRESS}).returncode == 0
        assert ADDRESS in runner.noted()
        runner.notes.write_text("")


def test_no_page_installs_by_name_alone() -> None:
    """An extra does not help: every page gives an address."""
    root = EXAMPLE.parent
    named = re.compile(
        r"""pip install[^\n`]*[\s'"]groundcrew(-airflow)?(\[|['"\s`]|$)""", re.MULTILINE
    )
    texts = [
        path
        for top in ("docs", "reconciler", "metrics", "environments.example", "deploy")
        for path in (root / top).rglob("*")
        if path.suffix in (".md", ".py", ".yml", ".yaml", ".html", ".txt")
    ]
    assert len(texts) > 100
    matches = {path: named.findall(path.read_text()) for path in [*texts, root / "README.md"]}
    assert {path: names for path, names in matches.items() if names} == {}


def github_plan(runner: Runner) -> str:
    """Run the workflow's plan; return the exit code that it records."""
    summary, output = runner.repo.parent / "summary", runner.repo.parent / "output"
    done = runner.run(
        step("Plan"),
        BASE="origin/main",
        RUNTIMES="",
        GROUNDCREW_TOKEN="",
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_OUTPUT=str(output),
    )
    assert done.returncode == 0, done.stderr
    assert summary.read_text() == (runner.repo / "plan.md").read_text()
    assert summary.read_text().startswith(MARK)
    return output.read_text().strip().removeprefix("code=")


def test_githubs_workflow_comments_and_warns_when_something_is_not_known(runner: Runner) -> None:
    """Without runtimes the requirement is shown; the check passes with a warning."""
    runner.definition("humanize>=4.9,<5", "humanize>=4.10,<5")
    code = github_plan(runner)
    assert code == "3"
    assert "+ humanize&gt;=4.10,&lt;5" in (runner.repo / "plan.md").read_text()
    runner.tool("gh")
    where = {"NUMBER": "7", "GITHUB_REPOSITORY": "acme/envs", "GH_TOKEN": "x"}
    assert runner.run(step("Comment"), **where).returncode == 0
    made = runner.noted().splitlines()[-1]
    assert made == "gh api --silent repos/acme/envs/issues/7/comments -F body=@plan.md"
    done = runner.run(step("Outcome"), CODE=code)
    assert done.returncode == 0
    assert "::warning::" in done.stdout


def test_githubs_workflow_renews_its_comment_and_fails_for_a_mistake(runner: Runner) -> None:
    """The earlier comment is found by its marker; the check ends with 1."""
    runner.definition("timeout: 5m", "timeout: soon")
    code = github_plan(runner)
    assert code == "1"
    runner.tool("gh", 'case "$*" in *--paginate*) printf "41\\n42\\n" ;; esac')
    where = {"NUMBER": "7", "GITHUB_REPOSITORY": "acme/envs", "GH_TOKEN": "x"}
    assert runner.run(step("Comment"), **where).returncode == 0
    made = runner.noted().splitlines()[-1]
    assert made == "gh api --silent -X PATCH repos/acme/envs/issues/comments/41 -F body=@plan.md"
    assert runner.run(step("Outcome"), CODE=code).returncode == 1


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_gitlabs_job_writes_one_note(runner: Runner, earlier: bool) -> None:
    """The real python-gitlab lists the notes, and creates one or updates its own."""
    runner.definition("humanize>=4.9,<5", "humanize>=4.10,<5")
    kept = [{"id": 5, "body": "a human's"}]
    kept += [{"id": 6, "body": f"{MARK}\nold"}] if earlier else []

    def notes(method: str, path: str, body: bytes) -> Said:
        if method == "GET":
            page = parse_qs(urlsplit(path).query).get("page", ["1"])
            return Said(200, JSON, json.dumps(kept if page == ["1"] else []))
        return Said(200 if method == "PUT" else 201, JSON, json.dumps({"id": 6}))

    forge = Receiver(notes)
    try:
        job = yaml.safe_load(GITLAB.read_text())["plan"]
        done = runner.run(
            "\n".join(job["script"]),
            CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main",
            CI_SERVER_URL=forge.root,
            CI_PROJECT_ID="12",
            CI_MERGE_REQUEST_IID="3",
            GROUNDCREW_COMMENT_TOKEN="glpat-x",
            GROUNDCREW_PACKAGE=ADDRESS,
        )
    finally:
        forge.close()
    assert done.returncode == 3, done.stderr
    assert job["allow_failure"] == {"exit_codes": 3}
    (write,) = [g for g in forge.got if g.method != "GET"]
    below = "/api/v4/projects/12/merge_requests/3/notes"
    assert (write.method, write.path) == (("PUT", f"{below}/6") if earlier else ("POST", below))
    assert write.json["body"].startswith(MARK)
    assert "+ humanize&gt;=4.10,&lt;5" in write.json["body"]


def test_gitlabs_job_needs_no_token_and_fails_for_a_mistake(runner: Runner) -> None:
    """Without a token for notes the plan is in the log; a mistake ends with 1."""
    runner.definition("timeout: 5m", "timeout: soon")
    job = yaml.safe_load(GITLAB.read_text())["plan"]
    done = runner.run(
        "\n".join(job["script"]),
        CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main",
        GROUNDCREW_PACKAGE=ADDRESS,
    )
    assert done.returncode == 1, done.stderr
    assert "### Mistakes in the definitions" in done.stdout
