"""Network of the node: its own namespace, joined to this machine by one pair of interfaces."""

from __future__ import annotations

import subprocess
from types import TracebackType

from tests.harness.control_plane import SERVICES

HOST = "10.213.0.1"  # this machine, as seen from the node and its pods
NODE = "10.213.0.2"
PODS = "10.214.0.0/24"
NAMESPACE = "groundcrew-node"
HOST_LINK, NODE_LINK = "gcnode-host", "gcnode-node"


class Network:
    """Context manager. Pods reach this machine and each other, and nothing else."""

    def __enter__(self) -> Network:
        self._remove()
        _ip("netns", "add", NAMESPACE)
        try:
            _ip(
                "link",
                "add",
                HOST_LINK,
                "type",
                "veth",
                "peer",
                "name",
                NODE_LINK,
                "netns",
                NAMESPACE,
            )
            _ip("addr", "add", f"{HOST}/24", "dev", HOST_LINK)
            _ip("link", "set", HOST_LINK, "up")
            _ip("-n", NAMESPACE, "link", "set", "lo", "up")
            _ip("-n", NAMESPACE, "addr", "add", f"{NODE}/24", "dev", NODE_LINK)
            _ip("-n", NAMESPACE, "link", "set", NODE_LINK, "up")
            _ip("-n", NAMESPACE, "route", "add", "default", "via", HOST)
            for there in (PODS, SERVICES):
                _ip("route", "add", there, "via", NODE)
            subprocess.run(
                [*self.inside, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"],
                check=True,
                timeout=20,
            )
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def inside(self) -> list[str]:
        """The prefix of a command that runs in the node's network."""
        return ["nsenter", f"--net=/run/netns/{NAMESPACE}"]

    def _remove(self) -> None:
        """Remove what exists, also leftovers of a killed run; routes go with their interface."""
        _ip("link", "del", HOST_LINK, check=False)
        _ip("netns", "del", NAMESPACE, check=False)


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)
