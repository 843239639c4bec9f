"""One daemon with its records in SQLite: killed at every step, with failing disks and clocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tests.chaos.counts import KILLED
from tests.chaos.lane import PATIENCE, Lane
from tests.harness.forked import Run, end, start
from tests.harness.promises import Asked

LEFT = (0, 4 << 10, 40 << 10, 300 << 10)  # free bytes on a full disk
CUTS = (0, 4, 60, 200, 500, 1000, 3000)  # bytes of git's response before it ends
JUMPS = (-7200.0, -90.0, 45.0, 1000.0, 7200.0)  # seconds
AIMED = 12  # kills during the delivery of one version
LONGEST_RUN = 3.0  # seconds after which a daemon usually has nothing left to do
SOURCE = Path(__file__).resolve().parents[2]


class OneDaemon(Lane):
    """Daemon that ends if nothing is left to do, and is then started again."""

    COLLECTS = True

    def prepare(self) -> None:
        """Record the failpoints that lead to each kind of version, in the order they are passed."""
        if self.COLLECTS:  # all that may be collected goes at once
            self.variables |= {
                "GROUNDCREW_GC__INTERVAL": "1",
                "GROUNDCREW_GC__GRACE": "0",
                "GROUNDCREW_GC__KEEP": "1",
            }
        self.commit(Asked.GOOD)
        self.settle(Asked.GOOD, None)
        self.points: dict[Asked, Counter[str]] = {}
        self._aimed: Counter[str] = Counter()
        for asked in Asked:
            listing = self.root / f"failpoints-{asked.name}"
            self.play(asked, partial(self.run, listing=str(listing)))
            self.points[asked] = Counter(listing.read_text().split())

    def start(self, failpoint: str = "", listing: str = "") -> int:
        """Run a daemon until it ends; return its exit code."""
        run = Run(failpoint=failpoint, listing=listing, variables=self.variables)
        return end(start(self.site.config, self.log, run), self.log)

    def run(self, failpoint: str = "", listing: str = "") -> bool:
        """Run a daemon until it ends; return True if it was killed at the failpoint."""
        killed = self.start(failpoint, listing) == KILLED
        if killed:
            self.counts.killed(failpoint.partition(":")[0])
            self.check_now()
        return killed

    def go_on(self) -> None:
        """Run a daemon until nothing is left to do."""
        self.run()

    def rest(self) -> None:
        """Let garbage be collected in the next round; the daemons have already ended."""
        if self.COLLECTS:
            self.age_share()

    def disturb(self, asked: Asked) -> None:
        """Kill the daemon, or let something in its environment fail."""
        choices: list[Callable[[Asked], None]] = [self._kill_aimed] * 3
        choices += [self._kill_at_random, *self.faults()]
        self.random.choice(choices)(asked)

    def faults(self) -> list[Callable[[Asked], None]]:
        """Return faults of the disks and of git."""
        return [self._disk_full, self._disk_read_only, self._git_cut]

    # -------------------------------------------------------------------------------- kills

    def _kill_aimed(self, asked: Asked) -> None:
        points = self.points[asked]
        todo = sorted(points, key=lambda point: (self._aimed[point], self.random.random()))[:AIMED]
        for point in sorted(todo, key=list(points).index):
            nth = self.random.randint(1, points[point]) if self.random.random() < 0.5 else 1
            self._aimed[point] += 1
            self.now = f"kill -9 at {point}:{nth}"
            self.run(f"{point}:{nth}")

    def _kill_at_random(self, asked: Asked) -> None:
        del asked
        for _ in range(self.random.randint(2, 8)):
            seconds = self.random.uniform(0.05, LONGEST_RUN)
            self.now = f"kill -9 after {seconds:.2f} s"
            process = start(self.site.config, self.log, Run(variables=self.variables))
            process.join(seconds)
            if process.is_alive():
                process.kill()
                self.counts.killed("at random")
            process.join()
            self.check_now()

    # ------------------------------------------------------------------------------- faults

    def _disk_full(self, asked: Asked) -> None:
        del asked
        disk, left = self.random.choice([self.share, self.state]), self.random.choice(LEFT)
        self._fail(f"{disk.path.name}: full", disk.full(left))

    def _disk_read_only(self, asked: Asked) -> None:
        del asked
        disk = self.random.choice([self.share, self.state])
        names = {self.share: "share: read-only", self.state: "database: read-only"}
        self._fail(names[disk], disk.read_only())

    def _git_cut(self, asked: Asked) -> None:
        del asked
        self.now = "git: cut"
        before = self.git.cuts
        self.git.cut_after(*(self.random.choice(CUTS) for _ in range(self.random.randint(1, 4))))
        self.run()
        self.git.cut_after()
        for _ in range(self.git.cuts - before):
            self.counts.failed("git: cut in the middle")

    def _fail(self, name: str, fault: AbstractContextManager[None]) -> None:
        """Let something fail for a while in which a daemon works, and perhaps kill the daemon."""
        delay = self.random.choice([0.0, self.random.uniform(0.0, LONGEST_RUN)])
        seconds, kill = self.random.uniform(0.3, 3.0), self.random.random() < 0.3
        self.now = f"{name} after {delay:.2f} s, for {seconds:.2f} s" + (", killed" if kill else "")
        process = start(self.site.config, self.log, Run(variables=self.variables))
        process.join(delay)
        with fault:
            worked = process.is_alive()
            process.join(seconds)
            if kill and process.is_alive():
                process.kill()
                self.counts.killed(f"while {name}")
                process.join()
        end(process, self.log)
        if worked:
            self.counts.failed(name)
        self.check_now()


class OneDaemonOnABadClock(OneDaemon):
    """Daemon on a machine whose clock jumps, which Airflow on the same machine also sees.

    Builds are kept for `gc.grace`, within which clocks must agree.
    """

    COLLECTS = False

    def faults(self) -> list[Callable[[Asked], None]]:
        """Return faults of the clock only."""
        return [self._clock_jumps] * 4

    def _clock_jumps(self, asked: Asked) -> None:
        del asked
        offset = self.random.choice(JUMPS)
        seconds, kill = self.random.uniform(0.5, 2 * LONGEST_RUN), self.random.random() < 0.3
        self.now = f"clock: {offset:+.0f} s after {seconds:.2f} s" + (", killed" if kill else "")
        with self._fake_clock() as (variables, jump), self.log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run", "--once"],
                env=self.site.environment(**self.variables, **variables),
                stdout=log,
                stderr=log,
                cwd=SOURCE,
            )
            try:
                _wait(process, seconds)
                worked = process.poll() is None
                jump(offset)
                _wait(process, self.random.uniform(0.2, LONGEST_RUN) if kill else PATIENCE)
                if kill and process.poll() is None:
                    process.kill()
                    self.counts.killed("after a jump of the clock")
                code = process.wait(30)
            finally:
                process.kill()
                process.wait(30)
        assert kill or code in (0, 1), f"the daemon ended with {code}"
        if worked:
            self.counts.failed(f"clock: {offset:+.0f} s and back")
        self.check_now()

    @contextmanager
    def _fake_clock(self) -> Iterator[tuple[dict[str, str], Callable[[float], None]]]:
        """Yield the variables of a process whose clock jumps, and a function that lets it jump."""
        file = self.root / "clock"

        def jump(offset: float) -> None:
            temporary = file.with_suffix(".new")
            temporary.write_text(f"{offset:+.0f}\n")
            temporary.replace(file)
            self.airflow.clock = lambda: time.time() + offset

        jump(0.0)
        variables = {
            "LD_PRELOAD": f"{self._sleep_library()} {_libfaketime()}",
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        try:
            yield variables, jump
        finally:
            self.airflow.clock = time.time

    def _sleep_library(self) -> Path:
        """Compile the library that keeps Python's sleep independent of the changed clock."""
        library = self.root / "sleep.so"
        if not library.is_file():
            source = Path(__file__).with_name("sleep.c")
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        return library


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _libfaketime() -> str:
    """Return the path of libfaketime on Debian and Ubuntu."""
    files = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert files, "libfaketime is not installed: apt-get install libfaketime"
    return os.fspath(files[0])
