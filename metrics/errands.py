"""A piece of work in a thread of its own, that nobody has to wait for longer than they want."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Errand:
    """Begins at once. Its thread ends with the process, whatever it waits on."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._work = work
        self._count = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._count = self._work()
        except BaseException as error:  # told to whoever asks for the result
            self._error = error

    def is_running(self) -> bool:
        """Has it not ended yet."""
        return self._thread.is_alive()

    def result(self, until: float) -> int:
        """What it returned, or 0 if it has not by `until` (monotonic); raises what it raised."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._error is not None:
            raise self._error
        return self._count
