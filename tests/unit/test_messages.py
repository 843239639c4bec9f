"""Messages for people: facts made from events, and their layout within Slack's limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from metrics.commits import State, commit_url_of, project_of, status_of
from metrics.facts import Fact, Links, beginning_of, is_news, make_fact
from metrics.messages import digest, escape, fit, message
from reconciler.core.definitions import Wave
from reconciler.core.event_codec import data_of, decoded
from reconciler.core.events import Event
from reconciler.core.model import Verb
from reconciler.core.reasons import Reason
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.events import event as stored_event
from tests.fakes.simulated_world import House

SHA = "0123456789abcdef0123456789abcdef01234567"
LINKS = Links("https://groundcrew.example", "https://git.example/o/r/commit/{revision}")


def event(kind: str = "ActivationActive", number: int = 1, **changes: Any) -> Event:
    data: dict[str, object] = {
        "trigger": "commit",
        "from": "1111111111111111",
        "to": "2222222222222222",
        "packages_added": ["boto3 1.40"],
        "packages_removed": ["six 1.16"],
        "packages_changed": ["pandas 2.1 → 2.2"],
        "seconds": 200.0,
        "phases": {"Draining": 20.0, "Restarting": 180.0},
        "author": "A. Author",
        "subject": "newer pandas",
        "environment": "analytics",
    }
    data |= changes.pop("data", {})
    values: dict[str, Any] = {
        "at": 1000.0,
        "kind": kind,
        "object": "instance/prod",
        "team": "red",
        "reason": kind,
        "message": "2222222222222222 is active",
        "revision": SHA,
        "id": number,
    }
    return stored_event(data=data, **(values | changes))


def fact(*arguments: Any, **changes: Any) -> Fact:
    made = make_fact(event(*arguments, **changes), LINKS)
    assert made is not None
    return made


def check_limits(payload: dict[str, Any]) -> None:
    """Check Slack's own limits, in characters and blocks."""
    assert 0 < len(payload["text"]) <= 40_000
    assert 1 <= len(payload["blocks"]) <= 50
    for block in payload["blocks"]:
        match block["type"]:
            case "header":
                assert 1 <= len(block["text"]["text"]) <= 150
            case "section":
                texts = [block["text"]["text"]] if "text" in block else []
                assert all(1 <= len(text) <= 3000 for text in texts)
                fields = block.get("fields", [])
                assert len(fields) <= 10
                assert texts or fields
                assert all(1 <= len(f["text"]) <= 2000 for f in fields)
            case "context":
                assert 1 <= len(block["elements"]) <= 10
                assert all(1 <= len(e["text"]) <= 3000 for e in block["elements"])
            case other:
                pytest.fail(f"no block of type {other} is expected")


def words(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False)


def test_a_message_says_what_changed_for_whom_by_whom_and_how_long_it_took() -> None:
    """All the facts of an activation are in its only message."""
    payload = message(fact())
    check_limits(payload)
    said = words(payload)
    for word in (
        "prod: active",
        "*Added* boto3 1.40",
        "*Removed* six 1.16",
        "pandas 2.1 → 2.2",
        "red",
        "A. Author",
        "newer pandas",
        f"https://git.example/o/r/commit/{SHA}",
        "https://groundcrew.example/instances/prod",
        "3m 20s",
        "Restarting 3m 00s",
        "1111111111111111",
        "environment analytics",
    ):
        assert word in said, word


def test_a_message_says_when_imports_cost_more() -> None:
    """They are next to the changed packages; nothing is reported if nothing increased."""
    payload = message(fact(data={"imports_grown": ["412 files → 980 files (+138 %)"]}))
    check_limits(payload)
    assert "*Imports cost more* 412 files → 980 files (+138 %)" in words(payload)
    assert "Imports" not in words(message(fact(data={"imports_grown": []})))


def test_a_failure_says_why_where_what_to_do_and_the_last_lines() -> None:
    """Reason, place, advice and the end of the build's log; no backtick ends its block."""
    told = event(
        "BuildFailed",
        object="environment/analytics",
        reason=Reason.RESOLUTION_CONFLICT,
        message="acme<2 is not possible",
        data={"key": "k" * 16, "place": "teams/red/one.yaml:5", "from": "", "to": ""},
    )
    asked = []

    def log_of(key: str) -> list[str]:
        asked.append(key)
        return ["resolving 3 requirements", "no ```solution``` was found"]

    made = make_fact(told, LINKS, log_of)
    assert made is not None
    assert asked == ["k" * 16]
    payload = message(made)
    check_limits(payload)
    said = words(payload)
    for word in (
        "*ResolutionConflict*",
        "acme&lt;2 is not",
        "`teams/red/one.yaml:5`",
        "groundcrew logs",
    ):
        assert word in said, word
    (log,) = [
        b["text"]["text"]
        for b in payload["blocks"]
        if b.get("text", {}).get("text", "")[:3] == "```"
    ]
    assert log.count("```") == 2
    assert "no '''solution''' was found" in log


@pytest.mark.parametrize(
    "kind", ["ActivationStarted", "ActivationActive", "RolledBack", "Degraded"]
)
@pytest.mark.parametrize("letter", ["x", "<", "&", "é", "😀"])
def test_whatever_a_commit_holds_the_message_is_within_slacks_limits(
    kind: str, letter: str
) -> None:
    """Every text has the maximum length, and contains letters that grow when escaped."""
    long = letter * 60_000
    names = [f"{letter * 150}{n} 1.0" for n in range(2000)]
    made = fact(
        kind,
        team=long,
        object=f"instance/{long}",
        message=f"{long}\n{long}",
        reason=long,
        data={
            "author": long,
            "subject": long,
            "place": long,
            "environment": long,
            "packages_added": names,
            "packages_removed": names,
            "packages_changed": names,
            "phases": {f"{letter * 300}{n}": 5.0 for n in range(100)},
        },
    )
    check_limits(message(made))
    check_limits(digest([made] * 1000))
    check_limits(digest([fact(kind, n, object=f"instance/{n}", revision=SHA) for n in range(300)]))


def test_no_mention_link_or_markup_comes_out_of_a_commit() -> None:
    """Angle brackets from a repo never reach Slack unescaped, nor do direction characters."""
    evil = "<!channel> <https://evil.example|click> *bold* \u202egnp.exe\x1b[31m\x00"
    payload = message(
        fact(message=evil, data={"subject": evil, "author": evil, "packages_added": [evil]})
    )
    said = words(payload)
    assert "<!channel>" not in said
    assert "<https://evil" not in said
    assert "&lt;!channel&gt;" in said
    for character in ("\u202e", "\x1b", "\x00", "\\u001b", "\\u0000"):
        assert character not in said


def test_credentials_in_an_address_are_not_told() -> None:
    """`https://user:password@host` loses its credentials; a secret's value becomes ***."""
    told = event(
        "SourceFailed", object="repo", message="https://me:hunter22@git.example and t0psecret"
    )
    made = make_fact(told, LINKS, clean=lambda text: text.replace("t0psecret", "***"))
    assert made is not None
    assert "hunter22" not in words(message(made))
    assert "t0psecret" not in words(message(made))


def test_a_cut_never_leaves_half_an_escape() -> None:
    """Whatever the limit, the text consists of whole escapes and an ellipsis."""
    for limit in range(1, 40):
        shown = fit("a&b<c>d" * 20, limit)
        assert len(shown) <= limit
        assert escape("a&b<c>d" * 20).startswith(shown.removesuffix("…"))
        assert shown.removesuffix("…").count("&") == shown.count(";")


def test_what_changes_nothing_is_not_told() -> None:
    """The same build again, a superseded activation, and events that are only history."""
    same = {"from": "a" * 16, "to": "a" * 16}
    assert make_fact(event("ActivationStarted", data=same), LINKS) is None
    assert make_fact(event("ActivationActive", data=same), LINKS) is None
    assert make_fact(event("ActivationAborted", reason=Reason.SUPERSEDED), LINKS) is None
    assert make_fact(event("ActivationPhase"), LINKS) is None
    assert make_fact(event("ActivationAborted", reason=Reason.DRAIN_TIMEOUT), LINKS) is not None


def test_what_was_taken_back_says_what_it_was_to_change() -> None:
    """An activation's end has the packages, commit and author of its own start, no other's."""
    begun = event("ActivationStarted", 1)
    gone = event("RolledBack", 3)
    data = {"from": "2" * 16, "to": "1" * 16, "seconds": 9.0}
    gone = replace(gone, payload=decoded(gone.kind, data), stored=data)
    earlier = [event("ActivationPhase", 2), begun]
    made = make_fact(gone, LINKS, began=beginning_of(gone, earlier))
    assert made is not None
    assert made.changed == ("pandas 2.1 → 2.2",)
    assert (made.author, made.seconds, made.build) == ("A. Author", 9.0, "1" * 16)
    assert "*To be upgraded* pandas 2.1 → 2.2" in words(message(made))
    other = replace(begun, revision="f" * 40)
    assert beginning_of(gone, [other]) is None


def test_the_same_fact_is_news_only_after_something_else() -> None:
    """A retry that gives up on a drain every half hour is reported once; a request resets that."""
    started = event("ActivationStarted", 1)
    given_up = event(
        "ActivationAborted", 2, reason=Reason.DRAIN_TIMEOUT, message="after 900 s", data={}
    )
    again = event(
        "ActivationAborted", 4, reason=Reason.DRAIN_TIMEOUT, message="after 901 s", data={}
    )
    assert is_news(given_up, [started])
    assert not is_news(event("ActivationStarted", 3), [given_up, started])
    assert not is_news(again, [event("ActivationStarted", 3), given_up, started])
    asked = event("RetryRequested", 3)
    assert is_news(again, [asked, given_up, started])
    newer = event("ActivationAborted", 5, reason=Reason.DRAIN_TIMEOUT, revision="f" * 40)
    assert is_news(newer, [again, given_up, started])


def test_a_digest_names_failures_first_and_groups_the_rest() -> None:
    """A base that all teams share changes: one message, with each failure and its reason."""
    good = [fact("ActivationActive", n, object=f"instance/dev-{n:03}") for n in range(100)]
    bad = [
        fact(
            "RolledBack", 500, object="instance/prod-7", reason="ImportErrors", message="3 broken"
        ),
        fact(
            "Degraded",
            501,
            object="instance/prod-8",
            reason=Reason.GATE_FAILED,
            message="no heartbeat",
        ),
    ]
    payload = digest([*good, *bad])
    check_limits(payload)
    assert payload["blocks"][0]["text"]["text"].startswith("102 changes: 100 active, 1 ")
    texts = [b["text"]["text"] for b in payload["blocks"] if b["type"] == "section"]
    assert "prod-8: DEGRADED" in texts[0]
    assert "no heartbeat" in texts[0]
    assert "prod-7: rolled back" in texts[1]
    assert "groundcrew retry" in texts[2]
    (group,) = [t for t in texts if "100 active" in t]
    for word in (
        "dev-000",
        "and 80 more",
        "pandas 2.1 → 2.2",
        "A. Author",
        "took up to 3m 20s",
    ):
        assert word in group, word


# ------------------------------------------------------------------------------ commit statuses


def test_events_become_statuses_on_their_commit() -> None:
    """The build's on the environment, the activation's on the instance, each with its state."""
    built = event(
        "BuildReady", object="environment/analytics", message="16 packages to install", data={}
    )
    status = status_of(built, "groundcrew", LINKS)
    assert status is not None
    assert (status.sha, status.context) == (SHA, "groundcrew/analytics")
    assert status.state is State.SUCCESS
    assert status.description == "built and verified: 16 packages to install"
    assert status.url == "https://groundcrew.example/environments/analytics"
    back = status_of(event("RolledBack", message="3 import errors " * 50), "groundcrew")
    assert back is not None
    assert back.context == "groundcrew/analytics/prod"
    assert back.state is State.FAILURE
    assert len(back.description) == 140
    assert status_of(event(data={"trigger": "operator"}), "groundcrew") is None
    assert status_of(event(revision=""), "groundcrew") is None


@pytest.mark.parametrize(
    ("address", "project", "page"),
    [
        (
            "https://github.com/acme/envs.git",
            "acme/envs",
            "https://github.com/acme/envs/commit/{revision}",
        ),
        (
            "git@gitlab.example:data/team/envs.git",
            "data/team/envs",
            "https://gitlab.example/data/team/envs/-/commit/{revision}",
        ),
        (
            "ssh://git@github.example:2222/a/b",
            "a/b",
            "https://github.example/a/b/commit/{revision}",
        ),
        ("https://user:pw@git.example/a/b.git", "a/b", ""),
        ("/srv/git/envs.git", "", ""),
        ("file:///srv/git/envs.git", "", ""),
    ],
)
def test_the_commits_page_is_found_from_the_repos_address(
    address: str, project: str, page: str
) -> None:
    """Credentials and ports are removed; only known forges have a page."""
    assert project_of(address) == project
    assert commit_url_of(address) == page


# ------------------------------------------------------------------------- changes without a commit


def on_its_second_build() -> House:
    """Return an instance that a commit moved from one build to another."""
    house = House()
    house.instances["dev"], house.airflow["dev"] = instance("dev"), Airflow()
    for recipe in ("g1", "g2"):
        house.environments["one"] = environment("one", recipe, (Wave(("dev",)),))
        house.commit()
        house.settle()
    return house


def rolled_back_by_hand(fails: bool = False) -> list[Event]:
    """Return the events of an operator's rollback on a commit's instance, as the core does."""
    house = on_its_second_build()
    before = len(house.events)
    if fails:
        house.complete["g1@cp311-linux-1"].clear()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    ends = ("ActivationStarted", "ActivationActive", "RolledBack")
    return [replace(e, revision=SHA) for e in house.events[before:] if e.kind in ends]


def test_an_operators_rollback_is_no_success_of_the_commit() -> None:
    """It is reported as such, with the operator, and without the commit that it leaves."""
    facts = [made for e in rolled_back_by_hand() if (made := make_fact(e, LINKS))]
    assert [f.title for f in facts] == [
        "dev: being rolled back by someone",
        "dev: rolled back by someone",
    ]
    for made in facts:
        assert (made.trigger, made.who) == ("operator", "someone")
        assert (made.revision, made.commit_url, made.author, made.subject) == ("", "", "", "")
        assert made.environment == "one"
    said = words(message(facts[-1]))
    assert ":leftwards_arrow_with_hook:" in said
    assert ":white_check_mark:" not in said
    assert "2 rolled back by someone" in words(digest([facts[-1]] * 2))


def test_a_rollback_that_fails_is_not_the_commits_failure() -> None:
    """Neither the text nor the commit's status says so."""
    events = rolled_back_by_hand(fails=True)
    assert [e.kind for e in events] == ["ActivationStarted", "RolledBack"]
    made = make_fact(events[-1], LINKS)
    assert made is not None
    assert (made.title, made.revision) == ("dev: rollback by someone failed", "")
    assert [status_of(e, "groundcrew") for e in events] == [None, None]


def test_a_rollback_that_is_given_up_leaves_the_commits_status_alone() -> None:
    """Its drain took too long: nothing would ever settle a status that is pending."""
    house = on_its_second_build()
    house.ask(Verb.ROLLBACK, "instance/dev")
    for _ in range(40):
        house.airflow["dev"].tasks = ["g2@cp311-linux-1"]
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 61.0
    given_up = [e for e in house.events if e.kind == "ActivationAborted"]
    assert given_up
    assert {data_of(e)["environment"] for e in given_up} == {"one"}
    assert {status_of(replace(e, revision=SHA), "groundcrew") for e in given_up} == {None}


def test_a_deleted_environment_is_told_as_such() -> None:
    """No commit made the bare base active."""
    made = fact(data={"trigger": "deletion", "to": ""})
    assert made.title == "prod: on the bare base, as no environment names it"
    assert made.author == ""


def test_versions_that_do_not_grow_are_not_called_upgraded() -> None:
    """Upgraded and downgraded if it is clear, otherwise changed."""
    made = fact(
        data={
            "packages_changed": [
                "boto3 1.9 → 1.40",
                "pandas 2.3.3 → 2.2.0",
                "acme 1.0 → main",
                "six 1.0 → 1.0.0",
            ]
        }
    )
    said = words(message(made))
    assert "*Upgraded* boto3 1.9 → 1.40" in said
    assert "*Downgraded* pandas 2.3.3 → 2.2.0" in said
    assert "*Changed* acme 1.0 → main, six 1.0 → 1.0.0" in said
    assert "1 upgraded, 1 downgraded, 2 changed" in said
