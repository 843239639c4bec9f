"""Facts on their way to people and forges: HTTP on loopback, a real store, time as it is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from metrics.notifier import Notifier
from reconciler.core.model import Change, Event
from reconciler.settings import NotifySettings, RouteSettings, Settings, StatusSettings
from reconciler.store.store import Lease, Store
from tests.fakes.receiver import JSON, Receiver, Said, github, gitlab

SHA = "0123456789abcdef0123456789abcdef01234567"
MINUTE = 60.0
HOUR = 3600.0


class Post:
    """A store with events, secret files, and a notifier over both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(f"sqlite:///{root}/db")
        self.store.migrate()
        lease = self.store.acquire("me", 3600)
        assert lease is not None
        self.lease: Lease = lease
        self.now = 1_000_000.0
        self.settings: dict[str, Any] = {}
        self.start()

    def start(self, **settings: Any) -> None:
        """A daemon that starts anew, with other settings if any are given."""
        self.settings |= settings
        self.notifier = Notifier(self.store, self.root / "secrets", **self.settings)

    def secret(self, directory: str, **files: str) -> None:
        place = self.root / "secrets" / directory
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(f"{text}\n")

    def happens(
        self, kind: str, name: str = "instance/prod", team: str = "red", **more: Any
    ) -> None:
        data = {"from": "1" * 16, "to": "2" * 16, "environment": "analytics"} | more.pop("data", {})
        told = Event(
            self.now, kind, name, team, more.pop("reason", kind), more.pop("message", "words"),
            more.pop("revision", SHA), data,
        )  # fmt: skip
        assert not more
        self.store.write(self.lease, Change(events=(told,)))
        self.notifier.enqueue()

    def deliver(self, after: float = 0.0) -> int:
        self.now += after
        return self.notifier.deliver(self.now)

    def counts(self) -> dict[str, int]:
        return self.store.message_counts()


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(answer: Callable[[str, str, bytes], Said] | None = None) -> Receiver:
        made.append(Receiver(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


def routes(*found: RouteSettings, **more: Any) -> NotifySettings:
    return NotifySettings(routes=found, **more)


def dead_address() -> str:
    """An address on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/services/s3cret-address"


# ---------------------------------------------------------------------------------- who is told


def test_facts_go_by_team_and_severity_and_to_nobody_else(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """A team hears its own, the pager what is critical, the platform what is of no team."""
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
    post.happens("RolledBack", "instance/other", team="blue", reason="GateFailed")
    post.happens("Degraded", "instance/prod", reason="GateFailed")
    post.happens("SourceFailed", "repo", team="", reason="SourceDenied", revision="")
    post.deliver()
    assert [t["text"].partition(":")[0] for t in red.taken] == ["prod", "prod"]
    assert [f["kind"] for t in pager.taken for f in t["facts"]] == ["Degraded"]
    kinds = " ".join(t["text"] for t in everything.taken)
    assert [kinds.count(w) for w in ("rolled back", "DEGRADED", "cannot be read", ": active")] == [
        1, 1, 1, 0,
    ]  # fmt: skip
    assert post.counts() == {"sent": 6}


def test_a_webhook_gets_the_same_facts_signed(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """The body is the documented JSON, and its HMAC is over just these bytes."""
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
        "id": 1, "kind": "ActivationActive", "severity": "info", "object": "instance/prod",
        "team": "red", "changed": ["pandas 2.1 → 2.2"], "author": "A. Author", "seconds": 12.5,
        "commit_url": f"https://github.com/acme/envs/commit/{SHA}", "environment": "analytics",
    }  # fmt: skip
    assert {key: fact[key] for key in expected} == expected


def test_a_fact_is_told_once_however_often_it_comes(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """Drains that are given up again and again are one message; so is a build for two runtimes."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for _ in range(20):
        post.happens("ActivationStarted")
        post.happens("ActivationAborted", reason="DrainTimeout")
        post.happens("BuildFailed", "environment/analytics", reason="ResolutionConflict")
        post.notifier.enqueue()
        post.deliver(30 * MINUTE)
        post.start()
    texts = sorted(t["text"].partition(": words")[0] for t in slack.taken)
    assert texts == ["analytics: build failed", "prod: activation given up"]


# --------------------------------------------------------------------------- when it goes wrong


def test_a_rate_limit_is_obeyed_for_as_long_as_it_says(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """429 with Retry-After: nothing at all is sent before, everything is after."""
    slack = receiver()
    slack.answers = [Said(429, {"Retry-After": "120"})]
    post.secret("slack", url=slack.url)
    post.happens("ActivationActive", "instance/a")
    post.happens("ActivationActive", "instance/b")
    post.deliver()
    assert len(slack.got) == 1
    post.deliver(119)
    assert len(slack.got) == 1
    post.deliver(2)
    assert len(slack.taken) == 2
    assert post.counts() == {"sent": 2}


def test_a_rate_limit_may_name_a_date(post: Post, receiver: Callable[..., Receiver]) -> None:
    """Retry-After as an HTTP date is obeyed until then, not for the longest that is allowed."""
    slack = receiver()
    slack.answers = [Said(429, {"Retry-After": formatdate(time.time() + 120, usegmt=True)})]
    post.secret("slack", url=slack.url)
    post.happens("ActivationActive", "instance/a")
    post.deliver()
    post.deliver(100)
    assert len(slack.got) == 1
    post.deliver(21)
    assert post.counts() == {"sent": 1}


@pytest.mark.parametrize("code", [500, 502, 503])
def test_a_server_error_delays_and_loses_nothing(
    code: int, post: Post, receiver: Callable[..., Receiver]
) -> None:
    """Pauses grow, the order is kept, each message arrives once."""
    slack = receiver()
    slack.answers = [Said(code)] * 4
    post.secret("slack", url=slack.url)
    for name in "abc":
        post.happens("ActivationActive", f"instance/{name}")
    tries = [post.now]
    for _ in range(400):
        before = len(slack.got)
        post.deliver(1)
        if len(slack.got) > before:
            tries.append(post.now)
    assert [t["text"][0] for t in slack.taken] == ["a", "b", "c"]
    pauses = [later - earlier for earlier, later in pairwise(tries[1:])]
    assert pauses == [5, 10, 20, 40]


def test_an_hours_outage_ends_in_one_digest_and_nothing_is_lost(
    post: Post, receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens for an hour, and the daemon is restarted meanwhile; then all of it is told."""
    post.secret("slack", url=dead_address())
    for minute in range(60):
        post.happens("ActivationStarted", f"instance/i{minute}")
        post.happens("ActivationActive", f"instance/i{minute}")
        if minute == 30:
            post.start()
        for _ in range(6):
            post.deliver(10)
    waiting = post.counts()
    assert set(waiting) <= {"pending", "skipped"}
    assert waiting["pending"] >= 60
    slack = receiver()
    post.secret("slack", url=slack.url)
    post.deliver(MINUTE)
    (told,) = slack.taken
    assert told["text"].startswith("60 changes: 60 active")
    assert post.counts() == {"sent": 60, "skipped": 60}  # skipped: told with their outcomes
    assert "s3cret-address" not in caplog.text
    assert len([r for r in caplog.records if r.name == "metrics.routes"]) < 30


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_wrong_address_waits_for_its_mending_for_a_day(
    code: int, post: Post, receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked webhook is asked seldom; when its file is mended, all is sent at once."""
    wrong, right = receiver(lambda *_: Said(code, body="no_service")), receiver()
    post.secret("slack", url=wrong.url)
    post.happens("ActivationActive", "instance/a")
    for _ in range(360):
        post.deliver(10)
    assert 4 <= len(wrong.got) <= 8
    assert post.counts() == {"pending": 1}
    assert post.store.late_messages() == 1
    post.secret("slack", url=right.url)
    post.deliver(1)
    assert len(right.taken) == 1
    assert "no_service" in caplog.text
    assert "s3cret-address" not in caplog.text
    assert b"s3cret-address" not in (post.root / "db").read_bytes()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x/s3cret-address", "http://[::1/s3cret-address"]
)
@pytest.mark.parametrize("kind", ["slack", "webhook"])
def test_an_address_that_is_none_breaks_nothing(
    kind: Any, url: str, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    """It is skipped or waits; no error gets out, no address gets into a log."""
    post.secret("slack", url=url)
    post.start(notify=routes(RouteSettings(name="x", kind=kind)))
    post.happens("ActivationActive")
    assert post.deliver() == 0
    assert post.counts() == {"pending": 1} if url else {"skipped": 1}
    assert "s3cret-address" not in caplog.text


@pytest.mark.slow
def test_a_dead_route_holds_up_no_other(post: Post, receiver: Callable[..., Receiver]) -> None:
    """More messages wait for one team's webhook than are read at once; another's arrive."""
    well = receiver()
    post.secret("dead", url=dead_address())
    post.secret("well", url=well.url)
    post.start(
        notify=routes(
            RouteSettings(name="dead", secret="dead"), RouteSettings(name="well", secret="well"),
        )
    )  # fmt: skip
    for n in range(600):
        post.happens("ActivationActive", f"instance/{n}")
        if n % 100 == 99:
            post.deliver(MINUTE)
    told = [int(t["text"].split()[0]) for t in well.taken]
    assert sum(told) == 600
    assert post.counts() == {"pending": 600, "sent": 600}


def test_a_receiver_that_never_ends_its_answer_holds_up_no_other(
    post: Post, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that hangs is left to itself, and asked nothing more until it has ended."""
    hung = threading.Event()
    monkeypatch.setattr("metrics.notifier.PATIENCE", 0.5)

    def hang(method: str, path: str, body: bytes) -> Said:
        hung.wait(60)
        return Said()

    stuck, well = receiver(hang), receiver()
    post.secret("stuck", url=stuck.url)
    post.secret("well", url=well.url)
    post.start(
        notify=routes(
            RouteSettings(name="stuck", kind="webhook", secret="stuck"),
            RouteSettings(name="well", secret="well"),
        )
    )
    post.happens("ActivationActive", "instance/a")
    post.deliver()
    post.happens("ActivationActive", "instance/b")
    post.deliver(1)
    assert [t["text"][0] for t in well.taken] == ["a", "b"]
    assert post.counts() == {"sent": 2, "pending": 2}
    hung.set()
    monkeypatch.setattr("metrics.notifier.PATIENCE", 30.0)
    for _ in range(100):
        post.deliver(1)
        if post.counts() == {"sent": 4}:
            break
        time.sleep(0.05)
    assert [f["id"] for t in stuck.taken for f in t["facts"]] == [1, 2]


def test_blocks_that_slack_refuses_become_plain_text(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """400 invalid_blocks: the same facts without blocks; a second no is noted as failed."""
    slack = receiver()
    slack.answers = [Said(400, body="invalid_blocks")]
    post.secret("slack", url=slack.url)
    post.happens("ActivationActive")
    post.deliver()
    assert [sorted(t) for t in slack.taken] == [["text"]]
    slack.answers = [Said(400, body="invalid_payload")] * 2
    post.happens("RolledBack")
    post.deliver()
    assert post.counts() == {"failed": 1, "sent": 1}


def test_a_kill_between_the_answer_and_its_note_sends_once_more_and_loses_nothing(
    post: Post, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the webhook's facts carry an id, by which the second is known."""
    hook = receiver()
    post.secret("hook", url=hook.url)
    post.start(notify=routes(RouteSettings(name="hook", kind="webhook", secret="hook")))
    post.happens("ActivationActive")

    def killed(*arguments: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Store, "settle", killed)
        post.start()
        with pytest.raises(SystemExit):
            post.deliver()
    post.start()
    post.deliver()
    assert [f["id"] for t in hook.taken for f in t["facts"]] == [1, 1]
    assert post.counts() == {"sent": 1}


# -------------------------------------------------------------------------------------- digests


def test_many_changes_at_once_are_one_message_and_a_critical_one_stands_alone(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """A hundred instances activate within minutes: a digest now, and one a minute after that."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for n in range(40):
        post.happens("ActivationActive", f"instance/i{n}")
    post.deliver()
    assert [t["text"].split(":")[0] for t in slack.taken] == ["40 changes"]
    for n in range(40, 100):
        post.happens("ActivationActive", f"instance/i{n}")
        post.deliver(0.5)
    post.happens("Degraded", "instance/i7", reason="GateFailed")
    post.deliver(1)
    assert [t["text"].split(":")[0] for t in slack.taken] == ["40 changes", "i7"]
    assert post.store.late_messages() == 0, "what is gathered is not late"
    post.deliver(MINUTE)
    assert slack.taken[2]["text"].split(":")[0] == "60 changes"
    assert len(slack.taken) == 3
    assert post.counts() == {"sent": 101}


def test_few_changes_are_told_one_by_one(post: Post, receiver: Callable[..., Receiver]) -> None:
    """Up to the limit each fact has a message of its own, also when the next come later."""
    slack = receiver()
    post.secret("slack", url=slack.url)
    for n in range(12):
        post.happens("ActivationActive", f"instance/i{n}")
        post.deliver(30)
    assert [t["text"].split(":")[0] for t in slack.taken] == [f"i{n}" for n in range(12)]


def test_a_route_that_is_gone_leaves_nothing_waiting(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """Messages for a route that the settings no longer have are skipped, others are not."""
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
    """A secret that found its way into a message, a log, a subject or a status leaves as ***."""
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
    )  # fmt: skip
    post.happens(
        "BuildFailed", "environment/analytics", reason="IndexDenied",
        message="refused: pa55word! for robot",
        data={"subject": "oops pa55word!", "key": "k" * 16},
    )  # fmt: skip
    post.deliver()
    bodies = [g.body for r in (slack, hook, forge) for g in r.got]
    assert len(bodies) >= 3
    assert all(b"pa55word" not in body for body in bodies)
    assert any(b"uses ***" in body for body in bodies)
    assert b"ghp_t0ken" not in b"".join(bodies)


# ------------------------------------------------------------------------------ commit statuses


def test_github_gets_the_outcome_of_a_commit(post: Post, receiver: Callable[..., Receiver]) -> None:
    """The real PyGithub posts to the documented endpoint: state, context, description, link."""
    forge = receiver(github)
    post.secret("forge", token="ghp_t0ken")
    post.start(
        notify=routes(),
        public_url="https://groundcrew.example",
        git_url="https://github.com/acme/envs.git",
        statuses=StatusSettings(forge="github", api_url=forge.root),
    )
    post.happens("SourceChanged", "repo", team="")
    post.happens("BuildQueued", "environment/analytics")
    post.deliver()
    post.happens("BuildReady", "environment/analytics", message="3 packages to install")
    post.happens("RolledBack", reason="ImportErrors", message="dags/a.py does not import")
    post.deliver(2)
    posts = [g for g in forge.got if g.method == "POST"]
    assert {g.path for g in posts} == {f"/repos/acme/envs/statuses/{SHA}"}
    assert {g.headers["authorization"] for g in posts} <= {"token ghp_t0ken", "Bearer ghp_t0ken"}
    assert [(g.json["context"], g.json["state"]) for g in posts] == [
        ("groundcrew", "success"),
        ("groundcrew/analytics", "pending"),
        ("groundcrew/analytics", "success"),
        ("groundcrew/analytics/prod", "failure"),
    ]
    assert posts[3].json["description"] == "rolled back: dags/a.py does not import"
    assert posts[3].json["target_url"] == "https://groundcrew.example/instances/prod"
    assert set(posts[3].json) == {"state", "context", "description", "target_url"}


def test_gitlab_gets_the_outcome_of_a_commit(post: Post, receiver: Callable[..., Receiver]) -> None:
    """The real python-gitlab posts to the documented endpoint, in GitLab's words."""
    forge = receiver(gitlab)
    post.secret("forge", token="glpat-t0ken")
    post.start(
        notify=routes(),
        git_url="git@gitlab.example:data/team/envs.git",
        statuses=StatusSettings(forge="gitlab", api_url=forge.root, context="ci/groundcrew"),
    )
    post.happens("ActivationStarted", data={"trigger": "commit"})
    post.deliver()
    post.happens("ActivationActive", data={"trigger": "commit"})
    post.deliver(2)
    assert {g.path for g in forge.got} == {f"/api/v4/projects/data%2Fteam%2Fenvs/statuses/{SHA}"}
    assert {g.headers["private-token"] for g in forge.got} == {"glpat-t0ken"}
    states = [(g.json["name"], g.json["state"]) for g in forge.got]
    name = "ci/groundcrew/analytics/prod"
    assert states == [(name, "running"), (name, "success")]


def test_only_the_newest_state_is_sent_after_an_outage(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """The forge is away while a commit goes from pending to failure: it hears of the failure."""
    forge = receiver(github)
    forge.answer = lambda *_: Said(502, JSON, "{}")
    post.secret("forge", token="ghp_t0ken")
    post.start(
        notify=routes(), statuses=StatusSettings(forge="github", api_url=forge.root, project="o/r")
    )
    post.happens("BuildQueued", "environment/analytics")
    post.deliver()
    post.happens("BuildFailed", "environment/analytics", message="no such package")
    post.deliver(1)
    forge.answer = github
    post.deliver(HOUR)
    posts = [g.json["state"] for g in forge.got if g.method == "POST" and g.code == 201]
    assert posts == ["failure"]
    assert post.counts() == {"sent": 1, "skipped": 1}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (Said(403, JSON | {"Retry-After": "60"}, '{"message": "secondary rate limit"}'), "pending"),
        (Said(401, JSON, '{"message": "Bad credentials"}'), "pending"),
        (Said(422, JSON, '{"message": "No commit found for SHA"}'), "failed"),
    ],
    ids=["rate limit", "wrong token", "unknown commit"],
)  # fmt: skip
def test_a_forge_that_says_no_is_asked_again_only_when_that_can_help(
    answer: Said, left: str, post: Post, receiver: Callable[..., Receiver],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A limit or a bad token waits, an unknown commit does not; the token is in no log."""
    forge = receiver(lambda *_: answer)
    post.secret("forge", token="ghp_t0ken")
    post.start(
        notify=routes(), statuses=StatusSettings(forge="github", api_url=forge.root, project="o/r")
    )
    with caplog.at_level(logging.DEBUG):
        post.happens("BuildFailed", "environment/analytics")
        post.deliver()
    assert post.counts() == {left: 1}
    calls = len(forge.got)
    post.deliver(30)
    assert len(forge.got) == calls
    if left == "pending":
        forge.answer = github
        post.deliver(HOUR)
        assert post.counts() == {"sent": 1}
    assert "ghp_t0ken" not in caplog.text


def test_gitlabs_rate_limit_does_not_keep_the_delivery(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """429 with a long Retry-After: one request, and the status waits in the outbox."""
    forge = receiver(lambda *_: Said(429, {"Retry-After": "3000"}, "{}"))
    post.secret("forge", token="glpat-t0ken")
    post.start(
        notify=routes(), statuses=StatusSettings(forge="gitlab", api_url=forge.root, project="o/r")
    )
    post.happens("BuildQueued", "environment/analytics")
    post.deliver()
    assert len(forge.got) == 1
    forge.answer = gitlab
    post.deliver(HOUR)
    assert post.counts() == {"sent": 1}


def test_a_gitlab_status_that_stands_already_is_done(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """GitLab answers 400 to a state that the commit has; that is no failure."""
    words = {"message": "Cannot transition status via :run from :running"}
    forge = receiver(lambda *_: Said(400, JSON, json.dumps(words)))
    post.secret("forge", token="glpat-t0ken")
    post.start(
        notify=routes(), statuses=StatusSettings(forge="gitlab", api_url=forge.root, project="o/r")
    )
    post.happens("BuildQueued", "environment/analytics")
    post.deliver()
    assert post.counts() == {"sent": 1}


# -------------------------------------------------------------------------------------- settings


def test_routes_are_read_from_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of the manual are what the model takes; names are unique, paths stay inside."""
    path = tmp_path / "groundcrew.toml"
    monkeypatch.setenv("GROUNDCREW_CONFIG", str(path))
    path.write_text(
        '[notify]\ndigest_above = 3\n[[notify.routes]]\nname = "red"\nsecret = "red/slack"\n'
        'teams = ["red"]\nseverities = ["warning", "critical"]\n'
        '[commit_status]\nforge = "github"\n'
    )
    found = Settings()
    assert found.notify.routes[0].teams == ("red",)
    assert found.commit_status.forge == "github"
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
