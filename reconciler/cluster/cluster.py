"""Client for one Kubernetes cluster: objects as plain JSON, and copies kept by watches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

from reconciler.cluster.connection import Connection, Cut, Json
from reconciler.cluster.mirror import Mirror
from reconciler.cluster.objects import whole
from reconciler.core.errors import Away, Retryable
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed
from reconciler.settings import ClusterSettings

log = logging.getLogger(__name__)

ROOTS = {
    "pods": "/api/v1",
    "events": "/api/v1",
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
}
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
STRATEGIC = "application/strategic-merge-patch+json"
SILENT_LOG = 3600.0  # seconds for which a followed log may be silent
UNUSED = 120.0  # seconds after which an unused mirror is closed

Selector = tuple[str, str, str]  # kind, namespace, labels


class Cluster:
    """Client for the objects of one cluster.

    `kind` is the plural as in paths, `labels` a label selector. `check` is called before each
    change is sent, and raises if this daemon may not make changes. Errors are those of Connection.
    """

    def __init__(
        self, connection: Connection, limits: ClusterSettings, check: Callable[[], None]
    ) -> None:
        self.context = connection.name
        self.limits = limits
        self._connection = connection
        self._check = check
        self._mirrors: dict[Selector, Mirror] = {}
        self._lock = threading.Lock()

    def list(self, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Json]:
        """Return all objects that match; [] if the namespace does not exist.

        Objects that are not as their model says are left out.
        """
        query = {"labelSelector": labels, "fieldSelector": fields}
        listing = self._connection.json(
            "GET", _path(kind, namespace), {k: v for k, v in query.items() if v}
        )
        items = (listing or {}).get("items")
        objects = []
        for item in items if isinstance(items, list) else ():
            try:
                objects.append(whole(kind, item))
            except Malformed as error:
                log.warning("cluster %s, %s: %s; left out", self.context, kind, error)
        return objects

    def unexpected(self, error: Malformed) -> Away:
        """Return the error for an object that cannot be read."""
        return self._connection.unexpected(error)

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return one object, or None if it does not exist."""
        document = self._connection.json("GET", _path(kind, namespace, name))
        try:
            return None if document is None else whole(kind, document)
        except Malformed as error:
            raise self.unexpected(error) from error

    def may(
        self, namespace: str, verb: str, group: str, resource: str, subresource: str = ""
    ) -> bool:
        """Return True if the server would allow the daemon to do this. Nothing is changed."""
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._connection.json("POST", REVIEWS, body=body) or {}
        status = answer.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    def create(self, kind: str, namespace: str, body: Mapping[str, object]) -> Json:
        """Create an object. Raises Exists, or Retryable("NamespaceMissing").

        If the connection is cut, the object is looked up: its name is new, so it must be ours.
        """
        metadata = body["metadata"]
        assert isinstance(metadata, Mapping), "a manifest has metadata"
        try:
            path = _path(kind, namespace)
            made = self._connection.json("POST", path, body=body, check=self._check)
        except Cut:
            made = self.get(kind, namespace, str(metadata["name"]))
            if made is None:
                raise
        if made is None:
            raise Retryable(
                Reason.NAMESPACE_MISSING, f"cluster {self.context} has no namespace {namespace}"
            )
        return made

    def patch(
        self, kind: str, namespace: str, name: str, body: object, *, dry_run: bool = False
    ) -> Json | None:
        """Change an object by a strategic merge patch; return None if it does not exist."""
        query = {"fieldManager": "groundcrew"} | ({"dryRun": "All"} if dry_run else {})
        path = _path(kind, namespace, name)
        for _ in (1, 2):
            try:
                return self._connection.json("PATCH", path, query, body, STRATEGIC, self._check)
            except Cut as error:  # applying the same patch again is harmless
                last = error
        raise last

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "") -> bool:
        """Delete an object, only the one with `uid` if given; return False if it does not exist."""
        body: Json = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        path = _path(kind, namespace, name)
        for _ in (1, 2):
            try:
                response = self._connection.json("DELETE", path, body=body, check=self._check)
                return response is not None
            except Cut as error:
                last = error
        raise last

    def logs(
        self, namespace: str, pod: str, container: str, *, tail: int, previous: bool = False
    ) -> str:
        """Return the last lines of a container's log, or "" if there is none."""
        query = {
            "container": container,
            "tailLines": tail,
            "limitBytes": 1 << 20,
            "previous": str(previous).lower(),
        }
        data = self._connection.read("GET", f"{_path('pods', namespace, pod)}/log", query)
        return (data or b"").decode(errors="replace")

    def log_head(self, namespace: str, pod: str, container: str, limit: int) -> str:
        """Return the first `limit` bytes of a container's log, with a time before each line."""
        query = {"container": container, "limitBytes": limit, "timestamps": "true"}
        data = self._connection.read("GET", f"{_path('pods', namespace, pod)}/log", query)
        return (data or b"").decode(errors="replace")

    def follow(self, namespace: str, pod: str, container: str) -> Iterator[str]:
        """Yield a container's log line by line as it is written, until it ends.

        The server responds with the first byte of the log, so a quiet log may take long to begin.
        """
        query = {"container": container, "follow": "true"}
        path = f"{_path('pods', namespace, pod)}/log"
        for line in self._connection.stream(path, query, SILENT_LOG, begins=SILENT_LOG):
            yield line.decode(errors="replace").rstrip("\r")

    # -------------------------------------------------------------------------------- mirrors

    def mirror(self, kind: str, namespace: str, labels: str = "") -> Mirror:
        """Return a copy of the matching objects, kept by a watch while it is used. Never waits."""
        key = (kind, namespace, labels)
        now = time.monotonic()
        with self._lock:
            unused = [k for k, m in self._mirrors.items() if k != key and now - m.used > UNUSED]
            ended = [self._mirrors.pop(k) for k in unused]
            active = self._mirrors.get(key)
            if active is None:
                active = Mirror(self._connection, _path(kind, namespace), labels)
                self._mirrors[key] = active
                active.start()
            active.used = now
        for mirror in ended:
            mirror.close()
        return active

    def close(self) -> None:
        """Close the mirrors and the connections."""
        with self._lock:
            mirrors, self._mirrors = list(self._mirrors.values()), {}
        for mirror in mirrors:
            mirror.close()
        self._connection.close()


def _path(kind: str, namespace: str, name: str = "") -> str:
    path = f"{ROOTS[kind]}/namespaces/{quote(namespace, safe='')}/{kind}"
    return f"{path}/{quote(name, safe='')}" if name else path
