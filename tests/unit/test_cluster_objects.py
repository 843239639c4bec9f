"""Objects of an API server that are malformed or hostile: each concerns itself alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.cluster.connection import LINE_LIMIT, Connection, decoded
from reconciler.cluster.mirror import Mirror
from reconciler.cluster.objects import slim, whole
from reconciler.core.errors import Away, GroundcrewError
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed

DEEP = "[" * 100_000


def pod(name: str, **changes: Any) -> dict[str, Any]:
    """Return a pod of the release `airflow`."""
    metadata = {"name": name, "labels": {"release": "airflow"}, "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": {}, **changes}


HOSTILE: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a list": [],
    "no metadata": {"spec": {}},
    "metadata is a text": {"metadata": "x"},
    "no name": {"metadata": {}},
    "a long name": pod("x" * 10_000),
    "labels are a list": pod("x", metadata={"name": "x", "labels": ["a"]}),
    "a label is a number": pod("x", metadata={"name": "x", "labels": {"release": 7}}),
    "an annotation is an object": pod("x", metadata={"name": "x", "annotations": {"a": {}}}),
    "a time that is none": pod("x", metadata={"name": "x", "creationTimestamp": "soon"}),
    "owners are texts": pod("x", metadata={"name": "x", "ownerReferences": ["a"]}),
    "replicas are a text": pod("x", spec={"replicas": "many"}),
    "fewer than no replicas": pod("x", spec={"replicas": -1}),
    "containers are an object": pod("x", spec={"containers": {"a": 1}}),
    "a container without a name": pod("x", spec={"containers": [{"image": "i"}]}),
    "a template is a list": pod("x", spec={"template": []}),
    "a status is a text": pod("x", status="Running"),
    "a condition without a type": pod("x", status={"conditions": [{"status": "True"}]}),
    "a state is a text": pod("x", status={"containerStatuses": [{"name": "c", "state": "up"}]}),
    "many restarts": pod("x", status={"containerStatuses": [{"name": "c", "restartCount": 1e400}]}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_object_that_is_not_as_its_model_says_is_malformed(case: str) -> None:
    """Nothing behind it sees a shape that it does not expect."""
    with pytest.raises(Malformed):
        slim(HOSTILE[case])
    with pytest.raises(Malformed):
        whole("pods", HOSTILE[case])


def test_fields_that_are_null_count_as_missing() -> None:
    """The API server writes some, such as the creation time of a pod template."""
    template = {"metadata": {"creationTimestamp": None, "labels": {"a": "b"}}, "spec": None}
    kept = slim(pod("x", spec={"replicas": None, "template": template}, status=None))
    assert kept["spec"] == {"template": {"metadata": {"labels": {"a": "b"}}}}
    assert kept["status"] == {}


def test_nothing_that_is_not_read_is_kept() -> None:
    """A pod's environment and volumes are most of it."""
    long = {"kept": "x", "applied": "x" * 1000}
    container = {"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}]}
    document = pod("x", spec={"containers": [container], "volumes": [{"name": "v"}]})
    document["metadata"]["annotations"] = long
    kept = slim(document)
    assert kept["spec"] == {"containers": [{"name": "c", "image": "i"}]}
    assert kept["metadata"]["annotations"] == {"kept": "x"}


@pytest.mark.parametrize("text", [DEEP, "{", "[]", "7", '{"a": NaN}', '"\\ud800"'])
def test_an_answer_that_is_no_object_is_malformed(text: str) -> None:
    """Neither deep nesting nor broken text is another exception."""
    with pytest.raises(Malformed):
        decoded(text.encode(), "the answer")


# ------------------------------------------------------------------------------------ watches


class Script:
    """Answers of an API server: pages of lists, then lines of watches, one list of lines each."""

    def __init__(self, items: list[Any], *watches: list[bytes]) -> None:
        self.items = items
        self.watches = list(watches)
        self.lists = 0


@contextmanager
def server(script: Script) -> Iterator[str]:
    """Serve the script on loopback; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            if "watch=true" not in self.path:
                script.lists += 1
                page = {"metadata": {"resourceVersion": "1"}, "items": script.items}
                self.wfile.write(json.dumps(page).encode())
            elif script.watches:
                self.wfile.write(b"".join(line + b"\n" for line in script.watches.pop(0)))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join(10)


class NotingMirror(Mirror):
    """Mirror that notes why its watch failed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, "/api/v1/namespaces/n/pods", "")
        self.problems: list[GroundcrewError] = []

    def _fail(self, error: GroundcrewError) -> None:
        self.problems.append(error)
        super()._fail(error)


@contextmanager
def mirror(root: Path, script: Script) -> Iterator[NotingMirror]:
    """Keep a copy of what the script's server has."""
    with server(script) as url:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        file = root / "kubeconfig"
        file.write_text(json.dumps(config))
        connection = Connection("x", file, 10.0)
        copy = NotingMirror(connection)
        copy.start()
        try:
            yield copy
        finally:
            copy.close()
            connection.close()


def event(kind: str, found: object) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode()


def names(copy: Mirror) -> set[str]:
    return {str(one["metadata"]["name"]) for one in copy.items()}


def test_a_malformed_object_is_left_out_and_the_watch_goes_on(tmp_path: Path) -> None:
    """It is named, with its release, until it is valid or gone."""
    bad = pod("bad", spec={"replicas": "many"})
    events = [
        event("ADDED", {**bad, "metadata": {**bad["metadata"], "name": "worse"}}),
        event("ADDED", pod("good")),
        event("DELETED", {"metadata": {"name": "worse"}}),
        event("MODIFIED", pod("late")),
    ]
    with mirror(tmp_path, Script([bad, pod("first"), None], events)) as copy:
        assert copy.wait(lambda: names(copy) == {"first", "good", "late"}, 30)
        error = copy.unreadable("airflow")
        assert error is not None
        assert "object bad" in str(error)
        assert copy.unreadable("another") is None
        assert copy.fresh


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        DEEP.encode(),
        b"[]",
        b"{}",
        event("ADDED", None),
        event("ADDED", {}),
        event("ADDED", {"metadata": 7}),
        event("ERROR", "gone"),
        b"x" * (LINE_LIMIT + (1 << 17)),
    ],
    ids=["text", "deep", "list", "empty", "null", "bare", "number", "error", "endless"],
)
def test_an_event_that_cannot_be_read_is_the_servers_fault(
    tmp_path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy says so, and lists again."""
    monkeypatch.setattr("reconciler.cluster.mirror.MOST", 0.1)
    script = Script([pod("first")], [line], [event("ADDED", pod("second"))])
    with mirror(tmp_path, script) as copy:
        assert copy.wait(lambda: "second" in names(copy), 30)
    assert copy.problems
    assert {error.reason for error in copy.problems} <= {
        Reason.CLUSTER_UNEXPECTED,
        Reason.CLUSTER_UNREACHABLE,
    }


def test_a_list_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever a server sends."""
    monkeypatch.setattr("reconciler.cluster.mirror.MOST_OBJECTS", 2)
    with mirror(tmp_path, Script([pod(f"p{n}") for n in range(3)])) as copy:
        assert copy.wait(lambda: bool(copy.problems), 20)
        with pytest.raises(Away) as caught:
            copy.synced(1)
    assert caught.value.reason == Reason.CLUSTER_UNEXPECTED
