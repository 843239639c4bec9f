"""Debian's Redis, at an address that pods reach."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.kube_api import wait_for
from tests.harness.node.programs import end

PASSWORD = "redis-of-a-test"


@contextmanager
def redis(address: str, port: int = 16379) -> Iterator[str]:
    """Run a server that asks for a password; yield its URL."""
    program = shutil.which("redis-server")
    assert program is not None, "Redis is not installed: apt-get install redis-server"
    with tempfile.TemporaryDirectory(prefix="groundcrew-node-redis-") as folder:
        options = {"bind": address, "port": str(port), "requirepass": PASSWORD, "save": ""}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = subprocess.Popen(
            [program, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

        def answers() -> bool:
            assert process.poll() is None, "Redis has ended"
            try:
                socket.create_connection((address, port), timeout=5).close()
            except OSError:
                return False
            return True

        try:
            wait_for(answers, 30, "Redis")
            yield f"redis://:{PASSWORD}@{address}:{port}/0"
        finally:
            end(process)
