"""Programs of a node, and a check that this machine can run one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.control_plane import assets
from tests.harness.kube_api import wait_for

SCRIPTS = Path(__file__).parents[3] / "scripts"
VERSION = (SCRIPTS / "envtest/version").read_text().strip()
BUILT = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "pause")
INSTALLED = {
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "debootstrap": "debootstrap",
    "pg_ctlcluster": "postgresql",
}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("ptp", "host-local", "loopback")


def cache() -> Path:
    """Return the folder in which everything for nodes is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "groundcrew" / "node"


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs."""

    plane: dict[str, Path]
    folder: Path  # for those that `make node` builds
    cni: Path


def missing() -> list[str]:
    """Return the prerequisites of a node that this machine lacks."""
    lacking = []
    if os.geteuid() != 0:
        lacking.append("root: a node makes namespaces, mounts and control groups")
    if assets() is None:
        lacking.append("a control plane: run `make envtest`")
    if any(not (cache() / "bin" / VERSION / name).is_file() for name in BUILT):
        lacking.append("the node's own programs: run `make node`, which needs Go")
    lacking += [
        f"{program}: apt-get install {package}"
        for program, package in INSTALLED.items()
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if _cni() is None:
        lacking.append("CNI plugins: apt-get install containernetworking-plugins")
    return lacking


def programs() -> Programs:
    """Return the programs; all of them must exist (see `missing`)."""
    plane, cni = assets(), _cni()
    assert plane is not None, missing()
    assert cni is not None, missing()
    return Programs(plane, cache() / "bin" / VERSION, cni)


def _cni() -> Path | None:
    for folder in CNI_FOLDERS:
        if all((folder / name).is_file() for name in CNI_PLUGINS):
            return folder
    return None


def wait_until_it_listens(
    name: str, process: subprocess.Popen[bytes], address: str, port: int
) -> None:
    """Wait until a program accepts connections. Raises AssertionError if it ends before."""

    def accepts() -> bool:
        assert process.poll() is None, f"{name} has ended"
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError:
            return False
        return True

    wait_for(accepts, 30, name)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and kill it if it still runs after 20 s."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
