"""Interpreter with an Airflow beside it, and builds that the real loader gives it from a share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from reconciler.builder.base.inspection import Inventory, inspect_base, runtime_of
from reconciler.core.runtime import Runtime
from reconciler.documents import parse
from reconciler.share.share import BaseName, Share
from tests.harness.shares import DIGEST, RUNTIME, A, B, abi_of, publish

ENV = {
    "ACME": "eu",
    "PYTHONHOME": "/no",
    "HOME": "/no",
    "AIRFLOW_HOME": "/no",
    "AIRFLOW_CONFIG": "/no",
    "AIRFLOW__CORE__EXECUTOR": "no",
    "WITH_NUL": "a\0b",
    "SURROGATE": "\ud800",
    "": "no name",
    "A=B": "no name",
    "LAST": "set",
}


class Site:
    """Interpreter with an Airflow beside it, and a build on the share.

    Its default `env` has names and values that no daemon writes, for the loader to bear.
    """

    def __init__(
        self, tmp_path: Path, share: Share, python: str, env: Mapping[str, str] = ENV
    ) -> None:
        self.share = share
        self.python = python
        self.site = tmp_path / "base" / "site-packages"
        self.site.mkdir(parents=True)
        (self.site / "apache_airflow-3.3.2.dist-info").mkdir()
        (self.site / "owned.py").write_text("WHO = 'base'\n")
        entry = share.root / "store" / "sha256" / "dd" / DIGEST
        (entry / "lib").mkdir(parents=True)
        (entry / "bin").mkdir()
        (entry / "lib" / "owned.py").write_text("WHO = 'build'\n")
        (entry / "lib" / "acme_mod.py").write_text("X = 1\n")
        relative = f"store/sha256/dd/{DIGEST}"
        publish(
            share,
            A,
            (DIGEST,),
            abi=abi_of(python),
            airflow="3.3.2",
            runtime=RUNTIME,
            paths=[{"path": f"{relative}/lib", "pth": False}],
            bin=[f"{relative}/bin"],
            jars=[f"{relative}/files/x.jar"],
            env=env,
        )
        share.install_loader("dev")
        share.point("dev", BaseName(RUNTIME, abi_of(python), "3.3.2"), A, ["scheduler"])
        self.loader = share.instance_path("dev") / "loader"

    def run(self, code: str, *extra: str, component: str = "scheduler", **env: str) -> str:
        done = subprocess.run(
            [self.python, *extra, "-c", code],
            env={
                "PATH": os.defpath,
                "GROUNDCREW_COMPONENT": component,
                "PYTHONPATH": f"{self.loader}:{self.site}",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.strip()


class Bases(Site):
    """Two bases of one Airflow, as before and after an installation, and a build for each."""

    def __init__(self, tmp_path: Path, share: Share, python: str) -> None:
        super().__init__(tmp_path, share, python, env={"ACME": "eu"})
        publish(share, B, abi=abi_of(python), airflow="3.3.2")
        self.install("apache-airflow", "3.3.2")

    def install(self, name: str, version: str) -> None:
        """Add another distribution to the base."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def inspect(self) -> Runtime:
        """Return the inspection of this base, run as in its image."""
        script = Path(inspect_base.__code__.co_filename).with_name("inventory.py")
        answer = self.site.parent / "inventory.json"
        subprocess.run(
            [self.python, str(script), str(answer)],
            env={"PATH": os.defpath, "PYTHONPATH": str(self.site)},
            capture_output=True,
            timeout=60,
            check=True,
        )
        return runtime_of(parse(Inventory, answer.read_bytes(), "inventory"), self.python)

    def point(self, build: str | None, *, marked: bool = True) -> Runtime:
        """Point the base in its current state to a build; `marked`: as this release writes it."""
        runtime = self.inspect()
        self.share.point(
            "dev",
            BaseName(runtime.key, abi_of(self.python), "3.3.2", runtime.listing if marked else ""),
            build,
            ["scheduler"],
        )
        return runtime

    def loaded(self) -> str:
        """Return the build that a process of the current base starts with."""
        return self.run("import os; print(os.environ['GROUNDCREW_BUILD'])")
