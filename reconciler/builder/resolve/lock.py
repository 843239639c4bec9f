"""Resolution against the base: only what the base lacks, pinned and hashed.

The base's inventory becomes the constraints, and its metadata is passed to uv, so that nothing of
it has to be installed. uv's output is kept as the lock: a pylock.toml of the delta.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from reconciler.builder.build_job import BuildJob
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.local_disk import disk_full, ran_out_of_disk
from reconciler.builder.resolve.choice import Wheel, locked
from reconciler.builder.resolve.diagnose import Diagnosis
from reconciler.builder.resolve.in_repo_wheels import InRepoWheel, refuse_missing_extras
from reconciler.builder.resolve.pylock import LockedPackage, read_lock
from reconciler.builder.resolve.requested import asked_of
from reconciler.builder.resolve.resolver import Question, Resolution, Resolver, Setup
from reconciler.builder.resolve.uv_errors import place_of, refuse_replacing
from reconciler.core.definitions import Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.failpoints import failpoint


@dataclass(frozen=True, slots=True)
class Lock:
    """Text of a lock (pylock.toml), and the (name, version) pairs that it installs."""

    text: str
    packages: tuple[tuple[str, str], ...]


def make_lock(
    job: BuildJob,
    recipe: Recipe,
    runtime: Runtime,
    wheels: Sequence[InRepoWheel],
    indexes: Indexes,
    setup: Setup,
) -> Lock:
    """Resolve a recipe for a runtime.

    Raises Stalled (ResolutionConflict, NotFound, HashMismatch, ResolveTimeout, …) with the place of
    the requirement to blame, or Retryable (IndexUnreachable).
    """
    refuse_replacing(recipe.packages, runtime)
    refuse_missing_extras(recipe, wheels)
    resolver = Resolver(
        job,
        runtime,
        setup,
        recipe,
        tuple(wheel.path.parent for wheel in wheels),
        tuple(wheel.name for wheel in wheels),
    )
    local = {w.repo_path: w for w in wheels}
    lines = [_line(r.text, local[r.package]) if r.package else r.text for r in recipe.requirements]
    own = [(path, line) for path, text in recipe.constraints for line in _constraints(path, text)]
    job.say(f"resolving {len(recipe.requirements)} requirements against {runtime.key}")
    begun = time.monotonic()
    ended, lock = resolver.lock(Question(tuple(lines), tuple(line for _, line in own)))
    took = time.monotonic() - begun
    output = ended.output.replace(lock or "", "")  # uv prints the lock that it writes, too
    job.say(output.rstrip())
    failpoint("builder.resolved")
    asked = asked_of(recipe, lines)
    diagnosis = Diagnosis(recipe, runtime, asked, tuple(own), indexes, resolver.ask)
    if ended.timed_out:
        raise diagnosis.late(setup.settings.resolve_timeout)
    if ran_out_of_disk(ended):
        raise disk_full()
    if ended.code != 0:
        raise diagnosis.error(Resolution(ended.code, output), took)
    if lock is None:
        raise Retryable(Reason.LOCK_LOST, "the resolver left no lock; it is resolved anew")
    text = _finish(lock, wheels, indexes)
    packages = read_lock(job.team, text)
    refuse_addresses(packages, recipe)
    refuse_other_files(packages, recipe, runtime)
    return Lock(text, packages_of(packages))


def _line(text: str, wheel: InRepoWheel) -> str:
    """Return the requirement for an in-repo package's wheel, with the extras that are asked for."""
    extras = ",".join(sorted(Requirement(text).extras))
    return f"{wheel.name}{f'[{extras}]' if extras else ''} @ {wheel.path.as_uri()}"


def _constraints(path: str, text: str) -> Iterator[str]:
    """Yield a file's constraints as parsed: uv would follow options and URLs in its text."""
    for line in filter(None, map(str.strip, text.split("\n"))):
        try:
            parsed = Requirement(line)
        except InvalidRequirement:
            parsed = None
        if parsed is None or parsed.url is not None or not str(parsed).isprintable():
            words = f"{path} holds {line[:80]!r}, which is no constraint; write a line like numpy<2"
            raise Stalled(Reason.NOT_ALLOWED, words)
        yield str(parsed)


def refuse_addresses(packages: Sequence[LockedPackage], recipe: Recipe) -> None:
    """Raise Stalled("NotAllowed") for a row of a lock that is not from an index or the repo."""
    own = {package.path for package in recipe.packages}
    for package in packages:
        kind = package.address
        if kind and (package.directory is None or package.directory.path not in own):
            raise Stalled(
                Reason.NOT_ALLOWED,
                f"{package.name} would come from an address ({kind} in the lock), not from an "
                f"index or this repo, as something depends on `{package.name} @ …`; write "
                f"{package.name}>=version there, or add it to the repo's packages",
                place_of(package.name, recipe),
            )


def refuse_other_files(packages: Sequence[LockedPackage], recipe: Recipe, runtime: Runtime) -> None:
    """Raise Stalled("HashMismatch") for a file that a requirement's hashes do not list."""
    hashes = dict(recipe.hashes)
    for package in packages:
        listed = hashes.get(package.key)
        if listed is None:
            continue
        wheel = locked(package, runtime.tags)
        sdist = package.sdist.hashes.sha256 if package.sdist is not None else ""
        digest = wheel.sha256 if wheel is not None else sdist
        if digest not in listed:
            name = wheel.filename if wheel is not None else f"the sdist of {package.name}"
            raise Stalled(
                Reason.HASH_MISMATCH,
                f"{name} has sha256:{digest}, which is none of the hashes of {package.name} in the "
                f"requirements; if the file is the right one, write the file's hashes anew, as "
                f"with `uv pip compile --generate-hashes`",
                place_of(package.name, recipe),
            )


def _finish(text: str, wheels: Sequence[InRepoWheel], indexes: Indexes) -> str:
    """Return the delta lock with real URLs, and in-repo packages by their trees and wheels."""
    text = indexes.with_real_urls(text)
    text = re.sub(r"(?m)^packages = \[\]\n", "", text)  # uv writes it if all are in-repo ones
    for wheel in sorted(wheels, key=lambda w: w.name):
        text += (
            f'\n[[packages]]\nname = "{wheel.name}"\nversion = "{wheel.version}"\n'
            f"directory = {{ path = {json.dumps(wheel.repo_path, ensure_ascii=False)} }}\n"
            f'tool = {{ groundcrew = {{ tree = "{wheel.tree}", sha256 = "{wheel.sha256}" }} }}\n'
        )
    return text


def made_of(
    packages: Sequence[LockedPackage], wheels: Sequence[Wheel | None]
) -> list[tuple[str, str]] | None:
    """Return (name, SHA-256) of the wheels built for locked packages, as recorded in the lock.

    `wheels` are the index's, None if a package is built from source. Returns None if the lock lacks
    one: for an sdist, or in an earlier release's lock.
    """
    built: list[tuple[str, str]] = []
    for package, wheel in zip(packages, wheels, strict=True):
        if wheel is not None:
            continue
        digest = package.tool.groundcrew.sha256
        if digest is None:
            return None
        built.append((package.key, digest))
    return built


def packages_of(packages: Sequence[LockedPackage]) -> tuple[tuple[str, str], ...]:
    """Return what locked packages install, by name."""
    return tuple(sorted((package.key, package.version) for package in packages))
