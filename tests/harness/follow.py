"""Follower of all objects of a kind, which survives restarts of the API server."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.harness.kube_api import Api, Json, path_of


class Follower(threading.Thread):
    """Thread that calls `see` for each object and change, and `gone` for its end, at least once."""

    def __init__(
        self, api: Api, kind: str, see: Callable[[Json], None], gone: Callable[[Json], None]
    ) -> None:
        super().__init__(name=f"follow {kind}", daemon=True)
        self._api, self._kind, self._see, self._gone = api, kind, see, gone
        self._known: dict[str, Json] = {}
        self._over = threading.Event()

    def stop(self) -> None:
        """Stop calling; the thread ends with its current watch."""
        self._over.set()

    def run(self) -> None:
        """List and watch until stopped."""
        version = ""
        while not self._over.is_set():
            try:
                version = version or self._list()
                for event in self._api.watch(self._kind, version, seconds=60):
                    if self._over.is_set():
                        return
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] == "DELETED":
                        self._forget(event["object"])
                    elif event["type"] != "BOOKMARK":
                        self._tell(event["object"])
            except Exception:  # the API server is being restarted
                version = ""
                self._over.wait(0.3)

    def _list(self) -> str:
        listing = self._api.call("GET", path_of(self._kind))
        there = {one["metadata"]["uid"] for one in listing["items"]}
        for uid, known in list(self._known.items()):
            if uid not in there:
                self._forget(known)
        for one in listing["items"]:
            self._tell(one)
        return str(listing["metadata"]["resourceVersion"])

    def _tell(self, one: Json) -> None:
        self._known[one["metadata"]["uid"]] = one
        self._see(one)

    def _forget(self, one: Json) -> None:
        self._known.pop(one["metadata"]["uid"], None)
        self._gone(one)
