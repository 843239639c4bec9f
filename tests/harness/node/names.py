"""Name server of the cluster: CoreDNS, for the Services and for hosts outside of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.harness.node.network import HOST
from tests.harness.node.node import CLUSTER_DOMAIN, Node
from tests.harness.node.programs import end, wait_until_it_listens

PORT = 53
CONFIG = """\
.:{port} {{
    bind {address}
    errors
    hosts {{
        {hosts}
        fallthrough
    }}
    kubernetes {domain} {{
        kubeconfig {kubeconfig}
    }}
}}
"""


@contextmanager
def names(node: Node, hosts: Mapping[str, str]) -> Iterator[None]:
    """Answer pods that ask for Services, or for `hosts`, which have addresses."""
    program = node.programs.folder / "coredns"
    assert program.is_file(), "the tests of nights need CoreDNS: make node ALL=1"
    config = node.root / "Corefile"
    config.write_text(
        CONFIG.format(
            port=PORT,
            address=HOST,
            hosts="\n        ".join(f"{address} {name}" for name, address in hosts.items()),
            domain=CLUSTER_DOMAIN,
            kubeconfig=node.root / "plane" / "admin.kubeconfig",
        )
    )
    with (node.root / "coredns.log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "-conf", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_it_listens("CoreDNS", process, HOST, PORT)
        yield
    finally:
        end(process)
