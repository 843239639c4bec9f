"""Answers of Airflow's REST API that no Airflow gives are refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.airflow.answers import TEXT
from reconciler.airflow.rest import AirflowApi
from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from tests.fakes.answers import Answers

JSON = {"Content-Type": "application/json"}
ONE = {"total_entries": 1}
DEEP = b"[" * 100_000
LONG = "x" * 5000

CALLS: dict[str, Callable[[AirflowApi], object]] = {
    "pools": AirflowApi.pools,
    "busy": AirflowApi.busy,
    "import errors": AirflowApi.import_errors,
    "dags": AirflowApi.dags,
    "health": AirflowApi.health,
    "plugins": AirflowApi.plugins,
    "providers": AirflowApi.providers,
    "set a pool": lambda api: api.set_pool("small", 3),
}


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("a-token")
    return tmp_path


def refusal(call: Callable[[AirflowApi], object], body: bytes, secret: Path) -> str:
    """Return how an answer was refused; other errors than Retryable are bugs of ours."""
    with (
        Answers(body, JSON) as server,
        AirflowApi(server.url, secret) as api,
        pytest.raises(Retryable) as caught,
    ):
        call(api)
    assert caught.value.reason == Reason.AIRFLOW_UNEXPECTED
    return caught.value.message


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"text"', b"{", DEEP, b'{"a": "\\ud800"}'])
def test_what_is_no_document_is_refused(name: str, body: bytes, token: Path) -> None:
    message = refusal(CALLS[name], body, token)
    assert "answered 200: the response is invalid" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("name", "document", "words"),
    [
        ("pools", {}, "pools: Field required"),
        ("pools", {"pools": {}}, "valid array"),
        ("pools", {"pools": [3], **ONE}, "pools.0"),
        ("pools", {"pools": [{"slots": 3}], **ONE}, "pools.0.name"),
        ("pools", {"pools": [{"name": "a", "slots": "3"}], **ONE}, "pools.0.slots"),
        ("pools", {"pools": [{"name": LONG, "slots": 3}], **ONE}, "at most 4096"),
        ("pools", {"pools": [], "total_entries": "many"}, "total_entries"),
        ("busy", {"task_instances": []}, "total_entries"),
        ("busy", {"total_entries": -1}, "total_entries"),
        ("busy", {"total_entries": True}, "total_entries"),
        ("import errors", {"import_errors": [{"filename": 7}]}, "import_errors.0.filename"),
        ("import errors", {"import_errors": [{"timestamp": {}}]}, "import_errors.0.timestamp"),
        ("dags", {"dags": [{}]}, "dags.0.dag_id"),
        ("dags", {"dags": [{"dag_id": ["a"]}]}, "dags.0.dag_id"),
        ("health", {"scheduler": 5}, "scheduler"),
        ("health", {"scheduler": {"status": {}}}, "scheduler.status"),
        ("plugins", {"plugins": [{"source": 5}]}, "plugins.0.source"),
        ("providers", {"providers": [{}]}, "providers.0.package_name"),
    ],
)
def test_a_document_of_another_shape_is_refused(
    name: str, document: object, words: str, token: Path
) -> None:
    assert words in refusal(CALLS[name], json.dumps(document).encode(), token)


@pytest.mark.parametrize("token", ["a\nb", "é", "", 5, "x" * 20_000])
def test_a_session_token_that_is_no_header_is_refused(token: object, tmp_path: Path) -> None:
    """It would be sent in a header; the message does not repeat it."""
    (tmp_path / "username").write_text("user")
    (tmp_path / "password").write_text("password")
    body = json.dumps({"access_token": token}).encode()
    message = refusal(AirflowApi.pools, body, tmp_path)
    assert "logging in" in message
    assert "access_token" in message
    assert len(message) < 500


def test_a_listing_without_end_is_refused(token: Path) -> None:
    """Each page promises more."""
    body = json.dumps({"providers": [{"package_name": "a"}], "total_entries": 10**9}).encode()
    assert "providers has more than 1000 rows" in refusal(AirflowApi.providers, body, token)


def test_texts_are_cut_and_impossible_times_count_as_none(token: Path) -> None:
    errors = [
        {"filename": "a.py", "stack_trace": LONG * 10 + "the end", "timestamp": "0001-01-01"},
        {"filename": "b.py", "timestamp": "9999-12-31T23:59:59-23:59"},
        {"filename": "c.py", "timestamp": "soon"},
    ]
    body = json.dumps({"import_errors": errors, "total_entries": 3}).encode()
    with Answers(body, JSON) as server, AirflowApi(server.url, token) as api:
        a, b, c = api.import_errors()
    assert a.text.endswith("the end")
    assert len(a.text) == TEXT
    assert (a.at, c.at) == (0.0, 0.0)
    assert b.at >= 0.0
