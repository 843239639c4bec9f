"""Small environments repo with a work tree, and a source that polls it like the daemon's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gitsource.source import Source
from reconciler.core.definitions import Definitions
from reconciler.settings import GitSettings

INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {name: dev}
spec:
  team: red
  local: {python: /p, airflowHome: /h, components: {scheduler: {restart: ["true"]}}}
  api: {url: "http://127.0.0.1:8080"}
"""
NOWHERE = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {name: one}
spec:
  requirements: [humanize]
"""
ENVIRONMENT = f"""\
{NOWHERE}  rollout:
    - {{instances: [dev]}}
"""


class Repo:
    """Repository with a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("instances/dev.yaml", INSTANCE)
        self.write("teams/red/one.yaml", ENVIRONMENT)

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *words]
        done = subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")


def source(tmp_path: Path, url: str, **settings: object) -> Source:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    made = GitSettings(url=url, **settings)
    return Source(made, tmp_path / "state", tmp_path / "secrets", tuple)  # like the daemon's


def read(repo: Repo, tmp_path: Path) -> Definitions:
    repo.commit()
    definitions = source(tmp_path, str(repo.path)).poll()
    assert definitions is not None
    return definitions
