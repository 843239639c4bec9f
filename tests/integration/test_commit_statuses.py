"""Facts that the real clients post to forges, as statuses of commits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from reconciler.settings import StatusSettings
from tests.fakes.receiver import JSON, Receiver, Said, github, gitlab
from tests.harness.outbox import HOUR, SHA, Post, routes


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
    """The forge is down while a commit goes from pending to failure: it only gets the failure."""
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
)
def test_a_forge_that_says_no_is_asked_again_only_when_that_can_help(
    answer: Said,
    left: str,
    post: Post,
    receiver: Callable[..., Receiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a limit or a bad token it waits, after an unknown commit not; no log has the token."""
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
    """After 429 with a long Retry-After there is one request; the status waits in the outbox."""
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
    """GitLab answers 400 to a state that the commit has already; that is no failure."""
    answer = {"message": "Cannot transition status via :run from :running"}
    forge = receiver(lambda *_: Said(400, JSON, json.dumps(answer)))
    post.secret("forge", token="glpat-t0ken")
    post.start(
        notify=routes(), statuses=StatusSettings(forge="gitlab", api_url=forge.root, project="o/r")
    )
    post.happens("BuildQueued", "environment/analytics")
    post.deliver()
    assert post.counts() == {"sent": 1}
