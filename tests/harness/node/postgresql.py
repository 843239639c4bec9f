"""Debian's PostgreSQL, at an address that pods reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "airflow"


@contextmanager
def postgresql(address: str, port: int, clients: Sequence[str]) -> Iterator[str]:
    """Run a server with an empty database `airflow`; yield its URL without a driver."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "PostgreSQL is not installed: apt-get install postgresql"
    folder = Path(tempfile.mkdtemp(prefix="groundcrew-node-pg-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    shutil.chown(folder, "postgres")
    shutil.chown(secret, "postgres")
    data = folder / "data"

    def run(program: str, *words: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(programs[-1] / program), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder)

    try:
        run(
            "initdb",
            "-D",
            str(data),
            "-U",
            "airflow",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
        )
        with (data / "pg_hba.conf").open("a") as file:
            file.writelines(f"host all all {network} scram-sha-256\n" for network in clients)
        options = f"-h {address} -p {port} -k {folder} -c fsync=off -c max_connections=200"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            environment = {**os.environ, "PGPASSWORD": PASSWORD}
            subprocess.run(
                [
                    str(programs[-1] / "createdb"),
                    "-h",
                    address,
                    "-p",
                    str(port),
                    "-U",
                    "airflow",
                    "airflow",
                ],
                check=True,
                capture_output=True,
                timeout=30,
                env=environment,
            )
            yield f"airflow:{PASSWORD}@{address}:{port}/airflow"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
