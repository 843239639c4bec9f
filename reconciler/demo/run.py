"""Implementation of `groundcrew demo`: the main job, from the first commit to a rollback.

It uses a git repository made from `environments.example/`, a directory as the share, SQLite, a real
Airflow under supervisord, the daemon as a separate process, and a webhook sink instead of Slack. It
exits with 0 only if each act really happened, and stops everything that it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reconciler.core.errors import GroundcrewError
from reconciler.core.events import Event, EventKind, seconds_of
from reconciler.demo.airflow import USER, Bed, BedFailed
from reconciler.demo.configuration import free_port
from reconciler.demo.observer import DemoFailed, Watch
from reconciler.demo.repo import INSTANCE, TEAM, Repo
from reconciler.demo.sink import Sink
from reconciler.demo.story import ACTS, HELLO, SLOW, Act, Stage
from reconciler.example import example
from reconciler.store.store import Store

QUIET = frozenset({EventKind.SOURCE_CHANGED, EventKind.BUILD_QUEUED, EventKind.RUNTIME_CHANGED})


class Screen:
    """Output of the demo, with the seconds since the start and the duration of each part."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = time.monotonic()
        self.parts: list[tuple[str, float]] = []

    def part(self, title: str) -> None:
        """Print the title of a part."""
        self.console.rule(f"[bold]{title}", align="left")

    def ended(self, title: str, seconds: float) -> None:
        """Record the duration of a part that has ended."""
        self.parts.append((title, seconds))

    def say(self, text: str) -> None:
        """Print something that was observed."""
        self.console.print(f"{self._clock()}  [green]✓[/green] {_plain(text)}", highlight=False)

    def now(self, text: str) -> None:
        """Print what is being done."""
        self.console.print(f"{self._clock()}  [dim]…[/dim] {_plain(text)}", highlight=False)

    def event(self, event: Event) -> None:
        """Print an event of the daemon's history."""
        if event.kind in QUIET:
            return
        seconds = seconds_of(event.payload)
        took = f" [{seconds:.1f} s]" if seconds is not None else ""
        first_line = event.message.splitlines()[0] if event.message else ""
        self.console.print(
            f"{self._clock()}  [cyan]{event.kind:<18}[/cyan] {_plain(first_line[:160] + took)}",
            highlight=False,
        )

    def _clock(self) -> str:
        return f"[dim]{time.monotonic() - self.begun:6.1f} s[/dim]"

    def summary(self) -> None:
        """Print the parts and their seconds."""
        table = Table("part", "seconds", title="What took how long")
        for title, seconds in self.parts:
            table.add_row(title, f"{seconds:.1f}")
        table.add_row("all", f"{time.monotonic() - self.begun:.1f}")
        self.console.print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


class Daemon:
    """Separate process that runs `groundcrew run`."""

    def __init__(self, root: Path, bed: Bed, repo: Repo, port: int) -> None:
        self.log = root / "groundcrew.log"
        allowed = [bed.python, f"{Path(sys.executable).parent}/*"]
        config = root / "groundcrew.toml"
        config.write_text(
            f'state_dir = "{root / "state"}"\n'
            f'share = "{root / "share"}"\n'
            f'secrets_dir = "{root / "secrets"}"\n'
            f'[git]\nurl = "{repo.path}"\npoll_interval = 2.0\n'
            f"[builder]\nparallel = 2\n"
            f"[local]\nallow = {allowed!r}\n"
            f"[http]\nport = {port}\n"
            f"[activation]\nwatch = 5.0\n"
            f"[notify]\ndigest_above = 100\n"  # each act's messages are checked one by one
        )
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")},
            "GROUNDCREW_CONFIG": str(config),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; its log goes to a file."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def check(self) -> None:
        """Raise DemoFailed if the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise DemoFailed(f"the daemon ended with {self._process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Stop the process like a service manager would, and wait."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)


def demo(
    airflow: str = "3",
    keep: bool = False,
    root: Path | None = None,
    acts: Sequence[Act] = ACTS,
) -> int:
    """Play the acts; return 0 if each really happened, otherwise 1."""
    cache = Path(os.environ.get("GROUNDCREW_DEMO_CACHE") or Path.cwd() / ".cache").resolve()
    root = (root or cache / f"demo-{airflow}").resolve()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    screen = Screen(Console(soft_wrap=True))
    sink = Sink()
    bed = Bed(
        root / "airflow", airflow, root / "share", INSTANCE, team=TEAM, secrets=root / "secrets"
    )
    daemon: Daemon | None = None
    code = 1
    try:
        screen.part(f"set up a real Airflow {airflow}")
        begun = time.monotonic()
        stage, daemon = _set_up(root, cache, bed, sink, screen)
        screen.ended("set up", time.monotonic() - begun)
        for number, (title, act) in enumerate(acts, start=1):
            screen.part(f"{number}. {title}")
            begun = time.monotonic()
            act(stage)
            screen.ended(f"{number}. {title}", time.monotonic() - begun)
        screen.summary()
        _addresses(screen, root, bed, stage, daemon)
        code = 0
        if keep:
            screen.now("left running; Ctrl-C stops everything")
            _wait_for_interrupt()
    except (DemoFailed, BedFailed, GroundcrewError) as error:
        screen.console.print(f"[red]The demo failed:[/red] {_plain(str(error))}")
        screen.console.print(f"Logs are below {root}", highlight=False)
    except KeyboardInterrupt:
        screen.now("stopping")
    finally:
        if daemon is not None:
            daemon.stop()
        bed.stop()
        sink.close()
    return code


def _set_up(root: Path, cache: Path, bed: Bed, sink: Sink, screen: Screen) -> tuple[Stage, Daemon]:
    screen.now("installing Airflow from the package index (kept in .cache for the next time)")
    bed.install(cache)
    screen.now("configuring Airflow and its metadata database")
    bed.configure()
    bed.write_dag("hello", HELLO)
    bed.write_dag("slow", SLOW % 20)
    slack = root / "secrets" / "slack"
    slack.mkdir(parents=True)
    (slack / "url").write_text(sink.url)
    screen.now("starting scheduler, dag-processor, triggerer and the API server")
    bed.start()
    if (factor := bed.pace.factor()) >= 1.5:
        screen.now(f"this machine is busy or slow: the demo waits up to {factor:.1f} times as long")
    with example() as source:
        repo = Repo(root / "environments", source, bed.instance_yaml(INSTANCE, TEAM))
    port = free_port()
    daemon = Daemon(root, bed, repo, port)
    store = Store(f"sqlite:///{root / 'state' / 'groundcrew.db'}")
    (root / "state").mkdir(exist_ok=True)
    store.migrate()
    watch = Watch(store, screen.event, bed.pace)
    watch.alive = daemon.check
    stage = Stage(bed, repo, watch, sink, bed.pace, f"http://127.0.0.1:{port}/metrics", screen.say)
    repo.commit("connect analytics-dev", "instances")
    daemon.start()
    return stage, daemon


def _addresses(screen: Screen, root: Path, bed: Bed, stage: Stage, daemon: Daemon) -> None:
    settings = root / "groundcrew.toml"
    screen.console.print(
        f"Airflow        {bed.url}  (user {USER}, password in {bed.password_file})\n"
        f"metrics        {stage.metrics_url}\n"
        f"environments   {stage.repo.path}  (commit there, and watch)\n"
        f"share          {bed.share}\n"
        f"command line   GROUNDCREW_CONFIG={settings} groundcrew status\n"
        f"daemon's log   {daemon.log}\n"
        f"build logs     {root / 'state' / 'logs'}\n"
        f"Airflow's logs {bed.root}",
        highlight=False,
    )


def _wait_for_interrupt() -> None:
    while True:
        time.sleep(3600)
