"""Runs of uv's resolver in the executor: the one that makes a lock, and those that explain.

A run that explains asks for versions only. It always reads the indexes through the daemon, so that
their answers are known afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.protocol import Ended, Executor, read_result
from reconciler.builder.resolve.base_metadata import is_name, metadata, usable
from reconciler.builder.resolve.placeholders import stand_ins
from reconciler.core.definitions import Recipe
from reconciler.core.runtime import Runtime
from reconciler.settings import BuilderSettings

LOCK_LIMIT = 16 << 20  # bytes
NO_ANSWER = -1  # code of a resolution that did not end in time
SOLVED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?:==(\S+)| @ \S+)")


@dataclass(frozen=True, slots=True)
class Question:
    """A set of requirements to be resolved.

    The base's packages are pinned unless `base` is False; they are preferred even then. Nothing of
    the names in `without` is needed by anything.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    base: bool = True
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Resolution:
    """A run's end: the versions that were chosen, and what needs each of them."""

    code: int
    output: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    needed_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def solved(self) -> bool:
        """True if all fits together."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Setup:
    """Tools and folders of a resolution.

    `served` is the folder in which the indexes are served, `index` their address there; `direct` is
    True if uv reads the default index itself.
    """

    executor: Executor
    settings: BuilderSettings
    work: Path
    served: Path
    cache: Path
    index: str
    direct: bool


@dataclass(slots=True)
class Resolver:
    """uv for one recipe and runtime; each run has a folder of its own."""

    job: BuildJob
    runtime: Runtime
    setup: Setup
    recipe: Recipe
    readable: tuple[Path, ...] = ()  # folders of in-repo wheels
    own: tuple[str, ...] = ()  # names of in-repo packages
    _runs: int = 0
    _asked: bool = False

    def lock(self, question: Question) -> tuple[Ended, str | None]:
        """Make a lock of what the base lacks; None where uv left none."""
        folder = self._folder(question)
        base = {d.name for d in self.runtime.base if is_name(d.name)}
        command = ["--format", "pylock.toml", "--generate-hashes", "--no-annotate"]
        for name in sorted(base | set(self.own)):
            command += ["--no-emit-package", name]
        setup = self.setup
        if not setup.direct or setup.settings.default_index:
            address = setup.settings.default_index if setup.direct else setup.index
            command += ["--default-index", address]
        ended = self._run(
            folder, "pylock.toml", command, setup.settings.resolve_timeout, direct=setup.direct
        )
        content = read_result(folder / "pylock.toml", LOCK_LIMIT)
        return ended, None if content is None else content.decode(errors="replace")

    def ask(self, question: Question, timeout: float) -> Resolution:
        """Find out whether and how a set of requirements fits together."""
        folder = self._folder(question)
        if not question.base:  # uv prefers what is in its output already
            pins = [f"{d.name}=={d.version}\n" for d in usable(self.runtime)]
            (folder / "solution.txt").write_text("".join(pins))
        command = ["--annotation-style", "line", "--default-index", self.setup.index]
        if not self._asked:  # what uv has in its cache is asked for again, to know the answers
            command.append("--refresh")
            self._asked = True
        ended = self._run(folder, "solution.txt", command, timeout, direct=False)
        content = read_result(folder / "solution.txt", LOCK_LIMIT) if ended.code == 0 else None
        solution = (content or b"").decode(errors="replace")
        code = NO_ANSWER if ended.timed_out else ended.code
        return Resolution(code, ended.output.replace(solution, ""), *_read(solution))

    def _run(
        self, folder: Path, output: str, more: Sequence[str], timeout: float, *, direct: bool
    ) -> Ended:
        setup = self.setup
        # Of a team's cache its build scripts can make what they like; a lock may serve others too.
        own = setup.executor.cache_of(self.job.team if self.recipe.source_builds else "")
        files = stand_ins(self.runtime, setup.cache)
        command = [
            setup.executor.uv(),
            "pip",
            "compile",
            "requirements.in",
            "--no-header",
            "--output-file",
            output,
            "--python",
            self.runtime.python,
            "--config-file",
            "uv.toml",
            "--color",
            "never",
            "--cache-dir",
            str(own),
            "--index-strategy",
            "first-index",
            "--no-progress",
            "--find-links",
            str(files),
            *more,
        ]
        for option in ("constraints", "overrides", "build-constraints"):
            if (folder / f"{option}.txt").stat().st_size:  # uv warns of an empty one
                command += [f"--{option}", f"{option}.txt"]
        if not self.recipe.source_builds:
            command += ["--only-binary", ":all:"]
        return setup.executor.run(
            self.job,
            command,
            work=folder,
            timeout=timeout,
            writable=[own],
            readable=[files, *self.readable],
            environment=dict(self.recipe.build_env),
            index=None if direct else setup.served,
            network=direct,
            harmless=not self.recipe.source_builds,
            quiet=True,
            results=[folder / output],
        )

    def _folder(self, question: Question) -> Path:
        """Write what a run reads into a folder of its own."""
        self._runs += 1
        folder = self.setup.work / f"resolve-{self._runs}"
        folder.mkdir()
        (folder / "requirements.in").write_text("".join(f"{r}\n" for r in question.requirements))
        pins = [f"{d.name}=={d.version}" for d in usable(self.runtime)] if question.base else []
        lines = [*pins, *question.constraints]
        (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in lines))
        building = "".join(f"{line}\n" for line in self.recipe.build_constraints)
        (folder / "build-constraints.txt").write_text(building)
        removed = [f"{name} ; python_version < '1'\n" for name in sorted(question.without)]
        (folder / "overrides.txt").write_text("".join(removed))
        parts = []
        for dist in usable(self.runtime):
            body = "\n".join(
                f"{key} = {json.dumps(value, ensure_ascii=False)}"
                for key, value in metadata(dist).items()
            )
            parts.append(f"[[dependency-metadata]]\n{body}\n")
        (folder / "uv.toml").write_text("\n".join(parts))
        return folder


def _read(solution: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Read the versions of a solution, and what each is needed by."""
    versions: dict[str, str] = {}
    needed_by: dict[str, tuple[str, ...]] = {}
    for line in solution.splitlines():
        match = SOLVED.match(line)
        if match is None:
            continue
        name = canonicalize_name(match[1])
        versions[name] = match[2] or ""
        _, _, via = line.partition("# via ")
        needed_by[name] = tuple(
            canonicalize_name(one)
            for one in map(str.strip, via.split(","))
            if one and not one.startswith("-")
        )
    return versions, needed_by
