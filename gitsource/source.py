"""Access of the daemon to the environments repo: poll, definitions, export.

An unchanged repo costs one `git ls-remote`, a changed one a fetch into a bare mirror, a listing of
its files, and reading those that changed. Nothing is ever checked out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitsource.access import check_url, git_environment, translate
from gitsource.assemble import Assembly
from gitsource.assembly_cache import AssemblyCache
from gitsource.blame import commits_since
from gitsource.mirror import Blobs, Files, Listing, Survey, commit_of
from gitsource.parsers import IsolatedParser
from reconciler.core.definitions import Definitions
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.reasons import Reason
from reconciler.isolation import shared_pool
from reconciler.settings import GitSettings

log = logging.getLogger(__name__)

REFS = "groundcrew"  # below refs/: one for each revision that was read
TIDY_AFTER = 50  # revisions read since the mirror was cleaned up
KEPT = 20  # newest revisions that stay, whether or not the records name them


class Source:
    """Branch of a repo. For one thread at a time, except for `export`.

    `named` returns the revisions that the records name: they stay in the mirror. If it is None,
    another process may use the mirror too, so nothing in it is deleted.
    """

    def __init__(
        self,
        settings: GitSettings,
        state_dir: Path,
        secrets_dir: Path,
        named: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._settings = settings
        self._mirror = state_dir / "mirror.git"
        self._home = state_dir
        self._secrets = secrets_dir / "git"
        self._revision = ""
        self._files = Files(settings.max_blob_bytes)
        self._shelf = AssemblyCache(state_dir / "definitions.db")
        self._parser = IsolatedParser(shared_pool("definitions"))
        self._assembly: Assembly | None = None
        self._named = named
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._damaged = False  # found while exporting: the next poll repairs it

    def poll(self) -> Definitions | None:
        """Return the definitions of the newest revision, or None if it was already read completely.

        Raises Retryable (SourceUnreachable, SourceDenied, BranchMissing, SourceEmpty), and Stalled
        for a URL that is not allowed or a revision with too many files (SourceTooLarge).
        """
        head = self._head()
        is_unfinished = self._assembly is not None and self._assembly.is_unfinished
        if head == self._revision and not (self._damaged or is_unfinished):
            return None
        assembly, self._assembly = self._assembly, None  # until this revision is read completely
        if self._damaged:
            if self._named is None:
                raise self._left()
            assembly = None
            self._wipe()
        try:
            definitions = self._read(assembly)
        except Retryable as error:
            if self._is_sound():
                raise
            if self._named is None:
                raise self._left() from error
            log.warning("the mirror is damaged and is fetched again: %s", error)
            self._wipe()
            definitions = self._read(None)
        if not self._files.entries() and self._is_empty(definitions.commit.revision):
            self._assembly = None
            raise Retryable(
                Reason.SOURCE_EMPTY, f"{self._settings.url} has no files in its newest commit"
            )
        self._revision = definitions.commit.revision
        self._tidy()
        return definitions

    def _read(self, assembly: Assembly | None) -> Definitions:
        """Fetch and read what has changed since `assembly`, or everything if it is None."""
        known = self._revision if assembly is not None else ""
        assembly = assembly or self._fresh()
        head = self._fetch() if known else self._fetch_first()
        context = self._place()
        with Blobs(*context) as blobs:
            differing = self._files.take(Survey(*context, head), blobs)
            changed = differing if known else None
            definitions = assembly.update(self._files, commit_of(self._git, head), changed)
            self._files.leave()
        if known and changed:
            commits = commits_since(self._git, known, head, assembly.inputs(changed))
            definitions = replace(definitions, commits=commits)
        self._assembly = assembly
        return definitions

    def _is_empty(self, head: str) -> bool:
        """Return True if a revision has no files at all, including those that are not read."""
        with Listing(*self._place(), head) as rows:
            return next(iter(rows), None) is None

    def _place(self) -> tuple[Path, dict[str, str], float]:
        """Return the mirror, the environment and the time limit for git."""
        return self._mirror, self._environment(), self._settings.timeout

    # ------------------------------------------------------------------------------- the mirror

    def _is_sound(self) -> bool:
        """Return True if the mirror is complete and no lock of a dead process is left."""
        if not self._mirror.exists():
            return True
        for lock in self._mirror.rglob("*.lock"):
            with contextlib.suppress(OSError):
                age = time.time() - lock.stat().st_mtime  # negative if the clock was set back
                if abs(age) > self._settings.timeout:
                    return False
        try:
            self._git(["fsck", "--no-dangling", "--no-progress"])
        except Retryable as error:
            return error.reason is Reason.MIRROR_SLOW  # nothing was found yet
        return True

    def _wipe(self) -> None:
        """Delete the mirror, so that it and everything read from it are fetched again."""
        shutil.rmtree(self._mirror, ignore_errors=True)
        self._revision = ""
        self._damaged = False

    def _tidy(self) -> None:
        """After many revisions, release those that nothing needs, and pack the rest.

        A ref keeps a revision that is no longer in a rewritten branch: those that the records name
        and the newest ones read here stay.
        """
        if self._named is None:
            return
        self._kept.append(self._revision)
        refs = self._mirror / "refs" / REFS
        try:
            if sum(1 for _ in refs.iterdir()) < TIDY_AFTER:
                return
            needed = {*self._kept, *self._named()}
            listing = self._git(["for-each-ref", "--format=%(refname)", f"refs/{REFS}"]).decode()
            gone = [n for n in listing.split() if n.rpartition("/")[2] not in needed]
            lines = "".join(f"delete {name}\n" for name in gone)
            self._git(["update-ref", "--stdin"], lines.encode())
            self._git(["gc", "--quiet"])
        except (GroundcrewError, OSError) as error:
            log.warning("git gc failed in the mirror; it is retried: %s", error)

    def _fresh(self) -> Assembly:
        return Assembly(
            file_limit=self._settings.max_blob_bytes,
            package_bytes=self._settings.max_package_bytes,
            shelf=self._shelf,
            parser=self._parser,
        )

    def _fetch_first(self) -> str:
        """Fetch into the mirror, which is created, or recreated if it is damaged."""
        answer = self._child(
            {
                "op": "fetch",
                "mirror": str(self._mirror),
                "url": self._settings.url,
                "branch": self._settings.branch,
                "anew": self._named is not None,
            }
        )
        return str(answer["revision"])

    def _fetch(self) -> str:
        """Fetch into a mirror that was read before; return the newest revision."""
        branch = f"refs/heads/{self._settings.branch}"
        self._run(
            [
                "git",
                "-C",
                str(self._mirror),
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--force",
                "--no-auto-maintenance",
                self._settings.url,
                f"+{branch}:{branch}",
            ],
            b"",
        )
        head = self._git(["rev-parse", branch]).decode().strip()
        self._git(["update-ref", f"refs/{REFS}/{head}", head])
        return head

    def _git(self, words: list[str], text: bytes = b"") -> bytes:
        """Run git in the mirror, without the remote."""
        return self._run(["git", "-C", str(self._mirror), *words], text, local=True)

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
            if self._is_sound():
                reason, prefix = Reason.SOURCE_UNREACHABLE, ""
            else:
                self._damaged = True
                reason, prefix = (
                    Reason.MIRROR_DAMAGED,
                    "the mirror is damaged and is fetched again: ",
                )
            raise Retryable(reason, f"tree {tree[:10]}: {prefix}{error.message}") from error

    def _environment(self) -> dict[str, str]:
        check_url(self._settings.url, self._settings.allow_schemes)
        return git_environment(
            self._settings.url, self._settings.allow_schemes, self._secrets, self._home
        )

    def _head(self) -> str:
        """Return the newest revision of the branch, with one round trip."""
        url, branch = self._settings.url, self._settings.branch
        command = ["git", "ls-remote", "--", url, f"refs/heads/{branch}", "HEAD"]
        output = self._run(command, b"")
        for line in output.decode().splitlines():
            revision, _, name = line.partition("\t")
            if name == f"refs/heads/{branch}":
                return revision
        if not output.strip():
            raise Retryable(Reason.SOURCE_EMPTY, f"{url} has no commits yet; push branch {branch}")
        raise Retryable(
            Reason.BRANCH_MISSING,
            f"branch {branch} is gone from {url}; push it again or set git.branch",
        )

    def _child(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._run(
            [sys.executable, "-m", "gitsource.git_worker"], json.dumps(request).encode()
        )
        response: dict[str, Any] = json.loads(answer)
        return response

    def _run(self, command: list[str], text: bytes, *, local: bool = False) -> bytes:
        """Run a command to its end within the time limit; its whole process group ends with it.

        Errors are attributed to the remote, or with `local` to the mirror.
        """
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
            late = f"did not answer within {self._settings.timeout:.0f} s"
            if local:
                raise Retryable(Reason.MIRROR_SLOW, f"git in {self._mirror} {late}") from None
            raise Retryable(Reason.SOURCE_UNREACHABLE, f"{self._settings.url} {late}") from None
        if process.returncode != 0:
            message = complaint.decode(errors="replace")
            if local:
                raise self._unread(" ".join(message.split())[-500:])
            raise translate(self._settings.url, self._settings.branch, message)
        return output

    def _left(self) -> Retryable:
        message = (
            f"{self._mirror} is damaged; the daemon fetches it again the next time it reads it"
        )
        return Retryable(Reason.MIRROR_DAMAGED, message)

    def _unread(self, words: str) -> Retryable:
        return Retryable(Reason.MIRROR_DAMAGED, f"{self._mirror} cannot be read: {words}")
