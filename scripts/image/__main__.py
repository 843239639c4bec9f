"""Builds the container image with buildah: `python3 scripts/image [--base debootstrap] …`.

If a registry can be reached, the base comes from there. Otherwise, `--base debootstrap` builds one
from Debian's packages and commits it under the name in the Dockerfile's FROM. It is kept in a
separate store, so that no other build on this machine mistakes it for the real one. This needs
root.

Exits with 0 and the image's id on standard output, or with 1 and the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import machine  # type: ignore[import-not-found]  # the folder is run as a program

HERE = Path(__file__).resolve().parents[2]
DEBIAN = "http://deb.debian.org/debian"
SOURCES = """\
Types: deb
URIs: {mirror}
Suites: bookworm bookworm-updates
Components: main
Signed-By: {keyring}

Types: deb
URIs: {mirror}-security
Suites: bookworm-security
Components: main
Signed-By: {keyring}
"""
EXCLUDED = ("doc", "groff", "info", "linda", "lintian", "locale", "man")  # below /usr/share
STEP = 900.0  # seconds that one command may take


class Failed(Exception):
    """Error that ends the build; the message gives the reason and what to do."""


def run(*command: str | Path, where: Path = HERE, **variables: str) -> str:
    """Run a command and return its standard output. Raises Failed."""
    argv = [str(word) for word in command]
    try:
        done = subprocess.run(
            argv,
            cwd=where,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
            timeout=STEP,
            check=False,
        )
    except FileNotFoundError as error:
        raise Failed(f"{argv[0]} is not installed: apt-get install {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{argv[0]} did not end within {STEP:.0f} s") from error
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise Failed(f"{' '.join(argv[:4])} … ended with {done.returncode}")
    return done.stdout.strip()


class Buildah:
    """buildah with a store: the user's own (None), or one below a directory."""

    def __init__(self, store: Path | None) -> None:
        self._words = ["buildah"]
        if store is None:
            return
        self._words += ["--root", str(store / "root"), "--runroot", str(store / "run")]
        if "STORAGE_DRIVER" not in os.environ and not self._works():
            self._words += ["--storage-driver", "vfs"]  # overlay does not work on top of an overlay

    def _works(self) -> bool:
        try:
            done = subprocess.run(
                [*self._words, "info"], capture_output=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def __call__(self, *words: str | Path) -> str:
        """Run a buildah command and return its output. Raises Failed."""
        return run(*self._words, *words)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """Yield a working container of an image, and remove it at the end."""
        name = self("from", "--pull-never", image)
        try:
            yield name
        finally:
            self("rm", name)


# --------------------------------------------------------------------------------------- the base


def base_name() -> str:
    """Return the image name in the Dockerfile's FROM."""
    match = re.search(r"^ARG BASE=(\S+)$", (HERE / "Dockerfile").read_text(), re.MULTILINE)
    if match is None:
        raise Failed("the Dockerfile names no BASE")
    return match[1]


def cache() -> Path:
    """Return the directory that bases are cached in."""
    above = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(above) / "groundcrew" / "image"


def debootstrap(name: str) -> Path:
    """Return a tar of the base that stands in for the image `name`; build it if not cached."""
    tag = name.rpartition(":")[2]
    kept = cache() / f"{tag}-{platform.machine()}.tar"
    if kept.is_file():
        return kept
    if os.geteuid() != 0:
        raise Failed("debootstrap needs root: sudo scripts/image --base debootstrap")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="making-") as making:
        root = Path(making) / "root"
        log = run("debootstrap", "--variant=minbase", "bookworm", root, machine.mirror() or DEBIAN)
        sys.stderr.write(log[-200:] + "\n")
        slim(root)
        part = Path(making) / "base.tar"
        run("tar", "--numeric-owner", "-C", root, "-cf", part, ".")
        part.rename(kept)
    return kept


def slim(root: Path) -> None:
    """Remove what Debian's own slim image omits, and everything specific to this machine."""
    share = root / "usr" / "share"
    for name in EXCLUDED:
        for path in [p for p in (share / name).rglob("*") if not p.is_dir()]:
            if path.name != "copyright":
                path.unlink()
    for directory in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        for path in [p for p in (root / directory).rglob("*") if not p.is_dir()]:
            path.unlink()
    for name in ("hostname", "resolv.conf", "machine-id", "apt/sources.list"):
        (root / "etc" / name).unlink(missing_ok=True)
    rules = "".join(f"path-exclude /usr/share/{name}/*\n" for name in EXCLUDED)
    rules += "path-include /usr/share/doc/*/copyright\n"
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(rules)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(
        SOURCES.format(mirror=DEBIAN, keyring=machine.KEYRING)
    )


def stand_in(buildah: Buildah, name: str) -> None:
    """Commit a base made by debootstrap as the image `name`."""
    archive = debootstrap(name)
    with buildah.container("scratch") as container:
        buildah("add", "--quiet", container, archive, "/")
        buildah("config", "--cmd", "bash", container)
        buildah("commit", "--quiet", "--format", "docker", container, name)


# -------------------------------------------------------------------------------------- the image


def build(buildah: Buildah, tag: str, *, pull: bool) -> str:
    """Build the image; return its id."""
    options = ["--format", "docker", "--isolation", os.environ.get("BUILDAH_ISOLATION", "chroot")]
    options += ["--network", "host", "--quiet"]
    options += [] if pull else ["--pull-never"]
    for label, value in labels().items():
        options += ["--label", f"org.opencontainers.image.{label}={value}"]
    with tempfile.TemporaryDirectory() as secret:
        for name, path in machine.secrets(Path(secret)):
            options += ["--secret", f"id={name},src={path}"]
        return buildah("build", *options, "--tag", tag, "--file", HERE / "Dockerfile", HERE)


def labels() -> dict[str, str]:
    """Return the image's labels: its version, and its commit if that is known."""
    image_labels = {"version": version()}
    git = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        image_labels["revision"] = done.stdout.strip()
    return image_labels


def version() -> str:
    """Return the project's version."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def unpack(buildah: Buildah, image: str, place: Path) -> None:
    """Write `rootfs/` and `config.json` (as from `docker inspect`) below `place`."""
    place.mkdir(parents=True)
    told = json.loads(buildah("inspect", "--type", "image", image))
    (place / "config.json").write_text(json.dumps(told["Docker"]["config"], indent=2))
    with buildah.container(image) as container:
        mounted = buildah("mount", container)
        try:
            run("cp", "-a", mounted, place / "rootfs")
        finally:
            buildah("umount", container)


def arguments() -> argparse.Namespace:
    """Return the parsed command-line arguments."""
    parser = argparse.ArgumentParser(prog="scripts/image", description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=("registry", "debootstrap"), default="registry")
    parser.add_argument("--tag", default=f"groundcrew:{version()}", help="the image's name")
    parser.add_argument(
        "--store", type=Path, help="where buildah keeps images; else its own place, or a cache"
    )
    parser.add_argument("--save", type=Path, help="also write an archive for `docker load`")
    parser.add_argument("--unpack", type=Path, help="also write the file system below a directory")
    return parser.parse_args()


def main() -> int:
    """Build the image and print its id."""
    asked = arguments()
    own = asked.base == "debootstrap"
    try:
        buildah = Buildah(asked.store or (cache() / "store" if own else None))
        if own:
            stand_in(buildah, base_name())
        image = build(buildah, asked.tag, pull=not own).splitlines()[-1]
        if asked.save:
            buildah("push", "--quiet", image, f"docker-archive:{asked.save}:{asked.tag}")
        if asked.unpack:
            unpack(buildah, image, asked.unpack)
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    sys.stdout.write(f"{image}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
