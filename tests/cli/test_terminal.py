"""Output on a terminal, and output in a pipe for programs."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from reconciler.cli.app import app
from reconciler.cli.reference import REFERENCE, reference
from reconciler.cli.variables import misspelt
from reconciler.store.store import Store
from tests.cli.terminal import terminal
from tests.harness.local_daemon import ENVIRONMENT, INSTANCE, Site

ROOT = Path(__file__).parents[2]

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


# ------------------------------------------------------------------------------------------- watch


def test_watch_shows_what_changes(site: Site) -> None:
    """A terminal shows them in place, in colours, until Ctrl-C, which is no error."""
    with terminal(site.environment(), "status", "--watch", "--interval", "0.2") as screen:
        screen.until("Healthy")
        assert COLOUR.search(screen.shown)
        assert screen.shown.count("\x1b[2J") >= 1
        assert site.run("suspend", f"instance/{INSTANCE}")[0] == 0
        assert site.once()[0] == 0
        screen.until("Suspended")
        screen.process.send_signal(2)
        assert screen.end() == 0
        assert "Traceback" not in screen.shown
    assert site.run("resume", f"instance/{INSTANCE}")[0] == 0
    assert site.once()[0] == 0


def test_watch_in_a_pipe_is_a_document_a_line(site: Site) -> None:
    """One for each change and none without; `--check` ends it when everything is healthy."""
    command = [sys.executable, "-m", "reconciler.cli", "status", "--watch", "--interval=0.2"]
    with subprocess.Popen(
        [*command, "-o", "json"], env=site.environment(), stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline())]
        assert seen[0]["instances"][0]["suspended"] is False
        assert not select.select([watching.stdout], [], [], 1.0)[0]
        assert site.run("suspend", f"instance/{INSTANCE}")[0] == 0
        assert site.once()[0] == 0
        while not seen[-1]["instances"][0]["suspended"]:
            seen.append(json.loads(watching.stdout.readline()))
        watching.send_signal(2)
        assert watching.wait(30) == 0
        seen += [json.loads(line) for line in watching.stdout]
    assert all(old != new for old, new in pairwise(seen))
    with subprocess.Popen(
        [*command, "--check"], env=site.environment(), stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("revision")
        assert waiting.poll() is None
        assert site.run("resume", f"instance/{INSTANCE}")[0] == 0
        assert site.once()[0] == 0
        assert waiting.wait(30) == 0
        assert "\x1b" not in waiting.stdout.read()


def test_watch_without_records_says_so(site: Site, tmp_path: Path) -> None:
    """The message is that of `status`."""
    code, output = site.run("status", "--watch", GROUNDCREW_STATE_DIR=str(tmp_path / "none"))
    assert code == 3
    assert "NoRecords" in output


def test_watch_waits_for_the_first_records(site: Site, tmp_path: Path) -> None:
    """A daemon that is just starting: reported, then shown."""
    (tmp_path / "groundcrew.db").touch()
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler.cli", "status", "--watch", "--interval=0.2"],
        env=site.environment(GROUNDCREW_STATE_DIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert "has not written any records yet" in watching.stdout.readline()
        store = Store(f"sqlite:///{tmp_path / 'groundcrew.db'}")
        store.migrate()
        store.close()
        assert watching.stdout.readline() == "revision none yet\n"
        watching.send_signal(2)
        assert watching.wait(30) == 0


# ---------------------------------------------------------------------------- colours and progress


@pytest.mark.parametrize("words", [["status"], ["doctor"], ["history"]], ids=str)
def test_colours_are_for_terminals(words: list[str], site: Site) -> None:
    """None in a pipe; none with NO_COLOR."""
    code, output = site.run(*words)
    assert code == 0
    assert "\x1b" not in output
    with terminal(site.environment(), *words) as screen:
        assert screen.end() == 0
        assert COLOUR.search(screen.shown)
    with terminal({**site.environment(), "NO_COLOR": "1"}, "status") as screen:
        assert screen.end() == 0
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen.shown)


def test_long_work_shows_how_far_it_is(site: Site) -> None:
    """The doctor shows what it has checked; the line disappears, and the findings stay."""
    with terminal(site.environment(), "doctor") as screen:
        assert screen.end() == 0
    assert "looking at everything" in screen.shown
    last = screen.shown.rsplit("looked at", 1)[1]
    assert "LEVEL" in last


def test_waiting_for_the_daemon_is_shown(site: Site) -> None:
    """It ends at --timeout; without a daemon the exit code is 3 and the request stays queued."""
    arguments = ("suspend", f"instance/{INSTANCE}", "--wait", "--timeout", "1")
    with terminal(site.environment(), *arguments) as screen:
        assert screen.end() == 3
    assert "waiting for the daemon" in screen.shown
    assert "stays queued" in screen.shown
    site.run("resume", f"instance/{INSTANCE}")
    assert site.once()[0] == 0


# ------------------------------------------------------------------------------------ did you mean


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stauts"], "status"),
        (["docter"], "doctor"),
        (["rollback", "red-dve"], f"instance/{INSTANCE}"),
        (["refresh", "onne"], f"environment/{ENVIRONMENT}"),
        (["logs", "onne"], f"environment/{ENVIRONMENT}"),
        (["history", "instnce/red-dev"], f"instance/{INSTANCE}"),
        (["status", "--wach"], "--watch"),
        (["doctor", "gti"], "git"),
    ],
    ids=str,
)
def test_a_name_that_is_nearly_right(words: list[str], meant: str, site: Site) -> None:
    """Exit 2, and a suggestion."""
    code, output = site.run(*words)
    assert code == 2
    told = rf"(did you mean|Did you mean|Possible options:).*{re.escape(meant)}"
    assert re.search(told, " ".join(output.split())), output
    assert "Traceback" not in output


def test_status_says_that_no_daemon_looks_any_more(site: Site) -> None:
    """Everything was healthy when the last one ended, which need not be so now."""
    line = "no daemon is running: this is what the last one recorded"
    assert line in site.run("status")[1]
    assert line not in site.run("status", "-o", "json")[1]
    store = site.store()
    lease = store.acquire("test", 60)
    assert lease is not None
    try:
        assert line not in site.run("status")[1]
    finally:
        store.release(lease)
        store.close()


def test_a_setting_that_is_nearly_right(site: Site, config: Path) -> None:
    """A key in the file or in a variable's section is refused; a whole variable is reported."""
    config.write_text(config.read_text().replace("poll_interval", "pol_interval"))
    code, output = site.run("status")
    assert code == 2
    assert "did you mean git.poll_interval?" in output
    config.write_text(config.read_text().replace("pol_interval", "poll_interval"))
    code, output = site.run("status", GROUNDCREW_GIT__BRANHC="x")
    assert code == 2
    assert "did you mean git.branch?" in output
    code, output = site.run("status", GROUNDCREW_GIT_URL="/srv/repo")
    assert code == 0
    assert "did you mean GROUNDCREW_GIT__URL?" in output
    code, output = site.run("status", GROUNDCREW_FOO="1")
    assert code == 0
    assert "GROUNDCREW_FOO is not a setting and is ignored" in output


def test_variables_of_others_are_left_alone() -> None:
    """Variables that Kubernetes sets for a Service of that name, and others without a setting."""
    others = [
        "GROUNDCREW_SERVICE_HOST",
        "GROUNDCREW_SERVICE_PORT_HTTP",
        "GROUNDCREW_PORT",
        "GROUNDCREW_PORT_8085_TCP_ADDR",
        "GROUNDCREW_CONFIG",
        "GROUNDCREW_TOKEN",
        "GROUNDCREW_BUILD",
        "GROUNDCREW_TESTS_STRICT",
        "GROUNDCREW_SHARE",
        "PATH",
        "GIT_URL",
        "GROUNDCREW_GIT__URL",
        "groundcrew_state_dir",
        "GROUNDCREW_KUBERNETES__JOBS__CPU",
    ]
    assert list(misspelt(others)) == []
    own = {
        name
        for folder in ("scripts", ".ci", "tests/harness", "reconciler/share/loader")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        for name in re.findall(r"\bGROUNDCREW_[A-Z][A-Z_]*[A-Z]\b", path.read_text())
    }
    assert "GROUNDCREW_TEST_FAILURES" in own
    assert list(misspelt(own)) == []
    wrong = {
        "GROUNDCREW_STATEDIR": "GROUNDCREW_STATE_DIR",
        "GROUNDCREW_GIT_BRANCH": "GROUNDCREW_GIT__BRANCH",
        "GROUNDCREW_DATABSE": "GROUNDCREW_DATABASE",
        "GROUNDCREW_FOO": "",
    }
    assert dict(misspelt(wrong)) == wrong


# -------------------------------------------------------------------------------------- completion


def completed(site: Site, *words: str) -> list[str]:
    """Return bash's completions for the last word."""
    code = "import sys; sys.argv[0] = 'groundcrew'; from reconciler.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **site.environment(),
            "_GROUNDCREW_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["groundcrew", *words]),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sta"], ["status"]),
        (["rollback", ""], [INSTANCE]),
        (["refresh", ""], [ENVIRONMENT]),
        (["suspend", "inst"], [f"instance/{INSTANCE}"]),
        (["history", ""], [f"environment/{ENVIRONMENT}", f"instance/{INSTANCE}"]),
        (["logs", "env"], [f"environment/{ENVIRONMENT}"]),
        (["doctor", "sh"], ["share"]),
        (["rollback", "nobody"], []),
    ],
    ids=str,
)
def test_the_shell_completes_names(words: list[str], offered: list[str], site: Site) -> None:
    """Commands, and the names of recorded objects."""
    assert completed(site, *words) == offered


def test_completion_never_complains(site: Site, config: Path) -> None:
    """With wrong settings, or none, nothing is offered and nothing is printed."""
    config.write_text("nonsense = [")
    assert completed(site, "rollback", "") == []


# --------------------------------------------------------------------------------------- reference


def test_the_reference_is_current_and_whole() -> None:
    """docs/cli.md is what `make generate` writes; it contains every command with all texts."""
    text = REFERENCE.read_text()
    assert text == reference()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"## `groundcrew {name}`" in text
    assert "..." not in text.partition("**Commands**")[2].partition("## ")[0]
    assert os.environ.get("HOME", "/nowhere") + "/" not in text
