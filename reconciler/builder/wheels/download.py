"""Wheels of a lock, chosen for a runtime, fetched by hash and compiled once."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

import httpx

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.protocol import Executor
from reconciler.builder.index.proxy import Upstream
from reconciler.builder.keyed_lock import MAKING
from reconciler.builder.local_disk import disk_error, disk_full, ran_out_of_disk
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.resolve.uv_errors import untrusted
from reconciler.certificates import distrusts
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.failpoints import failpoint
from reconciler.http_client import refusal

FETCHING = 3600.0  # seconds per download
RECIPE_VERSION = "3"  # of how an entry is made from a wheel; part of its digest


def entry_digest(sha256: str, python_tag: str) -> str:
    """Return the digest of a wheel's store entry for one Python, as its bytecode differs."""
    text = f"{sha256}\0{python_tag}\0{RECIPE_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()


def fetch(job: BuildJob, wheel: Wheel, upstream: Upstream, cache: Path, limit: int) -> Path:
    """Download a wheel into the cache, once for all concurrent users, and check its hash.

    Raises Stalled: HashMismatch if the index serves a file other than the locked one, TooLarge
    beyond `limit` bytes.
    """
    path = cache / "wheels" / wheel.sha256[:2] / wheel.sha256 / wheel.filename
    if path.is_file():
        return path
    with MAKING.of(str(path), job.check):
        return path if path.is_file() else _fetch(job, wheel, upstream, path, limit)


def _fetch(job: BuildJob, wheel: Wheel, upstream: Upstream, path: Path, limit: int) -> Path:
    job.check()
    job.say(f"fetching {wheel.filename}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        digest = _download(job, wheel, upstream, temp, limit)
        if digest != wheel.sha256:
            raise Stalled(
                Reason.HASH_MISMATCH,
                f"{wheel.filename} from {upstream.name} has SHA-256 {digest[:16]}…, the lock says "
                f"{wheel.sha256[:16]}…; it was replaced on the index. If that is right, run "
                f"`groundcrew refresh {job.environment}`",
            )
        temp.rename(path)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        temp.unlink(missing_ok=True)
    failpoint("builder.fetched")
    return path


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256; the file is read in pieces, as wheels may be large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compile_entry(
    job: BuildJob,
    executor: Executor,
    python: str,
    staged: Path,
    final: Path,
    work: Path,
    timeout: float,
) -> None:
    """Compile what is staged, as it will be at `final`; files that do not compile are kept.

    Raises Retryable("DiskFull") or Stalled("CompileTimeout").
    """
    command = compile_command(python, staged, final)
    ended = executor.run(job, command, work=work, timeout=timeout, harmless=True, quiet=True)
    if ran_out_of_disk(ended):
        raise disk_full()
    if ended.timed_out:
        raise Stalled(
            Reason.COMPILE_TIMEOUT,
            f"compiling took longer than {timeout:g} s; raise builder.build_timeout",
        )


def _download(job: BuildJob, wheel: Wheel, upstream: Upstream, temp: Path, limit: int) -> str:
    digest, size, deadline = hashlib.sha256(), 0, time.monotonic() + FETCHING
    try:
        with upstream.open(wheel.url) as answer:
            if answer.status_code in (401, 403):
                raise Retryable(
                    Reason.INDEX_DENIED, f"index {upstream.name} refuses the credentials"
                )
            if answer.status_code != 200:
                message, wait = refusal(answer)
                raise Retryable(
                    Reason.INDEX_UNREACHABLE, f"index {upstream.name} {message}", after=wait
                )
            with temp.open("xb") as file:
                for chunk in answer.iter_bytes():
                    job.check()
                    size += len(chunk)
                    if size > limit:
                        raise Stalled(
                            Reason.TOO_LARGE,
                            f"{wheel.filename} from {upstream.name} is larger than {limit} bytes "
                            f"(builder.file_bytes)",
                        )
                    if time.monotonic() > deadline:
                        raise Retryable(
                            Reason.INDEX_UNREACHABLE,
                            f"index {upstream.name} has not sent {wheel.filename} within "
                            f"{FETCHING:.0f} s",
                        )
                    digest.update(chunk)
                    file.write(chunk)
    except httpx.HTTPError as error:
        if distrusts(error):
            raise untrusted(upstream.name) from error
        raise Retryable(
            Reason.INDEX_UNREACHABLE, f"index {upstream.name}: {job.clean(str(error))}"
        ) from error
    return digest.hexdigest()


def compile_command(python: str, staged: Path, final: Path) -> list[str]:
    """Return the command that compiles an entry so that it is valid wherever it is copied.

    Packages named `tests` inside others are left out, see ADR 3; whoever imports one compiles it.
    """
    lib = str(staged / "lib")
    return [
        python,
        "-I",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-x",
        f"^{re.escape(lib)}/.+/tests/",
        "-s",
        lib,
        "-p",
        str(final / "lib"),
        lib,
    ]
