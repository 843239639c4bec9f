"""Container runtime of the node: containerd with runc, and its images."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.harness.kube_api import Json, wait_for
from tests.harness.node.images import DEBIAN_IMAGE, PAUSE, debian, write_image
from tests.harness.node.network import PODS, Network
from tests.harness.node.programs import Programs, cache, end

RUN = Path("/run/groundcrew-node")
SOCKET = RUN / "containerd.sock"
CONFIG = """\
version = 3
root = "{root}"
state = "{run}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{run}/cni"
"""


class Runtime:
    """Context manager for containerd, whose images are kept between runs."""

    def __init__(self, programs: Programs, network: Network) -> None:
        self._programs, self._network = programs, network
        self._process: subprocess.Popen[bytes] | None = None
        self._root = cache() / "containerd"
        self.log = RUN / "containerd.log"

    def __enter__(self) -> Runtime:
        shutil.rmtree(RUN, ignore_errors=True)
        (RUN / "cni").mkdir(parents=True)
        self._root.mkdir(parents=True, exist_ok=True)
        self._configure()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *self._network.inside,
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    str(self._programs.folder / "containerd"),
                    "-c",
                    str(RUN / "config.toml"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": f"{self._programs.folder}:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        wait_for(self._answers, 60, f"containerd; see {self.log}")
        self._clear()
        if PAUSE not in self.images():
            self.load(
                write_image(cache() / "pause.tar", PAUSE, self._pause(), {"Entrypoint": ["/pause"]})
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._clear()
        finally:
            process, self._process = self._process, None
            if process is not None:
                end(process)
            unmount_below(RUN)
            shutil.rmtree(RUN, ignore_errors=True)

    def images(self) -> set[str]:
        """Return the names of the existing images."""
        return set(self.ctr("images", "ls", "-q").split())

    def load(self, archive: Path) -> None:
        """Load an image's archive."""
        self.ctr("images", "import", str(archive), timeout=600)

    def load_debian(self) -> None:
        """Make sure that the node has a small Debian as an image."""
        if DEBIAN_IMAGE not in self.images():
            archive = write_image(cache() / "debian.tar", DEBIAN_IMAGE, debian(), {})
            self.load(archive)
            archive.unlink()

    def process(self, pod: Json, container: str) -> int:
        """Return the first process of a running container, by its number on this machine."""
        statuses = pod["status"]["containerStatuses"]
        (name,) = (s["containerID"].rpartition("/")[2] for s in statuses if s["name"] == container)
        for line in self.ctr("tasks", "ls").splitlines():
            task, pid, *_ = line.split()
            if task == name:
                return int(pid)
        raise AssertionError(f"the container {container} does not run")

    def ctr(self, *words: str, timeout: float = 60) -> str:
        """Run containerd's own client."""
        done = subprocess.run(
            [str(self._programs.folder / "ctr"), "-a", str(SOCKET), "-n", "k8s.io", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"ctr {words}: {done.stderr[-2000:]}"
        return done.stdout

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(AssertionError):
            return bool(self.ctr("version"))
        return False

    def _clear(self) -> None:
        """End every container: those of this run, and those that a killed run left."""
        for task in self.ctr("tasks", "ls", "-q").split():
            with contextlib.suppress(AssertionError):
                self.ctr("tasks", "kill", "-s", "SIGKILL", task)
        deadline = time.monotonic() + 20
        while (tasks := self.ctr("tasks", "ls", "-q").split()) and time.monotonic() < deadline:
            for task in tasks:
                with contextlib.suppress(AssertionError):
                    self.ctr("tasks", "rm", "-f", task)
        for container in self.ctr("containers", "ls", "-q").split():
            with contextlib.suppress(AssertionError):
                self.ctr("containers", "rm", container)
        for pid in _shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _pause(self) -> Path:
        folder = cache() / "pause"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self._programs.folder / "pause", folder / "pause")
        return folder

    def _configure(self) -> None:
        (RUN / "config.toml").write_text(
            CONFIG.format(
                root=self._root,
                run=RUN,
                socket=SOCKET,
                pause=PAUSE,
                cni=self._programs.cni,
                runc=shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/bin"),
            )
        )
        (RUN / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network()))


def _pod_network() -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "dataDir": str(RUN / "addresses"),
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}],
    }


def _shims() -> list[int]:
    """Return the processes between this node's containerd and its containers."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().split(b"\0")
            if b"containerd-shim" in arguments[0] and str(SOCKET).encode() in arguments:
                pids.append(int(path.parent.name))
    return pids


def unmount_below(folder: Path) -> None:
    """Unmount a folder and everything below it, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if f"{p}/".startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=20)
