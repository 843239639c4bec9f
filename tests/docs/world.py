"""World in which the docs' own commands can be run, with the docs' own names and paths.

Real git, uv, package indexes, daemon and loader; Airflow is the fake one. Absolute paths and URLs
of the docs are redirected below `root`, and nothing else of a block is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reconciler.api.documents import status_document
from reconciler.core.statuses import status
from reconciler.daemon.open_records import current
from reconciler.settings import Settings
from tests.docs.blocks import ROOT, Block
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow
from tests.fakes.base import make_base
from tests.harness.wheels import IndexServer, make_wheel

INDEX_USER, INDEX_PASSWORD = "index-user", "index-pa55word"
SECONDS = 120.0  # limit for everything
WHEELS = (("humanize", "4.9.0"), ("humanize", "4.12.0"), ("tabulate", "0.9.0"))
HOMES = {"analytics-dev": "/opt/airflow", "analytics-prod": "/opt/airflow-prod"}
SUPERVISORCTL = """\
#!/bin/sh
# Restarts components as supervisord would: each gets the loader.
shift
for component in "$@"; do
    PYTHONPATH={loader} {python} -m airflow "$component" {url} || exit 1
done
"""
INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {{name: {name}}}
spec:
  team: analytics
  local:
    python: {home}/bin/python
    airflowHome: {home}/home
    components:
      scheduler: {{restart: [{home}/bin/supervisorctl, restart, scheduler]}}
      dag-processor: {{restart: [{home}/bin/supervisorctl, restart, dag-processor]}}
  api: {{url: "{url}", credentials: analytics-airflow}}
"""
ENVIRONMENT = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {name: analytics}
spec:
  requirements: ["humanize<4.10"]
  rollout:
    - {instances: [analytics-dev, analytics-prod]}
"""
SETTINGS = """\
share = "/srv/groundcrew"
state_dir = "/var/lib/groundcrew"
secrets_dir = "/etc/groundcrew/secrets"
[git]
url = "file:///srv/git/environments"
poll_interval = 0.5
[local]
allow = ["/opt/airflow*/bin/*"]
[http]
port = 0
"""


class World:
    """One machine; `here` is the directory in which the blocks are run."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.here = root, root / "work"
        self.variables: dict[str, str] = {}
        self.http = "http://127.0.0.1:8085"
        self.config: Path | None = None  # otherwise groundcrew.toml where the blocks are run
        self.here.mkdir(parents=True)
        self.airflows = {name: stack.enter_context(FakeAirflow()) for name in HOMES}
        self.public = stack.enter_context(IndexServer(root / "public"))
        self.private = stack.enter_context(
            IndexServer(root / "private", (INDEX_USER, INDEX_PASSWORD))
        )
        for name, version in WHEELS:
            make_wheel(self.public.folder, name, version)
        make_wheel(self.private.folder, "acme-core", "1.2.0")
        for name, home in HOMES.items():
            self._machine(name, home)
        for directory in ("/srv/groundcrew", "/var/lib/groundcrew", "/srv/git"):
            self.path(directory).mkdir(parents=True)
        self._programs()

    def _machine(self, name: str, home: str) -> None:
        """Create an Airflow as an interpreter, and the command that restarts it."""
        python = make_base(self.path(home))
        self.path(f"{home}/home").mkdir()
        script = self.path(f"{home}/bin/supervisorctl")
        loader = self.path(f"/srv/groundcrew/instances/{name}/loader")
        url = self.airflows[name].restart_url
        script.write_text(SUPERVISORCTL.format(loader=loader, python=python, url=url))
        script.chmod(0o755)

    def _programs(self) -> None:
        """Install `groundcrew` as a user would have it."""
        folder = self.root / "bin"
        folder.mkdir()
        program = folder / "groundcrew"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m reconciler.cli "$@"\n')
        program.chmod(0o755)

    def path(self, absolute: str) -> Path:
        """Return the path in this world of a path in the docs."""
        return self.root / absolute.lstrip("/")

    def led(self, text: str) -> str:
        """Return a text of the docs with its paths and URLs redirected into this world."""
        changes = {
            "https://pypi.corp.example/simple/": self.private.url,
            "http://127.0.0.1:8085": self.http,
            "http://127.0.0.1:8080": self.airflows["analytics-dev"].url,
            **{p: str(self.path(p)) for p in ("/opt/airflow", "/etc/groundcrew")},
            **{
                p: str(self.path(p)) for p in ("/srv/groundcrew", "/srv/git", "/var/lib/groundcrew")
            },
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    # ---------------------------------------------------------------------------------- running

    def environment(self) -> dict[str, str]:
        """Return the variables of a reader's shell."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GROUNDCREW_", "GIT_"))}
        people = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "A. Author"), ("EMAIL", "author@example.com"))
        }
        return {
            **kept,
            **people,
            "PATH": f"{self.root / 'bin'}:{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            **self.variables,
            "USER": "reader",
            **({"GROUNDCREW_CONFIG": str(self.config)} if self.config else {}),
            "GROUNDCREW_ACTIVATION__WATCH": "1",
            "GROUNDCREW_BUILDER__DEFAULT_INDEX": self.public.url,
            "GROUNDCREW_BUILDER__ALLOW_HOSTS": f'["{self.private.host}"]',
            "AIRFLOW_USER": USER,
            "AIRFLOW_PASSWORD": PASSWORD,
            "INDEX_USER": INDEX_USER,
            "INDEX_PASSWORD": INDEX_PASSWORD,
        }

    def shell(self, text: str) -> str:
        """Run a text; fail with its output unless it ends with 0."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.here,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout

    def take(self, block: Block) -> str:
        """Write or run a block, as a reader would; return its output."""
        if block.title:
            path = self.here / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.led(block.text))
            return ""
        return self.shell(self.led(block.text)) if block.mark == "run" else ""

    # ----------------------------------------------------------------- initial states of pages

    def prepare(self) -> None:
        """Create an environments repo with two instances, a checkout, settings and secrets."""
        bare = self.path("/srv/git/environments")
        self.shell(f"git init --quiet --bare --initial-branch=main {bare}")
        self.shell(f"git clone --quiet {bare} environments 2>&1")
        self.config = self.root / "groundcrew.toml"
        self.config.write_text(self.led(SETTINGS))
        secret = self.path("/etc/groundcrew/secrets/analytics/analytics-airflow")
        secret.mkdir(parents=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)
        self.here /= "environments"
        for name, home in HOMES.items():
            url = self.airflows[name].url
            text = INSTANCE.format(name=name, home=self.path(home), url=url)
            self.write(f"instances/{name}.yaml", text)
        self.write("teams/analytics/analytics.yaml", ENVIRONMENT)
        self.shell("git checkout --quiet -B main; git add .; git commit --quiet --message first")
        self.shell("git push --quiet --set-upstream origin main")

    def write(self, path: str, text: str) -> None:
        """Write a file of the checkout."""
        (self.here / path).parent.mkdir(parents=True, exist_ok=True)
        (self.here / path).write_text(textwrap.dedent(text))

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon as on the machine, and check that it ends well."""
        log = self.root / "daemon.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self.root / "bin" / "groundcrew", "run"],
                cwd=self.here.parent,
                env=self.environment(),
                stdout=out,
                stderr=out,
            )
        try:
            while "leading with epoch" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            self.http = log.read_text().split("listening on ")[1].split()[0]
            self.settled()
            yield
            process.terminate()
            assert process.wait(timeout=60) == 0, log.read_text()
        except BaseException:
            sys.stderr.write(log.read_text()[-6000:])
            raise
        finally:
            process.kill()
            process.wait(timeout=60)

    def status(self) -> dict[str, Any]:
        """Return the document of `groundcrew status -o json`."""
        settings = Settings(state_dir=self.path("/var/lib/groundcrew"))
        return status_document(status(None, current(settings), time.time()))

    def instance(self, name: str) -> dict[str, Any]:
        """Return an instance of that document."""
        (instance,) = (i for i in self.status()["instances"] if i["name"] == name)
        return dict(instance)

    def settled(self) -> dict[str, Any]:
        """Wait until the newest revision is in force, or the rest waits for a person."""
        bare = self.path("/srv/git/environments")
        head = self.shell(f"git -C {bare} rev-parse main").strip()
        deadline, calm = time.monotonic() + SECONDS, 0
        document: dict[str, Any] = {}
        while calm < 3:
            assert time.monotonic() < deadline, document
            time.sleep(0.3)
            document = self.status()
            calm = calm + 1 if document["revision"] == head and _rests(document) else 0
        return document

    def history(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        events: list[dict[str, Any]] = json.loads(self.shell("groundcrew history -n 1000 -o json"))
        return [event for event in events if event["kind"] == kind]

    def installed(self, name: str) -> list[str]:
        """Return the distributions in the build that an instance's pointer names."""
        pointer = json.loads(
            self.path(f"/srv/groundcrew/instances/{name}/pointer.json").read_text()
        )
        builds = {
            entry["build"] if isinstance(entry, dict) else entry
            for entry in pointer["builds"].values()
        }
        (build,) = builds
        lock = self.path(f"/srv/groundcrew/builds/{build}/pylock.toml").read_text()
        return [line.split('"')[1] for line in lock.splitlines() if line.startswith("name = ")]


def _rests(status: dict[str, Any]) -> bool:
    busy = {"Queued", "Resolving", "Building", "Verifying"}
    builds = [b["phase"] for e in status["environments"] for b in e["builds"]]
    instances = status["instances"]
    calm = all(i["sync"] == "Synced" or i["waits_on"] or i["quarantined"] for i in instances)
    still = all(i["health"] != "Progressing" or i["waits_on"] for i in instances)
    return bool(instances) and calm and still and not busy & set(builds)


@contextmanager
def world(root: Path) -> Iterator[World]:
    """Yield a world whose servers end with it."""
    with ExitStack() as stack:
        yield World(root, stack)
        shutil.rmtree(root / "var", ignore_errors=True)
