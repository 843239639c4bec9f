"""Airflow images laid out like the official ones, made from Debian and the package index.

They have user 50000 in group 0, an interpreter in /usr/python, a virtual environment in
/home/airflow/.local with Airflow and the official image's providers, and an entry point that sets
umask 0002. Each image is made once and kept.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.builder.uv import uv_path
from tests.harness.node.images import debian, write_image
from tests.harness.node.programs import cache
from tests.harness.node.runtime import Runtime

PROVIDERS = (
    "amazon,celery,cncf-kubernetes,common-compat,common-sql,docker,elasticsearch,fab,ftp,grpc,"
    "hashicorp,http,imap,microsoft-azure,odbc,openlineage,postgres,redis,sendgrid,sftp,slack,smtp,"
    "snowflake,sqlite,ssh,statsd"
)
ENTRYPOINT = """\
#!/bin/bash
umask 0002
if [[ $1 =~ ^(bash|python)$ ]]; then exec "$@"; fi
if [[ $1 == airflow ]]; then exec "$@"; fi
exec airflow "$@"
"""
HOME = Path("home/airflow/.local")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Contents of the image with a version of Airflow.

    Nothing newer than `released`, the day of its release, is installed: the official image has the
    versions of that time too, and with later ones of FastAPI the API server of 3.2.2 does not
    start. `limits` are further requirements. Increase `revision` if the image is made differently.
    """

    released: str
    revision: int
    limits: tuple[str, ...] = ()


RECIPES = {
    # From 3.16.0 to 3.17.1, Celery's provider sends Airflow 2.11's tasks by a name that its workers
    # do not know.
    "2.11.2": Recipe("2026-03-14", 5, ("apache-airflow-providers-celery<3.16",)),
    "3.2.2": Recipe("2026-05-29", 4),
    "3.3.2": Recipe("2026-09-17", 4),
}


@dataclass(frozen=True, slots=True)
class AirflowImage:
    """An image with one version of Airflow and one of Python."""

    airflow: str
    python: str

    @property
    def name(self) -> str:
        """The image's name without its revision."""
        return f"example.test/airflow:{self.airflow}-python{self.python}"

    @property
    def reference(self) -> str:
        """The image's name on the node."""
        return f"{self.name}-{self._recipe.revision}"

    @property
    def _recipe(self) -> Recipe:
        return RECIPES[self.airflow]

    def archive(self) -> Path:
        """Return the image's archive, and make it first if needed, which takes minutes."""
        folder, stem = cache() / "images", f"airflow-{self.airflow}-{self.python}"
        archive = folder / f"{stem}-{self._recipe.revision}.tar"
        if not archive.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{stem}-*"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=folder) as work:
                root = Path(work) / "root"
                _run("cp", "--archive", str(debian()), str(root))
                self._install(root)
                write_image(archive, self.reference, root, self._config())
        return archive

    def load(self, runtime: Runtime) -> None:
        """Make sure that the node has this image, and none of its older revisions."""
        present = runtime.images()
        if self.reference in present:
            return
        for old in present:
            if old.startswith(f"{self.name}-"):
                runtime.ctr("images", "rm", "--sync", old, timeout=300)
        runtime.load(self.archive())

    def _config(self) -> dict[str, Any]:
        return {
            "User": "50000",
            "Env": [
                "PATH=/home/airflow/.local/bin:/usr/python/bin:/usr/local/bin:/usr/bin:/bin",
                "AIRFLOW_HOME=/opt/airflow",
                "HOME=/home/airflow",
                "LANG=C.UTF-8",
                "PYTHONUNBUFFERED=1",
            ],
            "WorkingDir": "/opt/airflow",
            "Entrypoint": ["/usr/bin/dumb-init", "--", "/entrypoint"],
        }

    def _install(self, root: Path) -> None:
        base = _interpreter(self.python)
        _run("cp", "--archive", str(base), str(root / "usr/python"))
        venv = root / HOME
        python = base / "bin" / f"python{self.python}"
        # Airflow 2 needs packages that have no wheels.
        wanted = f"apache-airflow[{PROVIDERS}]=={self.airflow}"
        newest = f"{self._recipe.released}T23:59:59Z"
        _run(uv_path(), "venv", "--quiet", "--python", str(python), str(venv))
        _run(
            uv_path(),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(venv / "bin" / "python"),
            *([] if self.airflow.startswith("2.") else ["--only-binary", ":all:"]),
            "--link-mode",
            "copy",
            "--exclude-newer",
            newest,
            wanted,
            *self._recipe.limits,
        )
        self._relocate(root, venv)
        (root / "etc/ld.so.conf.d/python.conf").write_text("/usr/python/lib\n")
        _run("chroot", str(root), "/sbin/ldconfig")
        _run(
            "chroot",
            str(root),
            f"/{HOME}/bin/python",
            "-m",
            "compileall",
            "-q",
            "-j",
            "2",
            f"/{HOME}/lib",
        )
        _run("chown", "-R", "50000:0", str(root / "home/airflow"), str(root / "opt/airflow"))

    def _relocate(self, root: Path, venv: Path) -> None:
        """Rewrite the environment's paths to its future ones in the image."""
        own = f"/{HOME}/bin/python"
        for script in (venv / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                text = script.read_bytes()
                if text.startswith(b"#!") and str(venv).encode() in text:
                    script.write_bytes(
                        text.replace(str(venv / "bin/python").encode(), own.encode())
                    )
        (venv / "bin" / "python").unlink()
        (venv / "bin" / "python").symlink_to(f"/usr/python/bin/python{self.python}")
        config = (venv / "pyvenv.cfg").read_text().splitlines()
        lines = ["home = /usr/python/bin" if c.startswith("home") else c for c in config]
        (venv / "pyvenv.cfg").write_text("\n".join(lines) + "\n")
        (root / "entrypoint").write_text(ENTRYPOINT)
        (root / "entrypoint").chmod(0o755)
        for name in ("dags", "logs", "plugins", "config"):
            (root / "opt/airflow" / name).mkdir(parents=True)
        with (root / "etc/passwd").open("a") as file:
            file.write("airflow:x:50000:0:airflow:/home/airflow:/bin/bash\n")


def _interpreter(version: str) -> Path:
    """Return the folder of a relocatable interpreter, which Debian's own is not."""
    prefixes = [*Path.home().glob(f".pyenv/versions/{version}.*"), Path("/usr/local")]
    for prefix in prefixes:
        if os.access(prefix / "bin" / f"python{version}", os.X_OK):
            return prefix
    raise AssertionError(f"no Python {version} below ~/.pyenv/versions or /usr/local")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, f"{words[:4]}: {done.stdout[-500:]}{done.stderr[-2000:]}"


ALWAYS = (AirflowImage("3.2.2", "3.12"),)  # images that `make node` makes
