"""The project's own image, built from its Dockerfile."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.harness.node.programs import cache
from tests.harness.node.runtime import Runtime

ROOT = Path(__file__).parents[3]
REPOSITORY = "example.test/groundcrew"
SOURCES = ("Dockerfile", "pyproject.toml", "deploy/image", "reconciler", "gitsource", "metrics")


def load_own_image(runtime: Runtime) -> str:
    """Return the tag of the image of the present sources; build and load it if it is not there."""
    tag = _tag()
    reference, present = f"{REPOSITORY}:{tag}", runtime.images()
    if reference not in present:
        for old in present:
            if old.startswith(f"{REPOSITORY}:"):
                runtime.ctr("images", "rm", "--sync", old, timeout=300)
        runtime.load(_archive(tag))
    return tag


def _archive(tag: str) -> Path:
    """Return the image's archive, and make it first if needed, which takes minutes.

    It is built as `make image` does where no registry is reached.
    """
    archive = cache() / "images" / f"groundcrew-{tag}.tar"
    if not archive.exists():
        for old in archive.parent.glob("groundcrew-*"):
            old.unlink()
        part = archive.with_suffix(".part")
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / "scripts/image"),
                "--base",
                "debootstrap",
                "--tag",
                f"{REPOSITORY}:{tag}",
                "--save",
                str(part),
            ],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        part.rename(archive)
    return archive


def _tag() -> str:
    """Return a digest of everything that the image is made of, by git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.split(b"\0"))):
        path = ROOT / name.decode()
        if path.is_file():
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
