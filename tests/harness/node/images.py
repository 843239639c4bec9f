"""Images for the node, as archives that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.harness.node.programs import cache

PAUSE = "example.test/pause:1"
DEBIAN_IMAGE = "example.test/debian:1"
DEBIAN = (
    "ca-certificates,dumb-init,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,"
    "libsqlite3-0,libssl3,libuuid1,netbase,zlib1g"
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive: Path, name: str, root: Path, config: dict[str, Any]) -> Path:
    """Write an image with one layer, the folder `root`; return the archive."""
    layer = archive.with_suffix(".layer")
    subprocess.run(
        [
            "tar",
            "-C",
            str(root),
            "--numeric-owner",
            "--exclude=./proc/*",
            "--exclude=./sys/*",
            "--exclude=./dev/*",
            "-cf",
            str(layer),
            ".",
        ],
        check=True,
        timeout=600,
    )
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    document = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    part = archive.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        _add(tar, "config.json", json.dumps(document).encode())
        tar.add(layer, "layer.tar")
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    layer.unlink()
    part.rename(archive)
    return archive


def debian(*packages: str) -> Path:
    """Return a small Debian with more packages; make it first if there is none."""
    rootfs = cache() / "-".join(["debian", *packages])
    include = f"--include={','.join([DEBIAN, *packages])}"
    if not rootfs.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            root = Path(folder) / "debian"
            subprocess.run(
                [
                    "debootstrap",
                    "--variant=minbase",
                    include,
                    "bookworm",
                    str(root),
                ],
                check=True,
                capture_output=True,
                timeout=900,
            )
            shutil.rmtree(root / "var/cache/apt")
            shutil.rmtree(root / "var/lib/apt/lists")
            root.rename(rootfs)
    return rootfs


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
