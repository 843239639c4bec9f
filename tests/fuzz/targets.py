"""Fuzz targets: each takes any bytes, and only raises if the product is wrong.

Only errors that the product documents for such input are caught here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from packaging.requirements import Requirement
from starlette.requests import Request

from gitsource.assemble import assemble
from gitsource.constraints import constraints_of
from gitsource.requirement_lines import in_repo
from gitsource.requirements_files import LineKind, is_requirements_file, requirements_of
from gitsource.tree import Entry
from gitsource.worktree import is_pointer
from reconciler.api.hooks import Hooks
from reconciler.builder.index.simple_api import files_of
from reconciler.builder.verify.report import DagError, Report
from reconciler.builder.wheels.contents import unpack_wheel
from reconciler.core.definitions import Commit
from reconciler.core.errors import GroundcrewError
from reconciler.documents import List, Malformed, parse
from reconciler.share import packs
from reconciler.share.loader import groundcrew_packs
from tests.harness.git_repo import INSTANCE, NOWHERE

Target = Callable[[bytes], None]
HTTP = ("http", "https")
OTHER = "teams/blue/good.yaml"
PATHS = ("teams/red/one.yaml", "instances/red.yaml", "shared/base.yaml")
HOOK_SECRET = b"the secret of the hooks"
BUILD = "a" * 16


class MemoryTree:
    """A revision's files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def entries(self) -> dict[str, Entry]:
        return {
            path: Entry(path, "100644", hashlib.sha256(data).hexdigest(), len(data))
            for path, data in self._files.items()
        }

    def read(self, entry: Entry) -> bytes:
        return self._files[entry.path]

    def is_pointer(self, entry: Entry) -> bool:
        return is_pointer(self.read(entry))

    def tree_id(self, path: str) -> str:
        return hashlib.sha256(path.encode()).hexdigest()

    def paths(self) -> list[str]:
        return sorted(self._files)

    def unlisted(self) -> tuple[str, ...]:
        return ()


def definitions(data: bytes) -> None:
    """Read a file of one team: the other team's environment must always be there.

    The first byte selects the file.
    """
    path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
    files = {
        "instances/dev.yaml": INSTANCE.encode(),
        OTHER: NOWHERE.replace("one", "good").encode(),
        "teams/red/requirements.txt": b"humanize\n",
        path: data[1:],
    }
    assembled = assemble(MemoryTree(files), Commit("r1"))
    others = [finding for finding in assembled.findings if finding.place.file == OTHER]
    assert "good" in assembled.environments, assembled.findings
    assert not others, others


def constraints(data: bytes) -> None:
    """Read a constraints file: each line must be a single constraint or a finding."""
    for _, constraint, wrong in constraints_of(data.decode(errors="replace")):
        assert bool(constraint) is not bool(wrong)
        assert "\n" not in constraint
        assert constraint.isprintable()


def requirements(data: bytes) -> None:
    """Read a requirements file: what is no mistake is one requirement, or the path of a file."""
    for line in requirements_of(data.decode(errors="replace")):
        assert line.text
        assert "\n" not in line.text
        if line.kind is LineKind.REQUIREMENT and in_repo(line.text) is None:
            assert Requirement(line.text).url is None
        elif line.kind in (LineKind.FILE, LineKind.CONSTRAINTS):
            assert is_requirements_file(line.text)
        assert not line.hashes or line.kind is LineKind.REQUIREMENT


def index_page(data: bytes) -> None:
    """Read a project's page, HTML or JSON by the first byte: only web URLs may come out of it."""
    kind = "text/html" if data[:1] < b"\x80" else "application/vnd.pypi.simple.v1+json"
    with suppress(Malformed):
        for file in files_of(kind, data[1:], "https://index.example/simple/acme/"):
            name, url = str(file["filename"]), str(file["url"])
            assert url.split(":")[0] in HTTP
            assert "/" not in name
            assert url.isprintable()


def wheel(data: bytes) -> None:
    """Unpack a wheel: nothing may be written outside of its folder, and nothing may be a link."""
    with tempfile.TemporaryDirectory(prefix="groundcrew-fuzz-") as folder:
        path = Path(folder, "acme-1.0-py3-none-any.whl")
        path.write_bytes(data)
        with suppress(GroundcrewError):
            unpack_wheel(path, "acme", Path(folder, "staged"))
        assert {entry.name for entry in os.scandir(folder)} <= {path.name, "staged"}
        assert not any(entry.is_symlink() for entry in Path(folder).rglob("*"))


def pack(data: bytes) -> None:
    """Read a pack with the daemon's and with the loader's code."""
    with tempfile.TemporaryDirectory(prefix="groundcrew-fuzz-") as folder:
        path = Path(folder, "entry.pack")
        path.write_bytes(data)
        with suppress(OSError):
            head, index = packs.read_head(path)
            names = packs.held(index)
            assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
            with suppress(OSError):
                packs.unpack(path, Path(folder, "unpacked"), writers=1)
            _read_as_the_loader(path, head.sha256)
        assert {entry.name for entry in os.scandir(folder)} <= {path.name, "unpacked"}


def _read_as_the_loader(path: Path, digest: str) -> None:
    try:
        handle, offset, index, head = groundcrew_packs.open_pack(str(path), digest)
    except (OSError, groundcrew_packs.Spoiled):
        return
    try:
        for block in index["blocks"]:
            with suppress(OSError, groundcrew_packs.Spoiled):
                groundcrew_packs.read_block(handle, block, offset, head)
            offset += block["packed"]
    finally:
        os.close(handle)


def loader(data: bytes) -> None:
    """Load a pointer and a build.json, separated by a zero byte: the interpreter must start.

    The base's own import paths must stay first, and the process's build must be pinned.
    """
    from reconciler.share.loader import sitecustomize

    pointer, _, manifest = data.partition(b"\0")
    with tempfile.TemporaryDirectory(prefix="groundcrew-fuzz-") as folder, _kept_process():
        here = Path(folder, "instances", "dev", "loader")
        here.mkdir(parents=True)
        Path(here.parent, "pointer.json").write_bytes(pointer)
        build = Path(folder, "builds", BUILD)
        build.mkdir(parents=True)
        Path(build, "build.json").write_bytes(manifest)
        base = list(sys.path)
        with (
            patch.object(sitecustomize, "__file__", str(here / "sitecustomize.py")),
            patch.object(sitecustomize, "_airflow", lambda: ("3.3.2", "")),
            patch.object(sitecustomize, "_shadowed", lambda: None),
            patch.object(sitecustomize, "_say", lambda _: None),
            patch("site.addsitedir", lambda _: None),
        ):
            os.environ["GROUNDCREW_LOCAL"] = "off"
            sitecustomize._start()
        assert sys.path[: len(base)] == base
        pinned = os.environ.get("GROUNDCREW_BUILD")
        assert pinned, "the children would look for themselves"
        assert pinned == "none" or pinned.isalnum()


@contextmanager
def _kept_process() -> Iterator[None]:
    """Undo a loader's changes to its process."""
    path, variables = list(sys.path), dict(os.environ)
    os.environ.pop("GROUNDCREW_BUILD", None)
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(variables)


def webhook(data: bytes) -> None:
    """Read a header line and a body: only the correct signature of that body may be accepted.

    The first byte selects GitHub or GitLab.
    """
    source, header = ("github", "x-hub-signature-256")
    if data[:1] >= b"\x80":
        source, header = ("gitlab", "x-gitlab-token")
    value, _, body = data[1:].partition(b"\n")
    wakes: list[bool] = []
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(header.encode(), value)],
        "path_params": {"source": source},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    with patch("reconciler.api.hooks.read", lambda _: HOOK_SECRET.decode()):
        hooks = Hooks(Path("/nonexistent"), lambda: wakes.append(True))
        answer = asyncio.run(hooks.receive(Request(scope, receive)))
    signature = b"sha256=" + hmac.new(HOOK_SECRET, body, hashlib.sha256).hexdigest().encode()
    right = value == (signature if source == "github" else HOOK_SECRET)
    expected = (202, [True]) if right else (401, [])
    assert (answer.status_code, wakes) == expected, answer.status_code


def report(data: bytes) -> None:
    """Read a report of a verification, and the list of DAG errors that Airflow prints."""
    with suppress(Malformed):
        parsed = parse(Report, data, "the report")
        for problem in (*parsed.fatal, *parsed.warnings):
            assert len(problem.words) < 4000
        assert parsed.seconds >= 0
        parsed.paths()
    with suppress(Malformed):
        parse(List[DagError], data, "the import errors")


TARGETS: dict[str, Target] = {
    "definitions": definitions,
    "constraints": constraints,
    "requirements": requirements,
    "index_page": index_page,
    "wheel": wheel,
    "pack": pack,
    "loader": loader,
    "webhook": webhook,
    "report": report,
}
