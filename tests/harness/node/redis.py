"""Debian's Redis, at an address that pods reach."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.node.programs import end, wait_until_it_listens

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

        try:
            wait_until_it_listens("Redis", process, address, port)
            yield f"redis://:{PASSWORD}@{address}:{port}/0"
        finally:
            end(process)
