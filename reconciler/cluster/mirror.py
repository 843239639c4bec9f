"""Copy of a cluster's objects, kept by list and watch, without the fields that nothing reads."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable

import urllib3

from reconciler.cluster.connection import Connection, Cut, Expired, Json
from reconciler.core.errors import Away, GroundcrewError, Retryable
from reconciler.core.reasons import Reason

log = logging.getLogger(__name__)

WATCH = (1500.0, 2700.0)  # seconds of one watch; random, so that they do not all end at once
SILENCE = 180.0  # seconds without even a bookmark, which is sent every minute
FIRST, MOST = 0.5, 30.0  # seconds between two attempts while the server does not respond
PAGE = 500  # objects per page of a list

Changed = Callable[[Json | None, Json | None], None]


class Mirror:
    """Objects by name, kept by a thread. Every method may be called from any thread."""

    def __init__(self, connection: Connection, path: str, labels: str) -> None:
        self.used = time.monotonic()
        self.since = 0.0  # time since which it is kept without a gap; 0.0 before it is complete
        self._connection = connection
        self._path = path
        self._labels = labels
        self._objects: dict[str, Json] = {}
        self._changed = threading.Condition()
        self._listeners: list[Changed] = []
        self._listed = False
        self._problem: GroundcrewError | None = None
        self._version = ""  # from which a watch continues; "" if everything must be listed
        self._failures = 0  # consecutive attempts that brought nothing
        self._stop = threading.Event()
        self._answer: urllib3.BaseHTTPResponse | None = None

    def start(self) -> None:
        """Start to list and watch."""
        threading.Thread(target=self._run, name=f"watch {self._path}", daemon=True).start()

    def close(self) -> None:
        """End the watch, without waiting for it."""
        self._stop.set()
        answer = self._answer
        if answer is not None:
            try:
                answer.shutdown()
            except (OSError, ValueError, RuntimeError):
                log.debug("the watch of %s has ended already", self._path)

    def listen(self, changed: Changed) -> None:
        """Call `changed(old, new)` for each object that is added, changed or deleted (None)."""
        with self._changed:
            if changed not in self._listeners:
                self._listeners.append(changed)

    @property
    def fresh(self) -> bool:
        """True if the copy is complete and its watch runs."""
        return self._listed and self._problem is None

    def items(self) -> list[Json]:
        """Return the current objects, which must not be changed."""
        with self._changed:
            return list(self._objects.values())

    def synced(self, timeout: float) -> None:
        """Wait until the copy is complete. Raises the server's error, or Retryable."""
        with self._changed:
            self._changed.wait_for(lambda: self.fresh, timeout)
            if self.fresh:
                return
            if self._problem is not None:
                raise self._problem
        raise Away(
            Reason.CLUSTER_UNREACHABLE,
            f"cluster {self._connection.name} has not listed {self._path} yet",
        )

    def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until `predicate` holds, checked at every change; return True if it does."""
        with self._changed:
            return self._changed.wait_for(predicate, timeout)

    # --------------------------------------------------------------------------------- thread

    def _run(self) -> None:
        while not self._stop.is_set():
            wait = _spread(0.0, FIRST)
            try:
                if not self._version:
                    self._list()
                self._watch()
                continue
            except Expired:
                self._version = ""
            except GroundcrewError as error:
                if not isinstance(error, Cut) or self._failures:  # a watch may well be cut once
                    self._fail(error)
                    wait = min(MOST, FIRST * 2 ** min(self._failures, 10)) * _spread(0.5, 1.0)
                    after = error.after if isinstance(error, Retryable) else None
                    wait = wait if after is None else after
                self._failures += 1
            except Exception:
                log.exception("the watch of %s", self._path)
                self._version, wait = "", MOST
            self._stop.wait(wait)

    def _fail(self, error: GroundcrewError) -> None:
        log.info("watching %s: %s", self._path, error)
        with self._changed:
            self._problem = error
            self._changed.notify_all()

    def _list(self) -> None:
        """Replace the copy by the server's current objects."""
        objects: dict[str, Json] = {}
        query: dict[str, object] = {"limit": PAGE}
        if self._labels:
            query["labelSelector"] = self._labels
        while True:
            answer = self._connection.json("GET", self._path, query) or {}
            for item in answer.get("items") or []:
                objects[str(item["metadata"]["name"])] = slim(item)
            metadata = answer.get("metadata") or {}
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        with self._changed:
            if not self.fresh:
                self.since = time.time()
            old, self._objects = self._objects, objects
            self._listed, self._problem, self._failures = True, None, 0
            self._changed.notify_all()
            listeners = list(self._listeners)
        for name in old.keys() | objects.keys():
            if old.get(name) != objects.get(name):
                self._tell(listeners, old.get(name), objects.get(name))
        self._version = str(metadata.get("resourceVersion") or "")

    def _watch(self) -> None:
        """Apply changes to the copy until the server ends the watch."""
        query: dict[str, object] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": int(_spread(*WATCH)),
        }
        if self._labels:
            query["labelSelector"] = self._labels
        try:
            for line in self._connection.stream(self._path, query, SILENCE, self._opened):
                event = json.loads(line)
                self._version = self._take(str(event["type"]), event["object"]) or self._version
                self._failures = 0
        finally:
            self._answer = None

    def _opened(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        if self._stop.is_set():
            answer.shutdown()
        with self._changed:
            if not self.fresh:
                self.since = time.time()
            self._problem = None
            self._changed.notify_all()

    def _take(self, kind: str, found: Json) -> str:
        """Apply one event of the watch; return the version that it leads to."""
        if kind == "ERROR":
            code, message = found.get("code"), str(found.get("message", ""))
            if code == 410:
                raise Expired(Reason.EXPIRED, message)
            raise Away(Reason.CLUSTER_UNREACHABLE, f"cluster {self._connection.name}: {message}")
        version = str(found["metadata"].get("resourceVersion") or "")
        if kind == "BOOKMARK":
            return version
        name = str(found["metadata"]["name"])
        with self._changed:
            old = self._objects.pop(name, None)
            new = None if kind == "DELETED" else slim(found)
            if new is not None:
                self._objects[name] = new
            self._changed.notify_all()
            listeners = list(self._listeners)
        self._tell(listeners, old, new)
        return version

    def _tell(self, listeners: list[Changed], old: Json | None, new: Json | None) -> None:
        for listener in listeners:
            try:
                listener(old, new)
            except Exception:
                log.exception("a listener to %s", self._path)


def _spread(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - so that clients do not all send at once


METADATA = (
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "generation",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
SPEC = (
    "replicas",
    "paused",
    "strategy",
    "updateStrategy",
    "podManagementPolicy",
    "securityContext",
    "terminationGracePeriodSeconds",
    "nodeName",
)
CONTAINER = ("name", "image", "securityContext")
ANNOTATION_LIMIT = 256  # characters; applied configurations are longer, and nothing reads them here


def slim(found: Json) -> Json:
    """Return the parts of an object that are read here: a tenth of the size of a pod."""
    kept: Json = {
        "metadata": _metadata(found.get("metadata") or {}),
        "spec": _spec(found.get("spec") or {}),
        "status": found.get("status") or {},
    }
    template = (found.get("spec") or {}).get("template")
    if template:
        kept["spec"]["template"] = {
            "metadata": _metadata(template.get("metadata") or {}),
            "spec": _spec(template.get("spec") or {}),
        }
    return kept


def _metadata(found: Json) -> Json:
    kept = {key: found[key] for key in METADATA if key in found}
    annotations = kept.get("annotations")
    if annotations:
        kept["annotations"] = {
            key: value for key, value in annotations.items() if len(value) <= ANNOTATION_LIMIT
        }
    return kept


def _spec(found: Json) -> Json:
    kept = {key: found[key] for key in SPEC if key in found}
    for key in ("initContainers", "containers"):
        if containers := found.get(key):
            kept[key] = [{k: c[k] for k in CONTAINER if k in c} for c in containers]
    return kept
