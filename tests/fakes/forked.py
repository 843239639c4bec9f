"""The daemon in a process forked from one that has imported everything: seconds saved per run."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

PRELOAD = ["reconciler.daemon.daemon", "reconciler.cli.running", "tests.fakes.forked"]


def context() -> ForkServerContext:
    """Where such processes come from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def once(config: Path, log: Path, failpoint: str = "", listing: str = "") -> int:
    """`groundcrew run --once`, killed at a failpoint if one is given; returns the exit code."""
    process = context().Process(target=_main, args=(str(config), str(log), failpoint, listing))
    process.start()
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"the daemon did not end:\n{log.read_text()[-3000:]}")
    assert process.exitcode is not None
    return process.exitcode


def _main(config: str, log: str, failpoint: str, listing: str) -> None:
    from reconciler import faults
    from reconciler.cli.running import start_logging
    from reconciler.daemon.daemon import Daemon
    from reconciler.settings import Settings

    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["GROUNDCREW_CONFIG"] = config
    start_logging("text")
    faults.arm(failpoint, listing)
    sys.exit(Daemon(Settings()).run(once=True))
