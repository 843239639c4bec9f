"""Environments repo of a node's release, in which one environment has the package `acme`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.fakes.base import write_package
from tests.harness.kube_api import Json
from tests.harness.local_daemon import IDENTITY

NOTHING: Mapping[str, str] = {}


class EnvironmentsRepo:
    """Repository at a path; its environment has the name of its team."""

    def __init__(self, path: Path, team: str, instance: str) -> None:
        self.path, self._team, self._instance = path, team, instance

    def create(self, instance: Json) -> None:
        """Make the repository, with the definition of the instance; nothing is committed."""
        self.path.mkdir(parents=True)
        self._git("init", "-q", "-b", "main")
        self._write(f"instances/{self._instance}.yaml", "Instance", self._instance, instance)

    @property
    def has_environment(self) -> bool:
        """True once a version was committed."""
        return (self.path / "teams").exists()

    def commit(self, version: str, text: str = "", more: Mapping[str, str] = NOTHING) -> str:
        """Ask for a version of `acme`; return the revision.

        Its module has `text` too, and `more` are files that it has besides.
        """
        modules = {
            "acme/__init__.py": f"__version__ = {version!r}\n{text}",
            "acme/late.py": f"version = {version!r}\n",
            **more,
        }
        folder = self.path / "teams" / self._team
        write_package(folder / "packages" / "acme", "acme", version, modules)
        environment = {
            "requirements": ["acme @ ./packages/acme"],
            "rollout": [{"instances": [self._instance]}],
        }
        path = f"teams/{self._team}/{self._team}.yaml"
        self._write(path, "Environment", self._team, environment)
        return self.commit_all(f"acme {version}")

    def commit_all(self, message: str) -> str:
        """Commit whatever was changed; return the revision."""
        self._git("add", "-A")
        self._git(*IDENTITY, "commit", "-q", "-m", message)
        return self._git("rev-parse", "HEAD").strip()

    def _write(self, path: str, kind: str, name: str, spec: Json) -> None:
        document = {
            "apiVersion": "groundcrew/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_text(yaml.safe_dump(document))

    def _git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.path, check=True, capture_output=True, text=True, timeout=60
        ).stdout
