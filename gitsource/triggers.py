"""Watcher for changed refs of a local repo, which wakes the daemon before its next poll."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from reconciler.core.addresses import shown
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

DEBOUNCE = 0.05  # seconds: a push touches several refs


class Watcher(FileSystemEventHandler):
    """Watcher that calls `wake` soon after a ref of the repo has changed, until `close`."""

    def __init__(self, git_dir: Path, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._observer = Observer()
        self._observer.schedule(self, str(git_dir), recursive=False)
        if (git_dir / "refs").is_dir():
            self._observer.schedule(self, str(git_dir / "refs"), recursive=True)
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake once for a burst of changes."""
        if event.event_type in ("opened", "closed_no_write") or event.is_directory:
            return
        name = Path(str(event.src_path)).name
        dest = Path(str(getattr(event, "dest_path", "") or "")).name
        if "refs" not in str(event.src_path) and not {name, dest} & {"HEAD", "packed-refs"}:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(DEBOUNCE, self._wake)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join(timeout=5.0)
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()


def watch(url: str, wake: Callable[[], None]) -> Watcher:
    """Watch a local repo. Raises Stalled("NotLocal") for any other."""
    if url.startswith("file://"):
        path = Path(unquote(urlsplit(url).path))
    elif url.startswith("/"):
        path = Path(url)
    else:
        raise Stalled(
            Reason.NOT_LOCAL, f"{shown(url)} is not on this machine; it is polled, or use a webhook"
        )
    git_dir = path / ".git" if (path / ".git").is_dir() else path
    if not git_dir.is_dir():
        raise Stalled(Reason.NOT_LOCAL, f"{git_dir} is not there yet; the repo is polled")
    return Watcher(git_dir, wake)
