"""Confinement of a container's process, as the kernel reports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOKENS = "/secrets/kubernetes.io/serviceaccount"
SECCOMP_FILTER = "2"


@dataclass(frozen=True, slots=True)
class Confinement:
    """User, group, capabilities, mounts and token of a process.

    `writable` and `read_only` are the mount points of volumes and of the root.
    """

    user: int
    group: int
    capabilities: int  # that it or its children may ever have
    no_new_privileges: bool
    has_seccomp: bool
    writable: frozenset[str]
    read_only: frozenset[str]
    has_token: bool


def confinement(pid: int) -> Confinement:
    """Return what a process may do."""
    folder = Path("/proc") / str(pid)
    lines = (line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    status = {key: value.split() for key, value in lines}
    writable, read_only = set[str](), set[str]()
    for line in (folder / "mountinfo").read_text().splitlines():
        point, options = line.split()[4:6]
        if not point.startswith(("/proc", "/sys", "/dev")):
            (read_only if "ro" in options.split(",") else writable).add(point)
    return Confinement(
        user=int(status["Uid"][1]),
        group=int(status["Gid"][1]),
        capabilities=int(status["CapBnd"][0], 16) | int(status["CapPrm"][0], 16),
        no_new_privileges=status["NoNewPrivs"] == ["1"],
        has_seccomp=status["Seccomp"] == [SECCOMP_FILTER],
        writable=frozenset(writable),
        read_only=frozenset(read_only),
        has_token=any(point.endswith(TOKENS) for point in writable | read_only),
    )
