"""Short-lived process that handles git objects: `python -m gitsource.git_worker`.

GitPython keeps processes and memory that must not accumulate in a daemon, so it runs here and ends
after each request. One JSON request on standard input, one JSON response on standard output.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import git
from git.exc import GitError


def fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Fetch the newest revision into the mirror, and return its id."""
    path = Path(request["mirror"])
    repo = _open(path, anew=request["anew"])
    branch = request["branch"]
    repo.git.fetch(
        "--no-tags",
        "--no-recurse-submodules",
        "--no-write-fetch-head",
        "--force",
        request["url"],
        f"+refs/heads/{branch}:refs/heads/{branch}",
    )
    head = repo.commit(f"refs/heads/{branch}")
    repo.git.update_ref(f"refs/groundcrew/{head.hexsha}", head.hexsha)
    return {"revision": head.hexsha}


def _open(path: Path, *, anew: bool) -> git.Repo:
    """Open the bare mirror; if it is damaged, delete and recreate it if `anew` allows that."""
    if path.exists():
        try:
            repo = git.Repo(path, odbt=git.GitCmdObjectDB)
            repo.git.rev_parse("--is-bare-repository")
        except (GitError, OSError, ValueError):
            if not anew:
                raise
            shutil.rmtree(path)
        else:
            return repo
    return git.Repo.init(path, bare=True, odbt=git.GitCmdObjectDB)


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write a tree as plain files; links and special files are refused."""
    repo = git.Repo(request["mirror"], odbt=git.GitCmdObjectDB)
    dest = Path(request["dest"])
    dest.mkdir(parents=True)
    total = 0
    with tempfile.TemporaryFile() as packed:
        repo.archive(packed, treeish=request["tree"], format="tar")
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            for member in archive:
                total += member.size
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{member.name} is a link; packages hold plain files only")
                if total > request["limit"]:
                    raise ValueError(f"the package is larger than {request['limit']} bytes")
                _write(archive, member, dest)
    return {}


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, dest: Path) -> None:
    """Write one member as a plain file or directory below `dest`, with fixed modes."""
    path = dest / member.name
    if ".." in path.parts or not path.is_relative_to(dest):
        raise ValueError(f"{member.name} leads out of its package")
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    content = archive.extractfile(member)
    assert content is not None, "plain files have content"
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def main() -> int:
    """Handle one request; return 1 with the reason on standard error if git refuses."""
    request = json.load(sys.stdin)
    try:
        answer = {"fetch": fetch, "export": export}[request["op"]](request)
    except (GitError, OSError, ValueError, tarfile.TarError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - standard error is this program's output
        return 1
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
