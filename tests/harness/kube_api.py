"""Client of the Kubernetes API for the laboratory: raw documents, separate from tested code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import urllib3

Json = dict[str, Any]
T = TypeVar("T")

GROUPS = {
    "apps/v1": "deployments statefulsets replicasets daemonsets",
    "batch/v1": "jobs cronjobs",
    "coordination.k8s.io/v1": "leases",
    "storage.k8s.io/v1": "storageclasses",
    "scheduling.k8s.io/v1": "priorityclasses",
    "policy/v1": "poddisruptionbudgets",
    "networking.k8s.io/v1": "networkpolicies ingresses",
    "rbac.authorization.k8s.io/v1": "roles rolebindings clusterroles clusterrolebindings",
    "authorization.k8s.io/v1": "selfsubjectaccessreviews",
}
ROOTS = {kind: f"/apis/{group}" for group, kinds in GROUPS.items() for kind in kinds.split()}
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
LOADED = 4  # factor of time limits on a loaded machine; only failures wait that long
ENOUGH = 300.0  # upper limit in seconds: pytest ends a test after 600


class ApiError(Exception):
    """Response other than 2xx: its HTTP `status` and the `reason` of its Status document."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(f"{method} {path}: {status} {text[:500]}")
        self.status = status
        try:
            self.reason = str(json.loads(text).get("reason", ""))
        except ValueError:
            self.reason = ""


def path_of(kind: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the path of a collection, an object or its subresource; `kind` is the plural."""
    parts = [ROOTS.get(kind, "/api/v1")]
    if namespace:
        parts += ["namespaces", namespace]
    parts += [part for part in (kind, name, sub) if part]
    return "/".join(parts)


def plural_of(kind: str) -> str:
    """Return the plural by which the API names a manifest's kind."""
    singular = kind.lower()
    plurals = {"y": singular[:-1] + "ies", "s": singular + "es"}
    return plurals.get(singular[-1], singular + "s")


class Api:
    """Client of the API server for one user; safe to use from many threads."""

    def __init__(self, url: str, ca: Path, token: str, connections: int = 16) -> None:
        self.url, self.token = url, token
        self._pool = urllib3.PoolManager(
            maxsize=connections, block=True, ca_certs=str(ca), timeout=TIMEOUT, retries=False
        )
        self._streams = urllib3.PoolManager(
            maxsize=16, ca_certs=str(ca), timeout=TIMEOUT, retries=False
        )
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()
        self._streams.clear()

    def raw(self, method: str, path: str, body: object = None, type_: str = "") -> bytes:
        """Return the bytes of a response. Raises ApiError for anything but 2xx."""
        headers = {**self._headers, "Content-Type": type_ or "application/json"}
        data = None if body is None else json.dumps(body).encode()
        answer = self._pool.request(method, self.url + path, body=data, headers=headers)
        if answer.status >= 300:
            raise ApiError(method, path, answer.status, answer.data.decode(errors="replace"))
        return answer.data

    def call(self, method: str, path: str, body: object = None, type_: str = "") -> Json:
        """Return the document of a response."""
        return dict(json.loads(self.raw(method, path, body, type_) or b"{}"))

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Json]:
        """Return all objects of a kind, in one namespace or in all."""
        query = f"?labelSelector={labels}" if labels else ""
        return list(self.call("GET", path_of(kind, namespace) + query)["items"])

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return one object, or None."""
        try:
            return self.call("GET", path_of(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, kind: str, namespace: str, body: Mapping[str, Any], sub: str = "") -> Json:
        """Create an object; with `sub`, send a request to that subresource of `body`'s name."""
        name = body["metadata"]["name"] if sub else ""
        return self.call("POST", path_of(kind, namespace, name, sub), body)

    def apply(self, document: Mapping[str, Any], namespace: str = "") -> Json:
        """Create or replace the object of a manifest, by server-side apply."""
        meta = document["metadata"]
        space = meta.get("namespace", namespace)
        path = path_of(plural_of(document["kind"]), space, meta["name"])
        path += "?fieldManager=lab&force=true"
        return self.call("PATCH", path, document, "application/apply-patch+yaml")

    def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        sub: str = "",
        type_: str = STRATEGIC,
    ) -> Json:
        """Change an object."""
        return self.call("PATCH", path_of(kind, namespace, name, sub), body, type_)

    def delete(
        self, kind: str, namespace: str, name: str, options: Mapping[str, Any] | None = None
    ) -> bool:
        """Delete an object; return False if it does not exist."""
        try:
            self.call("DELETE", path_of(kind, namespace, name), options or {})
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def watch(self, kind: str, version: str, seconds: int = 300) -> Iterator[Json]:
        """Yield events of all namespaces from a resource version, until the server ends it."""
        query = "?watch=true&allowWatchBookmarks=true"
        path = f"{path_of(kind)}{query}&resourceVersion={version}&timeoutSeconds={seconds}"
        for line in self.follow(path, seconds + 30):
            yield json.loads(line)

    def follow(self, path: str, seconds: float = 60) -> Iterator[str]:
        """Yield lines of a response as they arrive, with at most so many seconds between two."""
        answer = self._streams.request(
            "GET",
            self.url + path,
            headers=self._headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5.0, read=seconds),
        )
        try:
            if answer.status >= 300:
                raise ApiError("GET", path, answer.status, answer.data.decode(errors="replace"))
            pending = b""
            for chunk in answer.stream(65536):
                *lines, pending = (pending + chunk).split(b"\n")
                yield from (line.decode() for line in lines if line)
        finally:
            answer.close()


def wait_for(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Return the first true result of `look`. Raises AssertionError after LOADED × `seconds`."""
    limit = max(seconds, min(seconds * LOADED, ENOUGH))
    end = time.monotonic() + limit
    while True:
        outcome = look()
        if outcome:
            return outcome
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.1)
