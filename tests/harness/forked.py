"""Daemon in a process forked from one with all imports done, which saves seconds per run."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

PRELOAD = ["reconciler.daemon.daemon", "reconciler.cli.run", "tests.harness.forked"]
NOT_STARTED = 3  # exit code, like the command line's


@dataclass(frozen=True, slots=True)
class Run:
    """Mode of a daemon's run: until nothing is left to do, or until it is told to stop.

    At `failpoint` it is killed, or frozen with `freezes`; passed failpoints are listed in
    `listing`.
    """

    once: bool = True
    failpoint: str = ""
    freezes: bool = False
    listing: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def context() -> ForkServerContext:
    """Return the context from which such processes are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def start(config: Path, log: Path, run: Run) -> ForkServerProcess:
    """Start a daemon."""
    process = context().Process(target=_main, args=(str(config), str(log), run), daemon=True)
    process.start()
    return process


def once(config: Path, log: Path, failpoint: str = "", listing: str = "") -> int:
    """Run `groundcrew run --once`, killed at a failpoint if given; return the exit code."""
    return end(start(config, log, Run(failpoint=failpoint, listing=listing)), log)


def end(process: ForkServerProcess, log: Path, seconds: float = 120) -> int:
    """Wait for a daemon to end; return its exit code."""
    process.join(timeout=seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"the daemon did not end:\n{log.read_text()[-3000:]}")
    assert process.exitcode is not None
    return process.exitcode


def _main(config: str, log: str, run: Run) -> None:
    from reconciler import failpoints
    from reconciler.cli.run import start_logging
    from reconciler.core.errors import GroundcrewError
    from reconciler.daemon.daemon import Daemon
    from reconciler.settings import Settings

    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update({**run.variables, "GROUNDCREW_CONFIG": config})
    start_logging("text")
    failpoints.arm(run.failpoint, run.listing, freezes=run.freezes)
    try:
        daemon = Daemon(Settings())
        code = daemon.run(once=run.once)
    except GroundcrewError as error:
        sys.stderr.write(f"error: {error}\n")
        os._exit(NOT_STARTED)
    if not daemon.ended:  # whatever still runs here must end with the process, as in the CLI
        os._exit(code)
    sys.exit(code)
