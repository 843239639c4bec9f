"""Command `python -m tests.chaos --minutes 5 [--seed N]` of `make chaos`. Needs root.

It exits with 1 at the first broken promise, and keeps that lane's folder for inspection.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.chaos.counts import Counts
from tests.chaos.lane import Lane
from tests.chaos.one import OneDaemon, OneDaemonOnABadClock
from tests.chaos.replicas import Replicas

LANES: dict[str, type[Lane]] = {
    "one": OneDaemon,
    "clock": OneDaemonOnABadClock,
    "replicas": Replicas,
}
REPORT_INTERVAL = 60.0  # seconds


class Soak:
    """Lanes that run in parallel until the time is over or one of them finds a broken promise."""

    def __init__(self, root: Path, seed: int, minutes: float, more_faults: int) -> None:
        self.counts = Counts()
        self.broken: list[str] = []
        self._root = root
        self._seed = seed
        self._more_faults = more_faults
        self._deadline = time.monotonic() + minutes * 60.0

    def run(self, names: list[str]) -> None:
        """Run these lanes to the end."""
        threads = [threading.Thread(target=self._play, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        told = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
            if time.monotonic() - told > REPORT_INTERVAL:
                told = time.monotonic()
                _say(*self.counts.lines()[:1], f"{len(self.broken)} broken promises")

    def _play(self, name: str) -> None:
        kind, _, number = name.partition("-")
        del number
        seed = f"{self._seed}/{name}"
        lane = LANES[kind](self._root / name, seed, self.counts, self._more_faults)
        try:
            lane.prepare()
            while time.monotonic() < self._deadline and not self.broken:
                lane.round()
        except BaseException:
            self.broken.append(name)
            log = lane.log.read_text(errors="replace")[-6000:]
            _say(f"BROKEN in {name}: {lane.now}", traceback.format_exc(), log)
            _keep(lane.root)
        finally:
            lane.close()


def _keep(root: Path) -> None:
    """Copy the contents of a lane's file systems, which disappear with the lane."""
    with suppress(shutil.Error):  # sockets
        shutil.copytree(root, root.with_name(f"{root.name}-kept"), symlinks=True)


def main() -> int:
    """Run the soak test and print the counts."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of a run")
    parser.add_argument("--lanes", nargs="*", default=list(LANES), help="`one-2` is a second one")
    purpose = "faults other than kills in each round, besides its own"
    parser.add_argument("--more-faults", type=int, default=0, help=purpose)
    given = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("this mounts file systems: run it as root")
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    root = Path(tempfile.mkdtemp(prefix="groundcrew-chaos-"))
    _say(f"seed {seed}, {given.minutes:g} minutes, lanes: {', '.join(given.lanes)}")
    soak = Soak(root, seed, given.minutes, given.more_faults)
    soak.run(given.lanes)
    _say(*soak.counts.lines())
    if soak.broken:
        _say(f"broken promises in {', '.join(soak.broken)}; seed {seed}; see {root}")
        return 1
    shutil.rmtree(root)
    _say(f"0 broken promises; seed {seed}")
    return 0


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
