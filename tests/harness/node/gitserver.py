"""Git server for pods: the environments repo, and repositories of DAGs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.kube_api import wait_for
from tests.harness.node.programs import end

GIT_PORT = 9418


@contextmanager
def git_server(folder: Path, address: str, port: int = GIT_PORT) -> Iterator[str]:
    """Serve every repository below a folder, whoever owns it; yield the URL of the folder."""
    process = subprocess.Popen(
        [
            "git",
            "daemon",
            "--export-all",
            "--reuseaddr",
            f"--listen={address}",
            f"--port={port}",
            f"--base-path={folder}",
            str(folder),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "git daemon has ended"
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError:
            return False
        return True

    try:
        wait_for(answers, 30, "git daemon")
        yield f"git://{address}:{port}"
    finally:
        end(process)
