"""Complete site on one machine: an environments repo, a share, a daemon, and a fake Airflow.

Real git, real uv, the real loader and the real daemon as a process; only Airflow is a fake.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from reconciler.share.share import Share
from reconciler.store.store import Store
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow
from tests.fakes.base import make_base, write_package

TEAM, ENVIRONMENT, INSTANCE = "red", "one", "red-dev"
COMPONENTS = ("scheduler", "dag-processor", "triggerer", "api-server")
GOOD = '__version__ = "{version}"\ndef live(component):\n    pass\n'
BAD_LIVE = (
    '__version__ = "{version}"\ndef live(component):\n    raise SystemExit("acme does not start")\n'
)
BAD_IMPORT = '__version__ = "{version}"\n\nraise RuntimeError("acme is not configured")\n'
IDENTITY = ["-c", "user.name=A. Author", "-c", "user.email=author@example.com"]


class Site:
    """Everything below `root`; the same root can be reset to a saved state."""

    def __init__(self, root: Path, airflow: FakeAirflow, poll_interval: float = 1.0) -> None:
        self.root = root
        self.airflow = airflow
        self.repo = root / "environments"
        self.share = Share(root / "share")
        self.database = f"sqlite:///{root / 'state' / 'groundcrew.db'}"
        root.mkdir(parents=True, exist_ok=True)
        self.python = make_base(root / "base")
        self._secrets()
        self._settings(poll_interval)
        self.repo.mkdir()
        self._git("init", "-q", "-b", "main")
        self.write(f"instances/{INSTANCE}.yaml", yaml.safe_dump(self.instance()))

    # ------------------------------------------------------------------------------ definitions

    def _secrets(self) -> None:
        secret = self.root / "secrets" / TEAM / "airflow"
        secret.mkdir(parents=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)

    def _settings(self, poll_interval: float) -> None:
        self.config = self.root / "groundcrew.toml"
        self.config.write_text(
            f'state_dir = "{self.root / "state"}"\nshare = "{self.root / "share"}"\n'
            f'secrets_dir = "{self.root / "secrets"}"\n'
            f'[git]\nurl = "{self.repo}"\npoll_interval = {poll_interval}\n'
            f'[local]\nallow = ["/usr/bin/env", "{self.python}"]\n'
            f"[http]\nenabled = false\n[activation]\nretry_first = 0.2\nwatch = 0\n"
        )

    def instance(self, name: str = INSTANCE) -> dict[str, Any]:
        """Return the definition of the fake Airflow as an instance."""
        loader = self.root / "share" / "instances" / name / "loader"
        command = ["/usr/bin/env", f"PYTHONPATH={loader}", self.python, "-m", "airflow"]
        return {
            "apiVersion": "groundcrew/v1",
            "kind": "Instance",
            "metadata": {"name": name},
            "spec": {
                "team": TEAM,
                "local": {
                    "python": self.python,
                    "airflowHome": str(self.root / "home"),
                    "components": {
                        c: {"restart": [*command, c, self.airflow.restart_url]} for c in COMPONENTS
                    },
                },
                "api": {"url": self.airflow.url, "credentials": "airflow"},
                "maintenance": {
                    "drain": {"timeout": "30s", "onTimeout": "abort"},
                    "probe": {"timeout": "30s"},
                },
            },
        }

    def commit(self, version: str, text: str = GOOD, **spec: Any) -> str:
        """Require `acme` in this version with this module; return the revision."""
        package = self.repo / "teams" / TEAM / "packages" / "acme"
        shutil.rmtree(package, ignore_errors=True)
        modules = {"acme/__init__.py": text, "acme/late.py": 'version = "{version}"\n'}
        filled = {path: module.format(version=version) for path, module in modules.items()}
        write_package(package, "acme", version, filled)
        document = {
            "apiVersion": "groundcrew/v1",
            "kind": "Environment",
            "metadata": {"name": ENVIRONMENT},
            "spec": {
                "requirements": ["acme @ ./packages/acme"],
                "rollout": [{"instances": [INSTANCE]}],
                **spec,
            },
        }
        self.write(f"teams/{TEAM}/{ENVIRONMENT}.yaml", yaml.safe_dump(document))
        return self.save(f"acme {version}")

    def save(self, message: str) -> str:
        """Commit everything in the repo's directory; return the revision."""
        self._git("add", "-A")
        self._git(*IDENTITY, "commit", "-q", "-m", message)
        return self._git("rev-parse", "HEAD").strip()

    def write(self, path: str, text: str) -> None:
        (self.repo / path).parent.mkdir(parents=True, exist_ok=True)
        (self.repo / path).write_text(text)

    def _git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.repo, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    # -------------------------------------------------------------------------------- processes

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of the daemon's process."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")}
        return {**kept, "GROUNDCREW_CONFIG": str(self.config), **more}

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        """Run a command of `groundcrew`; return (exit code, standard output and error)."""
        done = subprocess.run(
            [sys.executable, "-m", "reconciler.cli", *words],
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout

    def once(self, **variables: str) -> tuple[int, str]:
        """Run the daemon once until nothing is left to do."""
        return self.run("run", "--once", **variables)

    def status(self) -> dict[str, Any]:
        """Return the document of `groundcrew status -o json`."""
        code, output = self.run("status", "-o", "json")
        assert code == 0, output
        document: dict[str, Any] = json.loads(output)
        return document

    def store(self) -> Store:
        """Return the records."""
        return Store(self.database)

    # ----------------------------------------------------------------------------------- copies

    def keep(self) -> Path:
        """Save a copy of everything that changes, for `put_back`."""
        kept = self.root.with_name(self.root.name + ".kept")
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for part in ("environments", "share", "state"):
            shutil.copytree(self.root / part, kept / part, symlinks=True)
        return kept

    def put_back(self, kept: Path) -> None:
        """Restore everything to the saved state."""
        for part in ("environments", "share", "state"):
            shutil.rmtree(self.root / part, ignore_errors=True)
            shutil.copytree(kept / part, self.root / part, symlinks=True)
