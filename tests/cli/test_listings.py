"""`groundcrew status` and `history` of some objects, kinds and times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli import main
from reconciler.core.model import Change
from reconciler.store.store import Store
from tests.fakes.events import event
from tests.fakes.fleet import AT, fill, name_of

FLEET = 30


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of the records of a fleet in all states."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("GROUNDCREW_CONFIG", raising=False)
    url = f"sqlite:///{tmp_path / 'state' / 'groundcrew.db'}"
    store = Store(url)
    fill(store, FLEET)
    store.close()
    return url


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """Return the document that a command prints."""
    assert main([*words, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


def names(document: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the environments and of the instances in a status."""
    return (
        {one["name"] for one in document["environments"]},
        {one["name"] for one in document["instances"]},
    )


@pytest.mark.usefixtures("url")
def test_an_object_is_shown_with_what_belongs_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    """An environment and an instance alike; --check counts only what is shown."""
    for kind in ("environment", "instance"):
        status = printed(capsys, "status", f"{kind}/{name_of(0)}", "--check")
        assert names(status) == ({name_of(0)}, {name_of(0)})
        assert status["findings"] == []
    printed(capsys, "status", f"instance/{name_of(4)}", "--check", code=1)


@pytest.mark.usefixtures("url")
def test_a_filter_selects_by_team_health_and_sync(capsys: pytest.CaptureFixture[str]) -> None:
    """All given conditions hold; values in any case."""
    everything = printed(capsys, "status")
    assert len(everything["instances"]) == FLEET
    team = printed(capsys, "status", "--team", "team-01")
    assert {one["team"] for one in team["instances"]} == {"team-01"}
    assert [f["file"] for f in team["findings"]] == ["teams/team-01/typo.yaml"]
    assert printed(capsys, "status", "--team", "team-02")["findings"] == []
    degraded = printed(capsys, "status", "--health", "degraded")
    assert names(degraded)[1] == {
        one["name"] for one in everything["instances"] if one["health"] == "Degraded"
    }
    both = printed(capsys, "status", "--health", "Healthy", "--sync", "OutOfSync")
    assert names(both)[1] == {
        one["name"]
        for one in everything["instances"]
        if (one["health"], one["sync"]) == ("Healthy", "OutOfSync")
    }
    assert names(degraded)[1]
    assert names(both)[1]


@pytest.mark.usefixtures("url")
def test_builds_of_an_object_and_their_difference(capsys: pytest.CaptureFixture[str]) -> None:
    """By the object, the build's key or its id; a failed build says why."""
    assert len(printed(capsys, "builds")) > FLEET
    of_environment = printed(capsys, "builds", f"environment/{name_of(0)}")
    assert of_environment == printed(capsys, "builds", f"instance/{name_of(0)}")
    newest = next(one for one in of_environment if one["instances"])
    assert newest["instances"] == [name_of(0)]
    older = next(one for one in of_environment if not one["instances"])
    expected = {
        "before": older["build"],
        "after": newest["build"],
        "added": {"duckdb": "1.4.1"},
        "removed": {"polars": "1.30.0"},
        "changed": {"pandas": ["2.2.3", "2.3.3"]},
    }
    for after in (newest["key"], newest["build"], f"instance/{name_of(0)}"):
        assert printed(capsys, "diff", older["build"], after) == expected
    assert main(["diff", older["key"], newest["key"]]) == 0
    assert "duckdb" in capsys.readouterr().out
    assert main(["diff", newest["key"], newest["build"]]) == 0
    assert capsys.readouterr().out == "both have the same 3 packages\n"
    assert main(["builds", f"environment/{name_of(8)}"]) == 0
    assert "[ResolutionConflict] pandas 3.0 needs numpy" in capsys.readouterr().out


@pytest.mark.usefixtures("url")
def test_history_of_a_kind_and_since_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Kinds add up; a time is a duration or a date, in UTC if it names no zone."""
    ready = printed(capsys, "history", "--kind", "BuildReady", "-n", "1000")
    assert {one["kind"] for one in ready} == {"BuildReady"}
    assert len(ready) == FLEET
    both = printed(
        capsys, "history", "--kind", "BuildReady", "--kind", "ActivationActive", "-n", "1000"
    )
    assert len(both) == 2 * FLEET
    after = datetime.fromtimestamp(AT + 60, UTC)
    for text in (f"{after:%Y-%m-%dT%H:%M:%S}", f"{after:%Y-%m-%dT%H:%M:%SZ}"):
        since = printed(capsys, "history", "--since", text, "-n", "1000")
        assert {one["kind"] for one in since} == {"ActivationActive"}
    assert printed(capsys, "history", "--since", "1m") == []
    assert len(printed(capsys, "history", "--since", "2d", "-n", "1000")) == 3 * FLEET


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    "command", [["status"], ["history"], ["validate", "."], ["gc"]], ids=" ".join
)
def test_yaml_is_the_same_document(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enums are plain texts in it."""
    (tmp_path / "teams" / "red").mkdir(parents=True)
    (tmp_path / "teams" / "red" / "one.yaml").write_text("kind: Nonsense\n")
    code = main([*command, "-o", "json"])
    document = json.loads(capsys.readouterr().out or "null")
    assert main([*command, "-o", "yaml"]) == code
    assert yaml.safe_load(capsys.readouterr().out) == document


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["status", "--health", "Degarded"], "there is no health Degarded; write Healthy,"),
        (["status", "--sync", "x"], "there is no sync x; write Synced,"),
        (["status", "instnce/x"], "no environment or instance instnce/x"),
        (["history", "--kind", "BuildRedy"], "did you mean BuildReady?"),
        (["history", "--since", "yesterday"], "write a duration such as 90m or 2d, or a date"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_says_what_to_write(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each ends with 2."""
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_following_prints_what_comes(url: str) -> None:
    """Events that are there come first, then each new one; Ctrl-C is no error."""
    subject = f"instance/{name_of(0)}"
    command = [sys.executable, "-m", "reconciler.cli", "history", subject, "--follow"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as table,
        subprocess.Popen(
            [*command, "-o", "json"], stdout=subprocess.PIPE, text=True, env=os.environ
        ) as documents,
    ):
        assert table.stdout is not None
        assert documents.stdout is not None
        assert f"{subject}  ActivationActive" in table.stdout.readline()
        assert json.loads(documents.stdout.readline())["kind"] == "ActivationActive"
        store = Store(url)
        lease = store.acquire("someone", 600.0)
        assert lease is not None
        others = [f"instance/{name_of(1)}", subject]
        events = tuple(
            event(AT + 100, "InstanceAdded", name, "red", "InstanceAdded", f"of {name}")
            for name in others
        )
        store.write(lease, Change(events=events))
        store.close()
        assert f"of {subject}" in table.stdout.readline()
        assert json.loads(documents.stdout.readline())["object"] == subject
        for process in (table, documents):
            process.send_signal(2)
            assert process.wait(30) == 0
