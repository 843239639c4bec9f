"""Slack with a bot's token: one thread for each activation, across restarts and failures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from metrics import slackbot
from metrics.facts import activation_of
from metrics.slackbot import Threads
from reconciler.core.events import Event
from reconciler.doctor import messages
from reconciler.settings import NotifySettings, RouteSettings, Settings
from tests.fakes.events import event as stored_event
from tests.fakes.receiver import Said
from tests.fakes.slack import CHANNEL, TOKEN, Slack
from tests.harness.outbox import HOUR, Post, routes

ROUTE = RouteSettings(name="slack", channel=CHANNEL)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slack]:
    slack = Slack()
    monkeypatch.setattr(slackbot, "API", slack.api)
    yield slack
    slack.close()


@pytest.fixture
def post(tmp_path: Path, slack: Slack) -> Iterator[Post]:
    made = Post(tmp_path)
    made.secret("slack", token=TOKEN)
    made.start(notify=routes(ROUTE, digest_above=20))
    yield made
    made.store.close()


def tell(post: Post, *kinds: str, name: str = "prod") -> None:
    """Send events of one instance, each in its own delivery."""
    for kind in kinds:
        post.happens(kind, f"instance/{name}")
        post.deliver(HOUR)


def test_an_activation_is_one_thread_over_restarts(post: Post, slack: Slack) -> None:
    """The first message opens it; a daemon that was restarted answers in it."""
    tell(post, "ActivationStarted")
    post.start()
    tell(post, "ActivationActive")
    first, second = slack.posted
    assert (first.thread, second.thread) == (None, first.ts)
    assert not second.shown, "what went well is in the thread alone"
    assert first.blocks
    assert all(g.headers["authorization"] == f"Bearer {TOKEN}" for g in slack.receiver.got)


def test_what_failed_is_shown_in_the_channel_too(post: Post, slack: Slack) -> None:
    """Degraded and rolled back: in the thread, and for readers of the channel."""
    tell(post, "ActivationStarted", "Degraded", "RolledBack")
    first, *others = slack.posted
    assert [(p.thread, p.shown) for p in others] == [(first.ts, True)] * 2


def test_each_activation_has_its_own_thread(post: Post, slack: Slack) -> None:
    """Another instance, and the same one after a retry, has its own; builds are in none."""
    tell(post, "ActivationStarted")
    tell(post, "ActivationStarted", name="dev")
    tell(post, "RolledBack")
    post.happens("RetryRequested", "instance/prod")
    tell(post, "ActivationStarted", "ActivationActive")
    tell(post, "ActivationActive", name="dev")
    post.happens("BuildFailed", "environment/analytics")
    post.deliver(HOUR)
    prod, dev, back, again, active, other, build = slack.posted
    assert [p.thread for p in (prod, dev, again, build)] == [None] * 4
    assert [p.thread for p in (back, active, other)] == [prod.ts, again.ts, dev.ts]


def test_an_end_whose_beginning_is_not_told_opens_the_thread(post: Post, slack: Slack) -> None:
    """On a route for failures only, the first message opens it and the next one answers."""
    post.start(notify=routes(replace_severities("warning", "critical")))
    tell(post, "ActivationStarted", "Degraded", "RolledBack")
    first, second = slack.posted
    assert (first.thread, second.thread) == (None, first.ts)


def replace_severities(*severities: str) -> RouteSettings:
    return RouteSettings.model_validate({**ROUTE.model_dump(), "severities": severities})


def test_a_digest_is_in_no_thread(post: Post, slack: Slack) -> None:
    """It covers many activations; single messages keep their threads."""
    tell(post, "ActivationStarted")
    post.start(notify=routes(ROUTE, digest_above=1))
    post.happens("ActivationActive", "instance/prod")
    post.happens("ActivationActive", "instance/dev")
    post.deliver(HOUR)
    assert [p.thread for p in slack.posted] == [None, None]
    assert "2 changes" in slack.posted[-1].text


@pytest.mark.parametrize("error", ["", "thread_not_found", "cannot_reply_to_message"])
def test_a_thread_whose_first_message_was_deleted_is_opened_anew(
    error: str, post: Post, slack: Slack
) -> None:
    """If Slack refuses, or puts the answer into the channel, the thread continues there."""
    tell(post, "ActivationStarted")
    slack.deleted.add(slack.posted[0].ts)
    slack.errors += [error] if error else []
    tell(post, "Degraded", "RolledBack")
    _, second, third = slack.posted
    assert (second.thread, third.thread) == (None, second.ts)
    assert post.counts() == {"sent": 3}


def test_another_channel_has_threads_of_its_own(post: Post, slack: Slack) -> None:
    """A thread of one channel is not used in another."""
    threads = Threads(post.store, "threads:slack:C1")
    threads.keep(7, "1.0")
    assert Threads(post.store, "threads:slack:C1").of(7) == "1.0"
    assert Threads(post.store, "threads:slack:C2").of(7) == ""


def test_only_so_many_threads_are_remembered(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(slackbot, "KEPT", 3)
    threads = Threads(post.store, "threads:slack:C1")
    for number in range(1, 6):
        threads.keep(number, f"{number}.0")
    assert [threads.of(n) for n in range(1, 6)] == ["", "", "3.0", "4.0", "5.0"]


def test_the_rate_limit_is_obeyed(post: Post, slack: Slack) -> None:
    """After 429 with Retry-After nothing is sent early, nothing is lost or leaves its thread."""
    tell(post, "ActivationStarted")
    slack.receiver.answers = [
        Said(429, {"Retry-After": "120"}, '{"ok":false,"error":"ratelimited"}')
    ]
    tell(post, "ActivationActive")
    post.deliver(119)
    assert len(slack.posted) == 1
    post.deliver(2)
    assert slack.posted[1].thread == slack.posted[0].ts
    assert post.counts() == {"sent": 2}


@pytest.mark.parametrize("error", ["internal_error", "service_unavailable", "ratelimited"])
def test_an_error_that_passes_delays_and_loses_nothing(
    error: str, post: Post, slack: Slack
) -> None:
    """The same holds for errors that Slack reports with status 200."""
    slack.errors = [error] * 3
    post.happens("ActivationActive")
    for _ in range(5):
        post.deliver(HOUR)
    assert (len(slack.posted), post.counts()) == (1, {"sent": 1})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("invalid_auth", "write a new one into the secret's file `token`"),
        ("channel_not_found", "set `channel` to the channel's id"),
        ("not_in_channel", "invite it there"),
        ("missing_scope", "chat:write"),
        ("some_new_error", "Slack says some_new_error"),
    ],
)
def test_a_refusal_is_told_in_words_and_waits_for_its_mending(
    error: str, words: str, post: Post, slack: Slack, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon's log has it without the token; a changed token file is tried at once."""
    slack.errors = [error]
    post.happens("ActivationActive")
    post.deliver()
    assert words in caplog.text
    assert TOKEN not in caplog.text
    assert post.counts() == {"pending": 1}
    post.deliver(1)
    assert slack.posted == [], "nobody hammers Slack with what it refuses"
    post.secret("slack", token="xoxb-another-token")
    post.deliver(1)
    assert post.counts() == {"sent": 1}
    assert slack.receiver.got[-1].headers["authorization"] == "Bearer xoxb-another-token"


def test_blocks_that_slack_refuses_become_plain_text_in_the_thread(
    post: Post, slack: Slack
) -> None:
    """The same facts go without their layout; after a second refusal the message is given up."""
    tell(post, "ActivationStarted")
    slack.errors = ["invalid_blocks"]
    tell(post, "Degraded")
    assert (slack.posted[1].blocks, slack.posted[1].thread) == (None, slack.posted[0].ts)
    slack.errors = ["msg_too_long"] * 2
    tell(post, "RolledBack")
    assert post.counts() == {"sent": 2, "failed": 1}


@pytest.mark.parametrize(
    "said",
    [
        Said(200, body="<html>sign in</html>"),
        Said(200, body="{}"),
        Said(200, body="[]"),
        Said(502, body="<html>"),
        Said(200, {"Content-Type": "application/gzip"}, "x"),
    ],
    ids=["page", "empty", "list", "502", "binary"],
)
def test_an_answer_that_is_not_slacks_loses_nothing(said: Said, post: Post, slack: Slack) -> None:
    """A proxy's page is not taken for success."""
    slack.receiver.answers = [said]
    post.happens("ActivationActive")
    post.deliver()
    assert post.counts() == {"pending": 1}
    post.deliver(HOUR)
    assert post.counts() == {"sent": 1}


def test_the_token_is_in_no_log_and_no_record(
    post: Post, slack: Slack, caplog: pytest.LogCaptureFixture
) -> None:
    """No failure reveals it: an invalid token, a refusal, a closed port."""
    caplog.set_level(logging.DEBUG)
    post.happens("ActivationStarted")
    post.secret("slack", token=f"{TOKEN}\nsecond line")
    post.deliver(HOUR)
    assert "does not hold a token" in caplog.text
    post.secret("slack", token=TOKEN)
    slack.errors = ["invalid_auth"]
    post.deliver(HOUR)
    slack.close()
    post.deliver(2 * HOUR)
    assert "no answer" in caplog.text
    assert "s3cret" not in caplog.text
    post.store.close()
    assert b"s3cret" not in (post.root / "db").read_bytes()


def test_a_kill_between_the_answer_and_its_note_goes_on_in_the_thread(
    post: Post, slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message that opened it comes twice, the second time in its own thread."""
    post.happens("ActivationStarted", "instance/prod")

    def killed(*arguments: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(type(post.store), "settle", killed)
        post.start()
        with pytest.raises(SystemExit):
            post.deliver()
    post.start()
    post.deliver()
    tell(post, "ActivationActive")
    assert [p.thread for p in slack.posted] == [None, slack.posted[0].ts, slack.posted[0].ts]


def happened(number: int, kind: str, revision: str = "r1", **more: object) -> Event:
    told = stored_event(
        float(number), kind, "instance/a", "red", kind, "", revision, {"to": "b", **more}
    )
    return replace(told, id=number)


def test_an_activation_is_known_by_the_beginning_that_was_told() -> None:
    """An attempt that began again is the same news; another commit or a retry is not."""
    story = [
        happened(1, "ActivationActive"),
        happened(2, "ActivationStarted", "r2"),
        happened(3, "ActivationAborted", "r2"),
        happened(4, "ActivationStarted", "r2"),
        happened(5, "ActivationAborted", "r2"),
        happened(6, "RetryRequested", "r2"),
        happened(7, "ActivationStarted", "r2"),
        happened(8, "RolledBack", "r2"),
        happened(9, "ObjectStalled", "r2"),
        happened(10, "SourceFailed", ""),
    ]
    activation_ids = [activation_of(e, story[:n][::-1]) for n, e in enumerate(story)]
    assert activation_ids == [0, 2, 2, 2, 2, 0, 7, 7, 0, 0]


@pytest.mark.parametrize(
    ("token", "errors", "expected"),
    [
        (TOKEN, [], ("ok", "Good")),
        (TOKEN, ["invalid_auth"], ("wrong", "TokenRefused")),
        (TOKEN, ["internal_error"], ("unreachable", "ReceiverUnreachable")),
        ("", [], ("wrong", "SecretMissing")),
    ],
)
def test_the_doctor_asks_slack_for_the_token(
    token: str, errors: list[str], expected: tuple[str, str], slack: Slack, tmp_path: Path
) -> None:
    """No message is sent, and the token is not shown."""
    (tmp_path / "slack").mkdir()
    (tmp_path / "slack" / "token").write_text(token)
    slack.errors = errors
    settings = Settings(secrets_dir=tmp_path, notify=NotifySettings(routes=(ROUTE,)))
    (finding,) = messages.look_route(settings, ROUTE)
    assert (str(finding.level), finding.reason) == expected
    assert "s3cret" not in finding.message + finding.mend
    assert slack.posted == []


def test_a_channel_is_for_slack_alone() -> None:
    """The settings refuse any other use, and a value that cannot be a channel."""
    with pytest.raises(ValueError, match="only a route of kind slack has a channel: hook"):
        routes(RouteSettings(name="hook", kind="webhook", channel=CHANNEL))
    with pytest.raises(ValueError, match="channel"):
        RouteSettings(name="x", channel="two words")
