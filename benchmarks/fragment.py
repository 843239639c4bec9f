"""One change of a shared fragment, until the last of many instances is active on it.

Each instance has its own environment, in one of ten teams; all take their packages from the
fragment. Half of the instances have a different base, so that there are two runtimes, and each
build is done once for each runtime. Everything is real except Airflow; a fake Airflow answers at
once.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import yaml

from benchmarks.rows import Row
from reconciler.core.events import Event
from reconciler.store.store import Store
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow
from tests.fakes.base import make_base, write_package
from tests.harness.local_daemon import GOOD, Site

SIZES = (1, 10, 30, 100)
TEAMS = 10
SPENT = {  # what a build's log says once for each piece of work that was really done
    "resolutions": re.compile(r"resolving \d+ requirements"),
    "builds": re.compile(r"build \w+ is on the share$"),
    "verifications": re.compile(r"verified: "),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """Measurements of one change."""

    runtimes: int
    seconds: list[float]  # from the commit to each instance's activation
    done: dict[str, int]


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    return [row for size in SIZES for row in _rows(size, change(size))]


def short() -> list[Row]:
    """Return the counts for six instances."""
    return [row for row in _rows(6, change(6)) if row.count]


def _rows(size: int, seen: Seen) -> list[Row]:
    name = f"fragment, {size} instances"
    return [
        Row(name, "commit → active, the last one", max(seen.seconds), "s"),
        Row(name, "commit → active, median", statistics.median(seen.seconds), "s"),
        *(
            Row(
                name,
                what,
                count,
                "",
                "one per runtime",
                seen.runtimes,
                "one per environment",
                size,
                count=True,
            )
            for what, count in seen.done.items()
        ),
    ]


def change(size: int) -> Seen:
    """Bring that many instances to rest, then change the fragment and measure."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        site = stack.enter_context(Crowd(Path(directory) / "site", size))
        store = site.store()
        site.ask("1.0")
        with site.daemon():
            site.active(store, after=0)
            before, last = site.done(), store.last_event_id()
            begun = time.time()
            site.ask("2.0")
            events = site.active(store, after=last)
        done = {what: count - before[what] for what, count in site.done().items()}
        return Seen(site.runtimes, [event.at - begun for event in events], done)


class Crowd(ExitStack):
    """Site with many instances, each with an environment that extends one fragment."""

    def __init__(self, root: Path, size: int) -> None:
        super().__init__()
        self.size = size
        self.site = Site(root, self.enter_context(FakeAirflow()))
        other = make_base(root / "base2", {"other": "1.0"})
        self._pythons: Sequence[str] = (self.site.python, other)
        self.runtimes = min(size, len(self._pythons))
        settings = {
            "state_dir": str(root / "state"),
            "share": str(root / "share"),
            "secrets_dir": str(root / "secrets"),
            "git": {"url": str(self.site.repo), "poll_interval": 1.0},
            "local": {"allow": ["/usr/bin/env", *self._pythons]},
            "http": {"enabled": False},
            "activation": {"watch": 0},
        }
        self.site.config.write_text(tomli_w.dumps(settings))
        (root / "state").mkdir()
        for number in range(size):
            self._define(number)

    def _define(self, number: int) -> None:
        team, name = f"team-{number % TEAMS}", f"instance-{number:03}"
        airflow, python = self.enter_context(FakeAirflow("2")), self._pythons[number % 2]
        secret = self.site.root / "secrets" / team / "airflow"
        secret.mkdir(parents=True, exist_ok=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)
        document = self.site.instance(name)
        spec = document["spec"]
        spec["team"], spec["api"]["url"], spec["loadInto"] = team, airflow.url, ["scheduler"]
        command = [
            python if word == self.site.python else word
            for word in spec["local"]["components"]["scheduler"]["restart"]
        ]
        command[-1] = airflow.restart_url
        spec["local"] |= {"python": python, "components": {"scheduler": {"restart": command}}}
        self.site.write(f"instances/{name}.yaml", yaml.safe_dump(document))
        environment = {
            "apiVersion": "groundcrew/v1",
            "kind": "Environment",
            "metadata": {"name": f"environment-{number:03}"},
            "spec": {"extends": ["platform"], "rollout": [{"instances": [name]}]},
        }
        path = f"teams/{team}/environment-{number:03}.yaml"
        self.site.write(path, yaml.safe_dump(environment))

    def ask(self, version: str) -> None:
        """Commit a fragment that requires this version of `acme`."""
        package = self.site.repo / "shared" / "packages" / "acme"
        shutil.rmtree(package, ignore_errors=True)
        write_package(package, "acme", version, {"acme/__init__.py": GOOD.format(version=version)})
        fragment = {
            "apiVersion": "groundcrew/v1",
            "kind": "Fragment",
            "metadata": {"name": "platform"},
            "spec": {"requirements": ["acme @ ./packages/acme"]},
        }
        self.site.write("shared/platform.yaml", yaml.safe_dump(fragment))
        self.site.save(f"acme {version}")

    def daemon(self) -> ExitStack:
        """Run a daemon until the context ends."""
        running = ExitStack()
        log = running.enter_context((self.site.root / "daemon.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler.cli", "run"],
            env=self.site.environment(),
            stdout=log,
            stderr=log,
        )
        running.callback(process.wait, 60)
        running.callback(process.terminate)
        return running

    def store(self) -> Store:
        """Return the records."""
        store = self.site.store()
        store.migrate()
        self.callback(store.close)
        return store

    def active(self, store: Store, after: int, timeout: float = 900.0) -> list[Event]:
        """Wait until every instance was activated after the event `after`; return those events."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            events = store.events(after_id=after, kinds=["ActivationActive", "BuildFailed"])
            wrong = [event.message for event in events if event.kind != "ActivationActive"]
            assert not wrong, wrong
            if len(events) >= self.size:
                return events
            time.sleep(0.1)
        raise TimeoutError("not all instances became active")

    def done(self) -> dict[str, int]:
        """Return the work that was really done so far, according to the logs of all builds."""
        logs = (self.site.root / "state" / "logs").glob("*.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        return {what: sum(bool(w.search(line)) for line in lines) for what, w in SPENT.items()}
