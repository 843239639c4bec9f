"""Git server whose connections can be cut in the middle of a response."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

PIECE = 4096
START_TIMEOUT = 30.0  # seconds


class GitServer:
    """Server of one repository at `url` while entered; `cut_after` spoils the next connections."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._left: list[int] = []  # bytes after which each of the next connections is cut
        self.cuts = 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"git://127.0.0.1:{self._listener.getsockname()[1]}/{repo.name}"

    def __enter__(self) -> Self:
        self._git = subprocess.Popen(
            [
                "git",
                "daemon",
                "--export-all",
                "--reuseaddr",
                "--listen=127.0.0.1",
                f"--port={self._port}",
                f"--base-path={self._repo.parent}",
            ],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._connect().close()
                break
            except OSError:
                assert time.monotonic() < deadline, "git daemon does not start"
                time.sleep(0.05)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._git.terminate()
        self._git.wait(30)

    def cut_after(self, *sizes: int) -> None:
        """Cut the next connections, each after the server has sent that number of bytes."""
        self._left = list(sizes)

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=30)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                left = self._left.pop(0) if self._left else None
                threading.Thread(target=self._serve, args=(client, left), daemon=True).start()

    def _serve(self, client: socket.socket, left: int | None) -> None:
        with client, suppress(OSError), self._connect() as server:
            threading.Thread(target=_send_on, args=(client, server), daemon=True).start()
            while data := server.recv(PIECE):
                if left is not None and len(data) >= left:
                    client.sendall(data[:left])
                    self.cuts += 1
                    break
                client.sendall(data)
                left = left - len(data) if left is not None else None
            for one in (client, server):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


def _send_on(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while data := client.recv(PIECE):
            server.sendall(data)
