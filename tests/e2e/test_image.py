"""Container image, really built and run: read-only, as its user, without any capability.

`scripts/image` builds it from only Debian's and Python's package indexes; bubblewrap runs its file
system as a container runtime would.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import INSTANCE, Site

HERE = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
TAG = "localhost/groundcrew:test"
UID, GID = 50000, 0
STATE, SHARE = "/var/lib/groundcrew", "/srv/groundcrew"
LARGEST = 500_000_000  # bytes of all files
NEEDED = ("buildah", "debootstrap", "bwrap")
MISSING = f"the image is built and run as root, with {', '.join(NEEDED)}"
UNCHECKED = (0b01).to_bytes(4, "little")  # PEP 552: valid by a hash that is not checked
IMPORT_ALL = """
import importlib, pkgutil
ours = ("gitsource", "metrics", "reconciler")
programs = ("__main__", "migrations.env", "worker", "inventory")  # importing begins them
programs += ("groundcrew_local",)  # finds its second half beside it on the share
names = [m.name for top in ours
         for m in pkgutil.walk_packages(importlib.import_module(top).__path__, top + ".")]
for name in names:
    try:
        name.endswith(programs) or importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name.partition(".")[0] not in ours:
            raise
print(len(names))
"""
MAKE_BASE = """
import pathlib, sys
from tests.fakes.base import make_base
print(make_base(pathlib.Path(sys.argv[1])))
"""

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@dataclass(frozen=True)
class Image:
    """Output of `scripts/image`: the archive for `docker load`, and the same unpacked."""

    archive: Path
    rootfs: Path
    config: dict[str, Any]

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield every file and directory of the image, by its path inside, not following links."""
        for here, directories, names in os.walk(self.rootfs):
            for name in (*directories, *names):
                path = Path(here) / name
                yield Path("/") / path.relative_to(self.rootfs), path.lstat()

    def container(self, **more: Any) -> Container:
        """Return a container of it."""
        return Container(self, **more)


@dataclass(frozen=True)
class Container:
    """Options for running the image; `binds` are directories mounted at these paths."""

    image: Image
    binds: dict[Path | str, Path | str] = field(default_factory=dict)  # inside → outside
    variables: dict[str, str] = field(default_factory=dict)
    network: bool = False  # the machine's; otherwise a separate loopback

    def command(self, *words: str) -> list[str]:
        """Return the command line: read-only root, no capabilities, given user and variables."""
        uid, gid = self.image.config["User"].split(":")
        told = dict(pair.split("=", 1) for pair in self.image.config["Env"])
        command = ["bwrap", "--die-with-parent", "--unshare-ipc", "--unshare-uts"]
        command += ["--unshare-pid", "--as-pid-1", "--clearenv"]
        command += [] if self.network else ["--unshare-net"]
        command += ["--ro-bind", str(self.image.rootfs), "/", "--proc", "/proc", "--dev", "/dev"]
        command += ["--perms", "1777", "--tmpfs", "/tmp"]
        for inside, outside in self.binds.items():
            command += ["--bind", str(outside), str(inside)]
        for name, value in {**told, **self.variables}.items():
            command += ["--setenv", name, value]
        command += ["--chdir", self.image.config["WorkingDir"]]
        command += [
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
            "--cap-add",
            "CAP_SETPCAP",
        ]
        drop = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
        return [*command, *drop, "--inh-caps=-all", "--bounding-set=-all", *words]

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, standard error in its output."""
        return subprocess.run(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def say(self, *words: str) -> str:
        """Return the output of a command that succeeds."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    @contextmanager
    def started(self, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Run the image's own command as process 1; yield (its process, that one's id out here)."""
        arguments = [*self.image.config["Entrypoint"], *self.image.config["Cmd"]]
        ours, theirs = os.pipe()
        command = self.command(*arguments)
        command[1:1] = ["--json-status-fd", str(theirs)]
        with log.open("wb") as output, os.fdopen(ours) as said:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, pass_fds=[theirs]
            )
            os.close(theirs)
            try:
                yield process, int(json.loads(said.readline())["child-pid"])
            finally:
                process.kill()
                process.wait(timeout=30)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Yield the image, built once, and remove it at the end."""
    if os.geteuid() != 0 or not all(map(shutil.which, NEEDED)):
        pytest.skip(MISSING)
    with tempfile.TemporaryDirectory(prefix="groundcrew-image-") as directory:
        root = Path(directory)
        command = [sys.executable, str(HERE / "scripts" / "image"), "--base", "debootstrap"]
        command += ["--tag", TAG, "--store", str(root / "store")]
        command += ["--save", str(root / "image.tar"), "--unpack", str(root / "bundle")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
        assert done.returncode == 0, done.stderr
        config = json.loads((root / "bundle" / "config.json").read_text())
        yield Image(root / "image.tar", root / "bundle" / "rootfs", config)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory below /tmp, which exists inside the image too."""
    with tempfile.TemporaryDirectory(prefix="groundcrew-site-", dir="/tmp") as directory:
        yield Path(directory)


def give(root: Path) -> None:
    """Give everything below `root` to the image's user."""
    for here, directories, names in os.walk(root):
        os.chown(here, UID, GID)
        for name in (*directories, *names):
            os.chown(Path(here) / name, UID, GID, follow_symlinks=False)


# ------------------------------------------------------------------------------------------ at rest


def test_the_image_says_how_it_is_run(image: Image) -> None:
    """User, command, signal, health check, volumes and labels; the archive can be loaded."""
    config = image.config
    assert config["User"] == f"{UID}:{GID}"
    assert (config["Entrypoint"], config["Cmd"]) == (["groundcrew"], ["run"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert set(config["Volumes"]) == {STATE, SHARE, "/tmp"}
    assert set(config["ExposedPorts"]) == {"8085/tcp"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.title"] == "groundcrew"
    with tarfile.open(image.archive) as archive:
        told = archive.extractfile("manifest.json")
        assert told is not None
        (manifest,) = json.load(told)
    assert manifest["RepoTags"] == [TAG]
    assert len(manifest["Layers"]) == 2, "the base and what is ours"


def test_nothing_in_it_gives_rights_or_is_left_over(
    image: Image, record_property: Callable[[str, object], None]
) -> None:
    """No setuid, nothing of the build, and nothing world-writable except where intended."""
    rights, writable, left, size = [], [], [], 0
    for path, status in image.files():
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                rights.append(path)
        everyone = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if everyone and not stat.S_ISLNK(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            writable.append(path)
        owned = status.st_uid == UID and str(path) not in (STATE, SHARE)
        leavings = ("/root/.cache", "/src", "/opt/build", "/run/secrets/", "/var/lib/apt/lists/")
        if owned or f"{path}".startswith(leavings) or path.name in ("pip", "pip.conf", "pip3"):
            left.append(path)
    assert rights == []
    assert writable == []
    assert [p for p in left if p.name not in ("partial", "lock")] == []
    record_property("bytes", size)
    assert size < LARGEST, f"{size} bytes"


def test_it_keeps_nothing_of_the_machine_that_built_it(image: Image) -> None:
    """Debian's own mirrors are its sources, whatever the build read from."""
    apt = image.rootfs / "etc" / "apt"
    lists = [p for p in apt.rglob("*") if p.suffix in (".list", ".sources")]
    assert [p.name for p in lists] == ["debian.sources"]
    hosts = {w for w in lists[0].read_text().split() if "://" in w}
    assert all(host.startswith("http://deb.debian.org/debian") for host in hosts)
    told = " ".join([*image.config["Env"], *map(str, image.config["Labels"].values())]).lower()
    assert "proxy" not in told
    assert "index" not in told
    assert "cert" not in told


def test_bytecode_is_there_and_is_not_compared_with_its_source(image: Image) -> None:
    """On a read-only root, missing or outdated bytecode would be compiled at every start."""
    library = image.rootfs / "opt" / "groundcrew" / "lib" / "python3.11" / "site-packages"
    sources = list((library / "reconciler").rglob("*.py"))
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        assert compiled.read_bytes()[4:8] == UNCHECKED, source


# ---------------------------------------------------------------------------------------- running


def test_its_user_can_run_everything_and_change_nothing(image: Image) -> None:
    """The commands that the daemon needs, at their versions, as 50000:0 on a read-only root."""
    inside = image.container()
    assert inside.say("groundcrew", "--version") == f"groundcrew {PROJECT['version']}"
    (pinned,) = [d for d in PROJECT["dependencies"] if d.startswith("uv==")]
    assert inside.say("uv", "--version").split()[1] == pinned.removeprefix("uv==")
    assert inside.say("git", "--version").startswith("git version 2.39")
    assert inside.say("ssh", "-V").startswith("OpenSSH_9.2")
    assert inside.say("python", "--version").startswith("Python 3.11")
    assert inside.say("id") == f"uid={UID}(groundcrew) gid={GID}(root) groups={GID}(root)"
    for line in inside.say("grep", "^Cap", "/proc/self/status").splitlines():
        assert int(line.split()[1], 16) == 0, line
    for path in ("/opt/groundcrew/x", f"{STATE}/x", "/etc/x"):
        assert "Read-only file system" in inside.run("touch", path).stdout
    for tool in ("pip", "gcc", "curl", "wget", "bwrap"):
        assert inside.run("sh", "-c", f"command -v {tool}").returncode != 0


def test_who_requires_a_sandbox_is_told_that_there_is_none(image: Image, place: Path) -> None:
    """The image has no bubblewrap: a daemon that requires it says so and does not start."""
    give(place)
    variables = {
        "GROUNDCREW_BUILDER__SANDBOX": "require",
        "GROUNDCREW_GIT__URL": str(place / "none"),
    }
    inside = image.container(binds={STATE: place, SHARE: place}, variables=variables)
    done = inside.run("groundcrew", "run", "--once")
    assert done.returncode != 0
    assert "install bubblewrap" in done.stdout
    assert "Traceback" not in done.stdout


def test_every_module_imports(image: Image) -> None:
    """Nothing that the project imports is missing from the image."""
    names = image.container().say("python", "-c", IMPORT_ALL)
    assert int(names) > 50


def test_a_commit_is_built_and_becomes_active(image: Image, place: Path) -> None:
    """Real git, real uv, the real daemon, all from the image; only Airflow is a fake."""
    with FakeAirflow() as airflow:
        site = Site(place / "site", airflow)
        site.commit("1.0")
        shutil.rmtree(site.root / "base")
        shutil.copytree(HERE / "tests" / "fakes", place / "own" / "tests" / "fakes")
        give(place)
        inside = image.container(
            binds={place: place}, network=True, variables={"GROUNDCREW_CONFIG": str(site.config)}
        )
        made = inside.say(
            "env",
            f"PYTHONPATH={place / 'own'}",
            "python3",
            "-c",
            MAKE_BASE,
            str(site.root / "base"),
        )
        assert made == site.python
        done = inside.run("groundcrew", "run", "--once")
        assert done.returncode == 0, done.stdout
        (instance,) = json.loads(inside.say("groundcrew", "status", "-o", "json"))["instances"]
        assert (instance["name"], instance["phase"], instance["health"]) == (
            INSTANCE,
            "Active",
            "Healthy",
        )
        assert {said["acme"] for said in airflow.state.loaded} == {"1.0"}


def test_it_is_healthy_while_it_runs_and_stops_when_told(image: Image, place: Path) -> None:
    """The image's own command with its own directories: the health check sees it start and stop."""
    with FakeAirflow() as airflow:
        site = Site(place / "site", airflow)
        site.commit("1.0")
    for name in ("state", "share"):
        (place / name).mkdir()
    give(place)
    inside = image.container(
        binds={STATE: place / "state", SHARE: place / "share", place: place},
        variables={"GROUNDCREW_GIT__URL": str(site.repo)},
    )
    _, *check = image.config["Healthcheck"]["Test"]
    alone = inside.run(*check)
    assert alone.returncode == 1
    assert "refused" in alone.stdout
    with inside.started(place / "log") as (process, pid):
        deadline = time.monotonic() + 60
        enter = ["nsenter", "--target", str(pid), "--net", "--mount", "--pid"]
        enter += ["setpriv", "--reuid", str(UID), "--regid", str(GID), "--clear-groups"]
        while subprocess.run([*enter, *_with(image, check)], timeout=30, check=False).returncode:
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.5)
        os.kill(pid, 15)
        assert process.wait(timeout=60) == 0, (place / "log").read_text()
    assert (place / "state" / "groundcrew.db").is_file()
    assert "Traceback" not in (place / "log").read_text()


def _with(image: Image, words: list[str]) -> list[str]:
    """Return a command with the image's variables and no others."""
    return ["env", "-i", *image.config["Env"], *words]
