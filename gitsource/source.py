"""The environments repo as the daemon sees it: poll, definitions, export.

An unchanged repo costs one `git ls-remote`. A changed one costs a short-lived child that fetches
into a bare mirror and hands over the blobs that are not known yet. Nothing is ever checked out.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gitsource.access import check_url, git_environment, translate
from gitsource.assemble import Cache, assemble
from gitsource.recipe import Limits
from gitsource.tree import Entry
from reconciler.core.definitions import Commit, Definitions
from reconciler.core.errors import Retryable, Stalled
from reconciler.settings import GitSettings


class Revision:
    """A tree read from the mirror by the child; blobs stay known from revision to revision."""

    def __init__(self, answer: dict[str, Any], blobs: dict[str, bytes]) -> None:
        self._entries = {e[0]: Entry(*e) for e in answer["entries"]}
        self._trees: dict[str, str] = answer["trees"]
        self._blobs = blobs

    def entries(self) -> dict[str, Entry]:
        """Every file by its path."""
        return self._entries

    def read(self, entry: Entry) -> bytes:
        """The content of a file that a definition may name."""
        found = self._blobs.get(entry.blob)
        if found is None:
            raise Stalled("TooLarge", f"{entry.path} is not read: it is too large, or in packages/")
        return found

    def tree_id(self, path: str) -> str:
        """Git's id of the directory `path`."""
        return self._trees[path]


class Source:
    """One branch of one repo. Used by one thread at a time, but for `export`."""

    def __init__(self, settings: GitSettings, state_dir: Path, secrets_dir: Path) -> None:
        self._settings = settings
        self._mirror = state_dir / "mirror.git"
        self._home = state_dir
        self._secrets = secrets_dir / "git"
        self._revision = ""
        self._blobs: dict[str, bytes] = {}
        self._cache = Cache()

    def poll(self) -> Definitions | None:
        """The definitions of the newest revision; None when that is the one read last.

        Raises Retryable (SourceUnreachable, SourceDenied, BranchMissing, SourceEmpty) and Stalled
        for an address that is not allowed.
        """
        head = self._head()
        if head == self._revision:
            return None
        answer = self._child(
            {
                "op": "fetch",
                "mirror": str(self._mirror),
                "url": self._settings.url,
                "branch": self._settings.branch,
                "revision": head,
                "known": list(self._blobs),
                "limit": self._settings.max_blob_bytes,
            }
        )
        self._blobs.update((k, base64.b64decode(v)) for k, v in answer["blobs"].items())
        revision = Revision(answer, self._blobs)
        used = {e.blob for e in revision.entries().values()}
        for blob in self._blobs.keys() - used:
            del self._blobs[blob]
        commit = Commit(answer["revision"], answer["author"], answer["subject"], answer["at"])
        definitions = assemble(
            revision,
            commit,
            self._cache,
            file_limit=self._settings.max_blob_bytes,
            limits=Limits(self._settings.max_package_bytes),
        )
        if not revision.entries():
            raise Retryable(
                "SourceEmpty", f"{self._settings.url} has no files in its newest commit"
            )
        self._revision = commit.revision
        return definitions

    def export(self, tree: str, dest: Path) -> None:
        """Write a git tree, by its id, as plain files below `dest`, which must not exist."""
        try:
            self._child(
                {
                    "op": "export",
                    "mirror": str(self._mirror),
                    "tree": tree,
                    "dest": str(dest),
                    "limit": self._settings.max_package_bytes,
                }
            )
        except Retryable as error:
            shutil.rmtree(dest, ignore_errors=True)
            raise Retryable("SourceUnreachable", f"tree {tree[:10]}: {error.message}") from error

    def _environment(self) -> dict[str, str]:
        check_url(self._settings.url, self._settings.allow_schemes)
        return git_environment(
            self._settings.url, self._settings.allow_schemes, self._secrets, self._home
        )

    def _head(self) -> str:
        """The newest revision of the branch, by one round trip."""
        url, branch = self._settings.url, self._settings.branch
        command = ["git", "ls-remote", "--", url, f"refs/heads/{branch}", "HEAD"]
        output = self._run(command, b"")
        for line in output.decode().splitlines():
            revision, _, name = line.partition("\t")
            if name == f"refs/heads/{branch}":
                return revision
        if not output.strip():
            raise Retryable("SourceEmpty", f"{url} has no commits yet; push branch {branch}")
        raise Retryable(
            "BranchMissing", f"branch {branch} is gone from {url}; push it again or set git.branch"
        )

    def _child(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._run([sys.executable, "-m", "gitsource.child"], json.dumps(request).encode())
        found: dict[str, Any] = json.loads(answer)
        return found

    def _run(self, command: list[str], text: bytes) -> bytes:
        """Run to its end within the time limit; the whole process group ends with it."""
        environment = self._environment()
        if command[0] == sys.executable:
            root = str(Path(__file__).resolve().parents[1])
            environment |= {"PYTHONPATH": root, "GIT_PYTHON_REFRESH": "quiet"}
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        try:
            output, complaint = process.communicate(text, timeout=self._settings.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Retryable(
                "SourceUnreachable",
                f"{self._settings.url} did not answer within {self._settings.timeout:.0f} s",
            ) from None
        if process.returncode != 0:
            raise translate(
                self._settings.url, self._settings.branch, complaint.decode(errors="replace")
            )
        return output
