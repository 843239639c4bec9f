"""The API conforms to its OpenAPI document, whatever is requested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter

from reconciler.api import contract, openapi
from reconciler.api.documents import status_document
from reconciler.api.operations import LOG_OFFSET
from reconciler.core.model import Change
from reconciler.core.statuses import status
from tests.fakes.fleet import AT, builds, name_of
from tests.harness.pages import OPERATOR, READER, Served, write

READ = {"Authorization": f"Bearer {READER}"}
OPERATE = {"Authorization": f"Bearer {OPERATOR}"}

schema = schemathesis.openapi.from_path(Path(openapi.FILE))


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_api_keeps_to_its_document(case: schemathesis.Case[Any], url: str) -> None:
    """Schemathesis finds no 5xx, no undocumented response, and no wrong validation."""
    case.call_and_validate(base_url=url, headers=OPERATE)


def test_the_document_that_is_checked_in_is_the_one_that_is_served(http: httpx.Client) -> None:
    """docs/openapi.json, the code and the server agree; it needs no token."""
    assert json.loads(openapi.FILE.read_text()) == openapi.document()
    assert http.get("/api/v1/openapi.json").json() == openapi.document()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/status", contract.Status),
        ("/environments", list[contract.Environment]),
        (f"/environments/{name_of(8)}", contract.Environment),
        ("/instances", list[contract.Instance]),
        (f"/instances/{name_of(3)}", contract.Instance),
        (f"/builds/{builds(8)[0].key}", contract.BuildDetail),
        (f"/builds/{builds(0)[0].build_id}", contract.BuildDetail),
        ("/history", list[contract.Event]),
        (f"/builds/{builds(0)[0].key}/files", contract.Files),
        (f"/builds/{builds(0)[0].key}/files?package=duckdb&limit=5", contract.Files),
        ("/builds", list[contract.BuildDetail]),
        (f"/builds?environment={name_of(0)}", list[contract.BuildDetail]),
        ("/system", contract.System),
        ("/requests", list[contract.Request]),
        ("/runtimes", contract.Runtimes),
    ],
)
def test_every_document_is_of_its_shape(path: str, kind: type, http: httpx.Client) -> None:
    """No field too many, none too few, in any state of an object."""
    answer = http.get(f"/api/v1{path}", headers=READ)
    assert answer.status_code == 200, answer.text
    TypeAdapter(kind).validate_json(answer.content)


def test_status_is_what_the_command_line_prints(served: Served, http: httpx.Client) -> None:
    """The same document, except for the time at which it was computed."""
    printed = status_document(status(None, served.store.load(), AT))
    document = http.get("/api/v1/status", headers=READ).json()
    assert _timeless(document) == _timeless(json.loads(json.dumps(printed)))


def _timeless(document: dict[str, list[dict[str, list[dict[str, object]]]]]) -> object:
    for kind in ("environments", "instances"):
        for one in document[kind]:
            for condition in one["conditions"]:
                condition.pop("at")
    return document


def test_filters_and_search_narrow_the_lists(http: httpx.Client) -> None:
    """They filter by team, health and text; all given conditions have to hold."""

    def names(query: str) -> list[str]:
        instances = http.get(f"/api/v1/instances?{query}", headers=READ).json()
        return [one["name"] for one in instances]

    assert names("health=Suspended") == [name_of(5)]
    assert names("team=team-03") == [name_of(3)]
    assert names("q=ROLLED") == [name_of(3)]
    assert names("q=rolled+team-03") == [name_of(3)]
    assert names("q=rolled+team-04") == []
    assert len(names("sync=Synced")) > 1


def test_history_is_read_forwards_from_an_id(http: httpx.Client) -> None:
    """`after` returns what came since, oldest first: a follower misses nothing."""
    newest = http.get("/api/v1/history?limit=3", headers=READ).json()
    ids = [e["id"] for e in newest]
    assert ids == sorted(ids, reverse=True)
    since = http.get(f"/api/v1/history?after={ids[-1]}", headers=READ).json()
    assert [e["id"] for e in since] == sorted(ids)[1:]


def test_history_goes_back_page_by_page_and_names_several_kinds(http: httpx.Client) -> None:
    """`before` returns the next older ones; nothing is left out or given twice."""
    everything = http.get("/api/v1/history?limit=1000", headers=READ).json()
    newest = http.get("/api/v1/history?limit=3", headers=READ).json()
    older = http.get(f"/api/v1/history?before={newest[-1]['id']}&limit=1000", headers=READ).json()
    assert [*newest, *older] == everything
    kinds = {"BuildReady", "ActivationActive"}
    some = http.get(f"/api/v1/history?kind={','.join(kinds)}&limit=1000", headers=READ).json()
    assert some == [one for one in everything if one["kind"] in kinds]
    assert {one["kind"] for one in some} == kinds


def test_a_fresh_status_has_what_was_just_written(served: Served, http: httpx.Client) -> None:
    """Otherwise a few seconds may pass."""
    for number in range(3):
        revision = f"{number}" * 40
        repo = replace(served.store.load().repo, accepted_revision=revision)
        write(served, Change(repo=repo))
        document = http.get("/api/v1/status?fresh=true", headers=READ).json()
        assert document["revision"] == revision


def test_a_log_is_read_from_an_offset(http: httpx.Client) -> None:
    """The header says where the piece begins: at 0 if the log is shorter."""
    path = f"/api/v1/builds/{builds(0)[0].key}/log"
    for offset, text, begin in ((0, "resolved 3 packages\nverified\n", 0), (20, "verified\n", 20)):
        answer = http.get(f"{path}?offset={offset}", headers=READ)
        assert (answer.text, answer.headers[LOG_OFFSET]) == (text, str(begin))
    assert http.get(f"{path}?offset=29", headers=READ).content == b""
    assert http.get(f"{path}?offset=9000", headers=READ).headers[LOG_OFFSET] == "0"


def test_a_build_has_its_lock_sbom_and_log(http: httpx.Client) -> None:
    """They come from the share, so every replica has them; a failed build has none."""
    path = f"/api/v1/builds/{builds(0)[0].key}"
    assert "name = 'duckdb'" in http.get(f"{path}/lock", headers=READ).text
    assert http.get(f"{path}/sbom", headers=READ).json()["bomFormat"] == "CycloneDX"
    assert http.get(f"{path}/log", headers=READ).text == "resolved 3 packages\nverified\n"
    assert http.get(f"{path}/log?tail=9", headers=READ).text == "verified\n"
    failed = f"/api/v1/builds/{builds(8)[0].key}"
    for document in ("lock", "sbom", "log"):
        assert http.get(f"{failed}/{document}", headers=READ).status_code == 404
