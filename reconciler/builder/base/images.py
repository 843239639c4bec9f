"""Inventories of images, read in a Job with that image, once per image."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.builder.base.inspection import INVENTORY_LIMIT, Inventory, runtime_of
from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.kubernetes.executor import JobExecutor, Sessions
from reconciler.builder.executor.protocol import read_result
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Image, Runtime
from reconciler.documents import Malformed, parse

TIMEOUT = 120.0  # seconds that the inventory may take in a running pod

Asked = tuple[str | None, str]  # a cluster's context, and an image's id


@dataclass(frozen=True, slots=True)
class Images:
    """Inventories of images; `cache` keeps them by the id that nodes report.

    Used by many threads: concurrent requests for the same image get one answer.
    """

    sessions: Sessions
    cache: Path
    logs: Path
    _asked: dict[Asked, Future[Inventory]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inspect(self, image: Image, team: str) -> Runtime:
        """Return the runtime of an image. Raises Stalled("BaseUnreadable") or Retryable."""
        asked = (image.context, image.id)
        with self._lock:
            answer = self._asked.get(asked)
            mine = answer is None
            if answer is None:
                answer = self._asked[asked] = Future()
        if mine:
            try:
                answer.set_result(self._found(image, team))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                with self._lock:
                    del self._asked[asked]
        inventory = answer.result()
        return runtime_of(inventory, inventory.python, image)

    def _found(self, image: Image, team: str) -> Inventory:
        """Return the cached inventory, or else the image's answer."""
        mark = hashlib.sha256(image.id.encode()).hexdigest()[:16]
        kept = self.cache / "inventories" / f"{mark}.json"
        inventory = _parsed(read_result(kept, INVENTORY_LIMIT))
        if inventory is None or inventory.listing is None:  # written by an earlier version
            inventory = self._ask(image, team, f"inspect-{mark}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            temp = kept.with_name(f".tmp-{os.urandom(6).hex()}")
            temp.write_text(inventory.model_dump_json())
            temp.rename(kept)
        return inventory

    def _ask(self, image: Image, team: str, name: str) -> Inventory:
        key = f"{name}-{secrets.token_hex(3)}"  # another cluster may be queried at the same time
        job = BuildJob(key, name, team, "", self.logs / f"{name}.log", threading.Event())
        executor = JobExecutor(self.sessions, image)
        try:
            work = executor.scratch(job, harmless=True)
            answer = work / "inventory.json"
            ended = executor.run(
                job,
                ["python3", str(self.sessions.tools / "inventory.py"), "find", str(answer)],
                work=work,
                timeout=TIMEOUT,
                harmless=True,
                quiet=True,
                results=[answer],
            )
            inventory = _parsed(read_result(answer, INVENTORY_LIMIT))
        finally:
            executor.leave(job)
        if ended.code != 0 or inventory is None:
            tail = " ".join(ended.output.split())[-300:]
            raise Stalled(
                Reason.BASE_UNREADABLE,
                f"the image {image.reference} cannot be inspected; is it an Airflow image? {tail}",
            )
        return inventory


def _parsed(data: bytes | None) -> Inventory | None:
    try:
        return parse(Inventory, data or b"", "the inventory")
    except Malformed:
        return None
