"""Jars and binaries of a definition, fetched by hash and stored as one entry."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import httpx

from reconciler.builder.build_job import BuildJob
from reconciler.builder.index.egress import Reach
from reconciler.builder.manifest import Parts
from reconciler.builder.wheels.download import RECIPE_VERSION
from reconciler.certificates import UNTRUSTED, distrusts
from reconciler.core.definitions import FileItem, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.http_client import Client, refusal
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share

ARCHIVES = (
    (257, b"ustar", "a tar archive"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "packed by gzip"),
    (0, b"BZh", "packed by bzip2"),
    (0, b"\xfd7zXZ\x00", "packed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "packed by zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"!<arch>\n", "a Debian package or a static library"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
)
"""Beginnings of archives: (offset, bytes, name)."""

KEPT = (".jar", ".pyz", ".zip", ".whl", ".gz", ".xz", ".bz2", ".zst", ".tar", ".tgz")  # kept as is
MAVEN = "https://repo1.maven.org/maven2"


def fetch_files(
    job: BuildJob,
    recipe: Recipe,
    settings: BuilderSettings,
    share: Share,
    cache: Path,
    work: Path,
) -> Parts:
    """Publish the recipe's files. Raises Stalled (HashMismatch, AddressRefused) or Retryable."""
    if not recipe.files:
        return Parts()
    described = json.dumps([asdict(item) for item in recipe.files], sort_keys=True)
    digest = hashlib.sha256(f"files\0{RECIPE_VERSION}\0{described}".encode()).hexdigest()
    places = [(item, item.target) for item in recipe.files]
    jars = tuple(path for item, path in places if item.jar)
    has_bin = any(path.startswith("bin/") for _, path in places)
    if not share.has(digest):
        staged = work / "files-entry"
        for item, path in places:
            target = staged / "files" / path
            if ".." in target.parts or not target.is_relative_to(staged / "files"):
                raise Stalled(Reason.NOT_ALLOWED, f"{path} is not below the build's files")
            target.parent.mkdir(parents=True, exist_ok=True)
            source = _fetch(job, item, settings, cache)
            if _url(item, settings).endswith(".gz") and not path.endswith(".gz"):
                with gzip.open(source) as packed, target.open("wb") as file:
                    _copy_limited(packed, file, settings.file_bytes)
            else:
                shutil.copyfile(source, target)
            program = path.startswith("bin/")
            if program:
                _refuse_archive(target, item, _url(item, settings))
            target.chmod(item.mode | (0o755 if program else 0o400))  # it is copied from here
        share.put(digest, staged)
    return Parts(digest, jars, has_bin)


def _refuse_archive(file: Path, item: FileItem, url: str) -> None:
    """Raise Stalled("NotAProgram") for an archive that would be started as a program."""
    with file.open("rb") as opened:
        head = opened.read(512)
    kind = next((name for at, magic, name in ARCHIVES if head[at:].startswith(magic)), None)
    if kind is not None and not file.name.endswith(KEPT):
        raise Stalled(
            Reason.NOT_A_PROGRAM,
            f"files: {url} is {kind}, which cannot be started as {item.target}. Give the address "
            f"of the program itself, or commit the unpacked program to an in-repo package; to keep "
            f"the archive as it is, choose a path outside bin/",
        )


def _copy_limited(source: gzip.GzipFile, target: object, limit: int) -> None:
    written = 0
    while chunk := source.read(1 << 20):
        written += len(chunk)
        if written > limit:
            raise Stalled(Reason.TOO_LARGE, f"a packed file unpacks to more than {limit} bytes")
        target.write(chunk)  # type: ignore[attr-defined]


def _url(item: FileItem, settings: BuilderSettings) -> str:
    if item.url is not None:
        return item.url
    base = (settings.maven_repository or MAVEN).rstrip("/")
    return f"{base}/{item.jar_address}"


def _fetch(job: BuildJob, item: FileItem, settings: BuilderSettings, cache: Path) -> Path:
    path = cache / "files" / item.sha256
    if path.is_file():
        return path
    url = _url(item, settings)
    job.say(f"fetching {url}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".tmp-{os.urandom(6).hex()}")
    reach = Reach(url, operator=item.url is None, allow=settings.allow_hosts)
    digest = hashlib.sha256()
    size = 0
    try:
        with (
            Client(timeout=30.0) as client,
            reach.open(client, url) as answer,
            temp.open("xb") as file,
        ):
            if answer.status_code != 200:
                message, wait = refusal(answer)
                raise Retryable(Reason.FILE_UNREACHABLE, f"{url} {message}", after=wait)
            for chunk in answer.iter_bytes(1 << 20):
                job.check()
                size += len(chunk)
                if size > settings.file_bytes:
                    raise Stalled(
                        Reason.TOO_LARGE, f"{url} is larger than {settings.file_bytes} bytes"
                    )
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != item.sha256:
            raise Stalled(
                Reason.HASH_MISMATCH,
                f"{url} has SHA-256 {digest.hexdigest()}, the definition says {item.sha256}",
            )
        temp.rename(path)
    except httpx.HTTPError as error:
        if distrusts(error):
            raise Retryable(Reason.FILE_CERTIFICATE, f"{url}: {UNTRUSTED}: {error}") from error
        raise Retryable(Reason.FILE_UNREACHABLE, f"{url}: {error}") from error
    finally:
        temp.unlink(missing_ok=True)
    return path
