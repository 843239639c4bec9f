"""Copy of a cluster's objects, kept by list and watch, without the fields that nothing reads.

An object that is not as its model says is left out and named by `unreadable`; an answer that is no
list or no event ends the attempt, as an unreachable server does.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping

import urllib3

from reconciler.cluster.connection import Connection, Cut, Expired, Json, decoded
from reconciler.cluster.objects import ListMetadata, name_of, release_of, slim, version_of
from reconciler.core.errors import Away, GroundcrewError, Retryable
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed, check

log = logging.getLogger(__name__)

WATCH = (1500.0, 2700.0)  # seconds of one watch; random, so that they do not all end at once
SILENCE = 180.0  # seconds without even a bookmark, which is sent every minute
FIRST, MOST = 0.5, 30.0  # seconds between two attempts while the server does not respond
PAGE = 500  # objects per page of a list
MOST_OBJECTS = 200_000  # in one copy

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
        self._unreadable: dict[str, tuple[str, Malformed]] = {}  # release and error by name
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

    def unreadable(self, release: str) -> Malformed | None:
        """Return the error of an object of a release that cannot be read, or None."""
        with self._changed:
            errors = [error for of, error in self._unreadable.values() if of == release]
        return errors[0] if errors else None

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
            except Malformed as error:
                self._fail(self._connection.unexpected(error))
                self._version, wait = "", MOST * _spread(0.5, 1.0)
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
        unreadable: dict[str, tuple[str, Malformed]] = {}
        query: dict[str, object] = {"limit": PAGE}
        if self._labels:
            query["labelSelector"] = self._labels
        while True:
            answer = self._connection.json("GET", self._path, query) or {}
            items = answer.get("items") or []
            if not isinstance(items, list):
                raise Malformed(f"its list of {self._path} has no items")
            for item in items:
                try:
                    objects[name_of(item)] = slim(item)
                except Malformed as error:
                    unreadable[name_of(item)] = release_of(item), self._left_out(error)
            metadata = check(ListMetadata, answer.get("metadata") or {}, f"list of {self._path}")
            self._bound(len(objects))
            if not metadata.proceed:
                break
            query["continue"] = metadata.proceed
        with self._changed:
            if not self.fresh:
                self.since = time.time()
            old, self._objects, self._unreadable = self._objects, objects, unreadable
            self._listed, self._problem, self._failures = True, None, 0
            self._changed.notify_all()
            listeners = list(self._listeners)
        for name in old.keys() | objects.keys():
            if old.get(name) != objects.get(name):
                self._tell(listeners, old.get(name), objects.get(name))
        self._version = metadata.resourceVersion or ""

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
                event = decoded(line, f"an event of {self._path}")
                version = self._take(str(event.get("type")), event.get("object"))
                self._version = version or self._version
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

    def _take(self, kind: str, found: object) -> str:
        """Apply one event of the watch; return the version that it leads to."""
        if not isinstance(found, Mapping):
            raise Malformed(f"an event of {self._path} has no object")
        if kind == "ERROR":
            code, message = found.get("code"), str(found.get("message", ""))[:500]
            if code == 410:
                raise Expired(Reason.EXPIRED, message)
            raise Away(Reason.CLUSTER_UNREACHABLE, f"cluster {self._connection.name}: {message}")
        version, name = version_of(found), name_of(found)
        if kind == "BOOKMARK":
            return version
        if not name:
            raise Malformed(f"an event of {self._path} is about an object without a name")
        new, error = None, None
        if kind != "DELETED":
            try:
                new = slim(found)
            except Malformed as wrong:
                error = self._left_out(wrong)
        with self._changed:
            old = self._objects.pop(name, None)
            self._unreadable.pop(name, None)
            if new is not None:
                self._bound(len(self._objects))
                self._objects[name] = new
            if error is not None:
                self._unreadable[name] = release_of(found), error
            self._changed.notify_all()
            listeners = list(self._listeners)
        self._tell(listeners, old, new)
        return version

    def _left_out(self, error: Malformed) -> Malformed:
        log.warning("cluster %s, %s: %s; left out", self._connection.name, self._path, error)
        return error

    def _bound(self, count: int) -> None:
        if count > MOST_OBJECTS:
            raise Malformed(f"more than {MOST_OBJECTS} objects match {self._path}")

    def _tell(self, listeners: list[Changed], old: Json | None, new: Json | None) -> None:
        for listener in listeners:
            try:
                listener(old, new)
            except Exception:
                log.exception("a listener to %s", self._path)


def _spread(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - so that clients do not all send at once
