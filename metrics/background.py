"""Background work in a thread, whose result callers can wait for with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Errand:
    """Work in a daemon thread that starts at once and ends with the process."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._work = work
        self._count = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._count = self._work()
        except BaseException as error:  # raised again in `result`
            self._error = error

    def is_running(self) -> bool:
        """Return True if the work has not finished yet."""
        return self._thread.is_alive()

    def result(self, until: float) -> int:
        """Return the work's result, or 0 if it is not done by `until` (monotonic time).

        Raises what the work raised.
        """
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._error is not None:
            raise self._error
        return self._count
