"""The environments repo as the daemon sees it: poll, definitions, export.

An unchanged repo costs one `git ls-remote`, a changed one a fetch into a bare mirror, a tree diff,
and the reading of the files that changed. Nothing is ever checked out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gitsource.access import check_url, git_environment, translate
from gitsource.assemble import Assembly
from gitsource.mirror import Blobs, Files, commit_of
from gitsource.recipe import Limits
from gitsource.shelf import Shelf
from reconciler.core.definitions import Definitions
from reconciler.core.errors import Retryable
from reconciler.settings import GitSettings


class Source:
    """One branch of one repo. Used by one thread at a time, but for `export`."""

    def __init__(self, settings: GitSettings, state_dir: Path, secrets_dir: Path) -> None:
        self._settings = settings
        self._mirror = state_dir / "mirror.git"
        self._home = state_dir
        self._secrets = secrets_dir / "git"
        self._revision = ""
        self._files = Files(settings.max_blob_bytes)
        self._shelf = Shelf(state_dir / "definitions.db")
        self._assembly: Assembly | None = None

    def poll(self) -> Definitions | None:
        """The definitions of the newest revision; None when that is the one read last.

        Raises Retryable (SourceUnreachable, SourceDenied, BranchMissing, SourceEmpty) and Stalled
        for an address that is not allowed.
        """
        head = self._head()
        if head == self._revision:
            return None
        known = self._revision if self._assembly is not None else ""
        assembly = self._assembly or self._fresh()
        self._assembly = None  # until this revision was read to its end
        head = self._fetch() if known else self._fetch_first()
        with Blobs(self._mirror, self._environment(), self._settings.timeout) as blobs:
            changed = None
            if known:
                changed = self._files.take_changes(self._git, blobs, known, head)
            else:
                self._files.take_all(self._git, blobs, head)
            definitions = assembly.update(self._files, commit_of(self._git, head), changed)
            self._files.leave()
        if not self._files.entries():
            raise Retryable(
                "SourceEmpty", f"{self._settings.url} has no files in its newest commit"
            )
        self._assembly, self._revision = assembly, head
        return definitions

    def _fresh(self) -> Assembly:
        return Assembly(
            file_limit=self._settings.max_blob_bytes,
            limits=Limits(self._settings.max_package_bytes),
            shelf=self._shelf,
        )

    def _fetch_first(self) -> str:
        """Fetch into the mirror, which is made, or made anew when it is damaged."""
        answer = self._child(
            {
                "op": "fetch",
                "mirror": str(self._mirror),
                "url": self._settings.url,
                "branch": self._settings.branch,
            }
        )
        return str(answer["revision"])

    def _fetch(self) -> str:
        """Fetch into the mirror that was read before; returns the newest revision."""
        branch = f"refs/heads/{self._settings.branch}"
        self._git(
            [
                "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
                "--force", "--no-auto-maintenance", self._settings.url, f"+{branch}:{branch}",
            ]
        )  # fmt: skip
        head = self._git(["rev-parse", branch]).decode().strip()
        self._git(["update-ref", f"refs/groundcrew/{head}", head])
        return head

    def _git(self, words: list[str]) -> bytes:
        return self._run(["git", "-C", str(self._mirror), *words], b"")

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
