"""The hook of pre-commit, as an environments repo would use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"
GIT = ["git", "-c", "user.name=A. Author", "-c", "user.email=a@example.org"]


def pre_commit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env=os.environ | {"PATH": os.pathsep.join(folders), "PRE_COMMIT_HOME": str(cwd / ".cache")},
    )


def test_a_mistake_stops_the_commit_at_its_line(tmp_path: Path) -> None:
    """The hook reads the whole checkout; a good one passes, and other files do not start it.

    It runs in the environment of the tests: making one of its own would install everything again.
    """
    assert pre_commit("validate-manifest", str(HOOKS), cwd=tmp_path).returncode == 0
    (hook,) = yaml.safe_load(HOOKS.read_text())
    repo = tmp_path / "environments"
    shutil.copytree(ROOT / "environments.example", repo)
    config = {"repos": [{"repo": "local", "hooks": [{**hook, "language": "system"}]}]}
    (repo / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*GIT, *arguments], cwd=repo, check=True, timeout=60)
    assert "Passed" in pre_commit("run", "--all-files", cwd=repo).stdout
    (repo / "README.md").write_text("other text\n")
    assert "Skipped" in pre_commit("run", "--files", "README.md", cwd=repo).stdout
    definition = repo / "teams" / "analytics" / "analytics.yaml"
    definition.write_text(definition.read_text().replace("rollout:", "rolout:"))
    failed = pre_commit("run", "--files", "teams/analytics/analytics.yaml", cwd=repo)
    assert failed.returncode == 1
    assert "teams/analytics/analytics.yaml:" in failed.stdout
    assert "did you mean rollout" in failed.stdout
