"""Git server for pods: the environments repo, and repositories of DAGs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.node.programs import end, wait_until_it_listens

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

    try:
        wait_until_it_listens("git daemon", process, address, port)
        yield f"git://{address}:{port}"
    finally:
        end(process)
