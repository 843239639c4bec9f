"""Commits of one poll, told apart by the environments that they touched."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from gitsource.mirror import Git, commit_of
from reconciler.core.definitions import Commit
from reconciler.core.errors import Retryable

log = logging.getLogger(__name__)

COMMITS = 50  # of one poll that are told apart
ENVIRONMENTS = 50  # of one poll whose commits are told apart


def commits_since(
    git: Git, known: str, head: str, inputs: Iterable[tuple[str, list[str]]]
) -> dict[str, Commit]:
    """Return the newest commit after `known` that touched each environment's inputs.

    `inputs` are environments by name, with the paths that they are made of. Environments beyond a
    number are left out, and all of them if there is one commit only, or very many: then the newest
    counts. git stops each comparison at the first difference, so no commit in between costs much.
    """
    since = ["rev-list", "--first-parent"]
    between = f"{known}..{head}"
    try:
        count = len(git([*since, f"--max-count={COMMITS + 1}", between]).split())
        if not 1 < count <= COMMITS:
            return {}
        commits: dict[str, Commit] = {}
        for name, paths in islice(inputs, ENVIRONMENTS):
            specs = [f":(top,literal){path}" for path in paths]
            revision = git([*since, "--max-count=1", between, "--", *specs]).decode().strip()
            if revision:
                commits[name] = commit_of(git, revision)
    except Retryable as error:
        log.warning("the commits since the last poll are not told apart: %s", error)
        return {}
    return commits
