"""Delivery of facts to people: HTTP on loopback, a real store, and a clock of the tests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.core.reasons import Reason
from reconciler.settings import RouteSettings, Settings, StatusSettings
from tests.fakes.receiver import Receiver, github
from tests.harness.outbox import MINUTE, SHA, Post, dead_address, routes

# --------------------------------------------------------------------------------------- routes


def test_facts_go_by_team_and_severity_and_to_nobody_else(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """A team gets its own facts, the pager critical ones, the platform those without a team."""
    red, pager, everything = receiver(), receiver(), receiver()
    post.secret("red/slack", url=red.url)
    post.secret("pager", url=pager.url, key="sh4red-key")
    post.secret("slack", url=everything.url)
    post.start(
        notify=routes(
            RouteSettings(name="red", secret="red/slack", teams=("re*",)),
            RouteSettings(name="pager", kind="webhook", secret="pager", severities=("critical",)),
            RouteSettings(name="all", severities=("warning", "critical")),
        )
    )
    post.happens("ActivationActive")
    post.happens("RolledBack", "instance/other", team="blue", reason=Reason.GATE_FAILED)
    post.happens("Degraded", "instance/prod", reason=Reason.GATE_FAILED)
    post.happens("SourceFailed", "repo", team="", reason=Reason.SOURCE_DENIED, revision="")
    post.deliver()
    assert [t["text"].partition(":")[0] for t in red.taken] == ["prod", "prod"]
    assert [f["kind"] for t in pager.taken for f in t["facts"]] == ["Degraded"]
    kinds = " ".join(t["text"] for t in everything.taken)
    assert [kinds.count(w) for w in ("rolled back", "DEGRADED", "cannot be read", ": active")] == [
        1,
        1,
        1,
        0,
    ]
    assert post.counts() == {"sent": 6}


def test_a_webhook_gets_the_same_facts_signed(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """The body is the documented JSON, and its HMAC is computed over exactly these bytes."""
    hook = receiver()
    post.secret("hook", url=hook.url, key="sh4red-key")
    post.start(
        notify=routes(RouteSettings(name="hook", kind="webhook", secret="hook")),
        git_url="git@github.com:acme/envs.git",
    )
    post.happens(
        "ActivationActive",
        data={"packages_changed": ["pandas 2.1 → 2.2"], "author": "A. Author", "seconds": 12.5},
    )
    post.deliver()
    (got,) = hook.got
    signed = hmac.new(b"sh4red-key", got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-groundcrew-signature-256"] == f"sha256={signed}"
    assert got.json["apiVersion"] == "groundcrew/v1"
    (fact,) = got.json["facts"]
    expected = {
        "id": 1,
        "kind": "ActivationActive",
        "severity": "info",
        "object": "instance/prod",
        "team": "red",
        "changed": ["pandas 2.1 → 2.2"],
        "author": "A. Author",
        "seconds": 12.5,
        "commit_url": f"https://github.com/acme/envs/commit/{SHA}",
        "environment": "analytics",
    }
    assert {key: fact[key] for key in expected} == expected


def test_a_fact_is_told_once_however_often_it_comes(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """Drains that fail again and again are one message; so is a build for two runtimes."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for _ in range(20):
        post.happens("ActivationStarted")
        post.happens("ActivationAborted", reason=Reason.DRAIN_TIMEOUT)
        post.happens("BuildFailed", "environment/analytics", reason=Reason.RESOLUTION_CONFLICT)
        post.notifier.enqueue()
        post.deliver(30 * MINUTE)
        post.start()
    texts = sorted(t["text"].partition(": words")[0] for t in slack.taken)
    assert texts == ["analytics: build failed", "prod: activation given up"]


# -------------------------------------------------------------------------------------- digests


def test_many_changes_at_once_are_one_message_and_a_critical_one_stands_alone(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """If 100 instances activate within minutes, there is a digest now, then one a minute."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for n in range(40):
        post.happens("ActivationActive", f"instance/i{n}")
    post.deliver()
    assert [t["text"].split(":")[0] for t in slack.taken] == ["40 changes"]
    for n in range(40, 100):
        post.happens("ActivationActive", f"instance/i{n}")
        post.deliver(0.5)
    post.happens("Degraded", "instance/i7", reason=Reason.GATE_FAILED)
    post.deliver(1)
    assert [t["text"].split(":")[0] for t in slack.taken] == ["40 changes", "i7"]
    assert post.store.late_messages() == 0, "what is gathered is not late"
    post.deliver(MINUTE)
    assert slack.taken[2]["text"].split(":")[0] == "60 changes"
    assert len(slack.taken) == 3
    assert post.counts() == {"sent": 101}


def test_few_changes_are_told_one_by_one(post: Post, receiver: Callable[..., Receiver]) -> None:
    """Up to the limit each fact has a message of its own, also if further ones come later."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for n in range(12):
        post.happens("ActivationActive", f"instance/i{n}")
        post.deliver(30)
    assert [t["text"].split(":")[0] for t in slack.taken] == [f"i{n}" for n in range(12)]


def test_a_route_that_is_gone_leaves_nothing_waiting(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """Messages for a route that the settings no longer have are skipped; others are not."""
    slack = receiver()
    post.secret("old", url=dead_address())
    post.start(notify=routes(RouteSettings(name="old", secret="old"), RouteSettings(name="slack")))
    post.happens("ActivationActive")
    post.secret("slack", url=slack.url)
    post.start(notify=routes(RouteSettings(name="slack")))
    post.deliver()
    assert post.counts() == {"sent": 1, "skipped": 1}


# -------------------------------------------------------------------------------------- secrets


def test_no_secret_is_told_to_anyone(post: Post, receiver: Callable[..., Receiver]) -> None:
    """A secret in a message, a log, a subject or a status is sent as ***."""
    slack, hook, forge = receiver(), receiver(), receiver(github)
    post.secret("slack", url=slack.url)
    post.secret("hook", url=hook.url)
    post.secret("forge", token="ghp_t0ken")
    post.secret("red/corp-pypi", username="robot", password="pa55word!")
    log = post.root / "build.log"
    log.write_text("GET https://robot:pa55word!@pypi.example/simple\nuses pa55word!\n")
    post.start(
        notify=routes(
            RouteSettings(name="slack"), RouteSettings(name="hook", kind="webhook", secret="hook")
        ),
        statuses=StatusSettings(forge="github", api_url=forge.root, project="o/r"),
        log_of=lambda key: log,
    )
    post.happens(
        "BuildFailed",
        "environment/analytics",
        reason=Reason.INDEX_DENIED,
        message="refused: pa55word! for robot",
        data={"subject": "oops pa55word!", "key": "k" * 16},
    )
    post.deliver()
    bodies = [g.body for r in (slack, hook, forge) for g in r.got]
    assert len(bodies) >= 3
    assert all(b"pa55word" not in body for body in bodies)
    assert any(b"uses ***" in body for body in bodies)
    assert b"ghp_t0ken" not in b"".join(bodies)


# -------------------------------------------------------------------------------------- settings


def test_routes_are_read_from_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model accepts the settings in the manual; names are unique, paths stay inside."""
    path = tmp_path / "groundcrew.toml"
    monkeypatch.setenv("GROUNDCREW_CONFIG", str(path))
    path.write_text(
        '[notify]\ndigest_above = 3\n[[notify.routes]]\nname = "red"\nsecret = "red/slack"\n'
        'teams = ["red"]\nseverities = ["warning", "critical"]\n'
        '[commit_status]\nforge = "github"\n'
    )
    settings = Settings()
    assert settings.notify.routes[0].teams == ("red",)
    assert settings.commit_status.forge == "github"
    route = '[[notify.routes]]\nname = "red"\n'
    for wrong in (
        route * 2,
        '[[notify.routes]]\nname = "commit-status"\n',
        f'{route}secret = "../../etc"\n',
        f'{route}severities = ["loud"]\n',
        f'{route}url = "https://hooks.example/s3cret"\n',
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="notify"):
            Settings()
