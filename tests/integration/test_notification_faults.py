"""Facts that cannot be sent at once: limits, outages, wrong addresses, kills; none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from reconciler.settings import RouteSettings
from reconciler.store.store import Store
from tests.fakes.receiver import Receiver, Said
from tests.harness.outbox import MINUTE, Post, dead_address, routes


def test_a_rate_limit_is_obeyed_for_as_long_as_it_says(
    post: Post, receiver: Callable[..., Receiver]
) -> None:
    """After 429 with Retry-After nothing is sent before that time, and everything after it."""
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
    """A Retry-After that is an HTTP date is obeyed, instead of the longest allowed pause."""
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
    """Nobody listens for an hour, and the daemon is restarted meanwhile; then all of it is sent."""
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
    assert post.counts() == {"sent": 60, "skipped": 60}  # skipped: their outcomes were sent
    assert "s3cret-address" not in caplog.text
    assert len([r for r in caplog.records if r.name == "metrics.routes"]) < 30


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_wrong_address_waits_for_its_mending_for_a_day(
    code: int, post: Post, receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked webhook is tried rarely; when its file is corrected, all is sent at once."""
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
    """The message is skipped or waits; no error escapes, and no log has the address."""
    post.secret("slack", url=url)
    post.start(notify=routes(RouteSettings(name="x", kind=kind)))
    post.happens("ActivationActive")
    assert post.deliver() == 0
    assert post.counts() == {"pending": 1} if url else {"skipped": 1}
    assert "s3cret-address" not in caplog.text


@pytest.mark.slow
def test_a_dead_route_holds_up_no_other(post: Post, receiver: Callable[..., Receiver]) -> None:
    """More messages wait for one team's webhook than one read returns; another team's arrive."""
    well = receiver()
    post.secret("dead", url=dead_address())
    post.secret("well", url=well.url)
    post.start(
        notify=routes(
            RouteSettings(name="dead", secret="dead"),
            RouteSettings(name="well", secret="well"),
        )
    )
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
    """A webhook that hangs is left alone, and gets nothing more until it has ended."""
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
    """After 400 invalid_blocks the same facts go without blocks; a second refusal is a failure."""
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
    """Delivery is at least once: the webhook's facts have an id that identifies the second one."""
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
