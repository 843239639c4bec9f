"""A daemon whose share is unmounted and mounted again, in a mount namespace of its own.

Run with the folder that is the share, and where it is mounted.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.core.reasons import Reason
from reconciler.daemon.daemon import Daemon
from reconciler.settings import Settings


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def main(kept: str, mounted: str) -> None:
    """Unmount once the daemon has looked; then mount again."""
    mount = ["mount", "--bind", kept, mounted]
    subprocess.run(mount, check=True, timeout=30)
    daemon = Daemon(Settings())
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        until(lambda: bool(daemon.records.instances), "the records")
        subprocess.run(["umount", "--lazy", mounted], check=True, timeout=30)
        until(lambda: daemon.records.repo.share_problem is not None, "ShareMissing")
        problem = daemon.status().problem
        assert problem is not None
        assert problem.reason == Reason.SHARE_MISSING, problem
        time.sleep(1.0)  # it goes on, and makes nothing
        assert list(Path(mounted).iterdir()) == []
        subprocess.run(mount, check=True, timeout=30)
        until(lambda: daemon.records.repo.share_problem is None, "the share again")
        assert (Path(mounted) / "builds").is_dir()
    finally:
        daemon.stop()
        thread.join(60)
        assert not thread.is_alive()


if __name__ == "__main__":
    main(*sys.argv[1:])
