"""Environments repo of the demo: `environments.example/`, changed by commits as a team would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

TEAM = "analytics"
ENVIRONMENT = "analytics"
INSTANCE = "analytics-dev"
PACKAGE = Path("teams") / TEAM / "packages" / "acme-operators"
MODULE = PACKAGE / "src" / "acme_operators"
DEFINITION = Path("teams") / TEAM / f"{ENVIRONMENT}.yaml"


class Repo:
    """Git repository with a work tree, at `path`."""

    def __init__(self, path: Path, example: Path, instance_yaml: str) -> None:
        self.path = path
        shutil.copytree(example, path, ignore=shutil.ignore_patterns("__pycache__", "README.md"))
        for file in (path / "instances").iterdir():
            file.unlink()
        for folder in (path / "teams").iterdir():
            if folder.name != TEAM:
                shutil.rmtree(folder)
        (path / "instances" / f"{INSTANCE}.yaml").write_text(instance_yaml)
        self._rollout()
        self._git("init", "-q", "-b", "main")

    def _rollout(self) -> None:
        """Roll out to the demo's only instance."""
        text = (self.path / DEFINITION).read_text()
        head, _, _ = text.partition("  rollout:")
        (self.path / DEFINITION).write_text(
            f"{head}  rollout:\n    - {{instances: [{INSTANCE}]}}\n"
        )

    def _git(self, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Demo Engineer",
            "GIT_AUTHOR_EMAIL": "demo@example.com",
            "GIT_COMMITTER_NAME": "Demo Engineer",
            "GIT_COMMITTER_EMAIL": "demo@example.com",
        }
        return subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()

    def commit(self, subject: str, path: str = ".") -> str:
        """Commit the work tree (or what is below `path`); return the revision."""
        self._git("add", "-A", path)
        self._git("commit", "-q", "-m", subject)
        return self._git("rev-parse", "HEAD")

    def read(self, path: Path) -> str:
        """Return the text of a file in the work tree."""
        return (self.path / path).read_text()

    def write(self, path: Path, text: str) -> None:
        """Write a file in the work tree."""
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_text(text)

    def set_version(self, version: str) -> None:
        """Set the version of the in-repo package."""
        init = self.read(MODULE / "__init__.py")
        self.write(
            MODULE / "__init__.py",
            re.sub(r'__version__ = "[^"]+"', f'__version__ = "{version}"', init),
        )
        project = self.read(PACKAGE / "pyproject.toml")
        self.write(
            PACKAGE / "pyproject.toml",
            re.sub(r'(?m)^version = "[^"]+"', f'version = "{version}"', project),
        )

    def add_requirement(self, requirement: str) -> None:
        """Add one requirement."""
        text = self.read(DEFINITION)
        marker = "  requirements:\n"
        assert marker in text, f"{DEFINITION} has requirements in block style"
        self.write(DEFINITION, text.replace(marker, f"{marker}    - {requirement}\n", 1))
