"""Both sides of a pull request: a checkout as it is, and the commit that it is based on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gitsource.assemble import assemble
from gitsource.tree import Checkout
from gitsource.validate import validate
from reconciler.cli.exit_codes import Misuse
from reconciler.core.definitions import Commit, Definitions, Environment, SourcePackage
from reconciler.core.errors import Stalled

TIMEOUT = 120.0  # seconds per git command


@dataclass(frozen=True, slots=True)
class Side:
    """Revision with its definitions and its files."""

    definitions: Definitions
    files: Checkout

    def packages(self) -> Mapping[str, tuple[Checkout, str]]:
        """Return the files and the path of in-repo packages by their trees."""
        packages: list[SourcePackage] = []
        environments: list[Environment] = list(self.definitions.environments.values())
        for environment in environments:
            packages += environment.recipe.packages
        return {p.tree: (self.files, p.path) for p in packages}


def read_sides(path: Path, base: str, scratch: Path) -> tuple[Side, Side]:
    """Return the base of the checkout at `path`, and the checkout itself. Raises Misuse.

    The base is the newest common ancestor with `base`, written below `scratch`: what was merged to
    `base` since then is not part of the pull request.
    """
    try:
        root = Path(_git(path, "rev-parse", "--show-toplevel").strip())
    except Misuse as error:
        raise Misuse(
            f"{error}; run it in a checkout of the environments repo, or name one with --path"
        ) from error
    if root != path.resolve():
        raise Misuse(f"{path} is not the root of its repository, {root}; run it there")
    revision = _ancestor(path, base)
    files = scratch / "base"
    files.mkdir(parents=True)
    index = {"GIT_INDEX_FILE": str(scratch / "index")}
    _git(path, "read-tree", revision, **index)
    _git(path, "checkout-index", "--all", f"--prefix={files}/", **index)
    old = Side(assemble(Checkout(files), Commit(revision)), Checkout(files))
    return old, read_checkout(path)


def read_checkout(path: Path) -> Side:
    """Return the checkout at `path` as it is now. Raises Misuse if nothing there can be read."""
    try:
        definitions, _ = validate(path)
    except Stalled as error:
        raise Misuse(error.message) from error
    return Side(definitions, Checkout(path.resolve()))


def _ancestor(path: Path, base: str) -> str:
    if base.startswith("-"):
        raise Misuse(f"--base {base} is not a revision; name a branch such as origin/main")
    try:
        _git(path, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
    except Misuse as error:
        raise Misuse(
            f"there is no revision {base} in {path}; fetch it first, such as `git fetch origin "
            f"main`, or name another with --base"
        ) from error
    try:
        return _git(path, "merge-base", base, "HEAD").strip()
    except Misuse as error:
        raise Misuse(
            f"HEAD and {base} have no commit in common here; fetch the whole history (GitHub: "
            f"`fetch-depth: 0`, GitLab: `GIT_DEPTH: 0`)"
        ) from error


def _git(path: Path, *arguments: str, **environment: str) -> str:
    if shutil.which("git") is None:
        raise Misuse("git is not installed; plan --base reads the repository with it")
    try:
        done = subprocess.run(
            ["git", "-C", str(path), "-c", "core.hooksPath=/dev/null", *arguments],
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env=os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"} | environment,
        )
    except subprocess.TimeoutExpired as error:
        raise Misuse(f"git {arguments[0]} took more than {TIMEOUT:.0f} s in {path}") from error
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise Misuse(f"git {arguments[0]} in {path}: {message}")
    return done.stdout.decode()
