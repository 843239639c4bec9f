"""Sites that are killed and restarted repeatedly, and a task that runs through all of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from pprint import pformat
from typing import Self

from reconciler.core.event_codec import data_of
from reconciler.core.model import Records
from tests.fakes.airflow_rest import FakeAirflow, State
from tests.harness.forked import once
from tests.harness.local_daemon import INSTANCE, Site
from tests.harness.promises import Asked, check_always, check_at_rest, pointed_build

TASK = """
import acme, json, os, sys
print(json.dumps([os.environ["GROUNDCREW_BUILD"], acme.__version__]), flush=True)
sys.stdin.readline()
from acme import late
print(json.dumps([os.environ["GROUNDCREW_BUILD"], late.version]), flush=True)
"""


class Task:
    """Process that began with one build, and imports more of it only when it ends."""

    def __init__(self, site: Site) -> None:
        loader = site.root / "share" / "instances" / INSTANCE / "loader"
        variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")},
            "PYTHONPATH": str(loader),
            "GROUNDCREW_COMPONENT": "worker",
            "GROUNDCREW_LOCAL": "off",  # everything that it loads, it loads from the share
        }
        self.process = subprocess.Popen(
            [site.python, "-c", TASK],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.began = self._line()

    def _line(self) -> list[str]:
        assert self.process.stdout is not None
        fields: list[str] = json.loads(self.process.stdout.readline() or "[]")
        return fields

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.communicate(timeout=10)

    def end(self) -> list[str]:
        """Let it import the rest; return (build, version) as it then sees them."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        ended = self._line()
        assert self.process.wait(timeout=30) == 0
        return ended


class Lane:
    """Site on version 1.0 with another version requested, to be restarted repeatedly."""

    def __init__(self, root: Path, airflow: FakeAirflow, version: str, text: str) -> None:
        self.site = Site(root / "site", airflow)
        self.log = root / "log"
        self.listing = root / "failpoints"
        self.airflow = airflow
        self.site.commit("1.0")
        assert self.run() == 0, self.log.read_text()[-3000:]
        self.first = self.pointed()
        self.site.commit(version, text)
        self.kept = self.site.keep()

    def run(self, failpoint: str = "", listing: str = "") -> int:
        return once(self.site.config, self.log, failpoint, listing)

    def start_over(self) -> None:
        self.site.put_back(self.kept)
        self.airflow.state = State(heartbeats=dict(self.airflow.state.heartbeats))
        self.log.write_text("")

    def pointed(self) -> str | None:
        return pointed_build(self.site)

    def records(self) -> Records:
        store = self.site.store()
        try:
            return store.load()
        finally:
            store.close()

    def told(self) -> str:
        """Return what the records hold and the end of the log, for the message of a failure."""
        store = self.site.store()
        try:
            records = store.load()
            events = store.events(limit=40, newest_first=True)[::-1]
        finally:
            store.close()
        return "\n".join(
            [
                f"pointer: {self.pointed()}",
                pformat(records.instances),
                pformat(records.builds),
                *(
                    f"{e.at:.3f} {e.object} {e.kind} {e.reason_name} {e.message} {data_of(e)}"
                    for e in events
                ),
                self.log.read_text()[-3000:],
            ]
        )

    def check_promises(self, point: str) -> None:
        """Check what holds at any moment."""
        try:
            check_always(self.site, self.records())
        except AssertionError as error:
            raise AssertionError(f"{point}: {error}") from error

    def check_end(self, point: str, rolled_back: bool) -> None:
        """Check the end: the newest good build, loaded by all, pools as they were."""
        asked = Asked.FAILS_LIVE if rolled_back else Asked.GOOD
        try:
            check_at_rest(self.site, self.records(), asked, self.first)
        except AssertionError as error:
            raise AssertionError(f"{point}: {error}") from error
