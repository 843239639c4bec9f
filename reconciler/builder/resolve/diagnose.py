"""Diagnosis of a failed resolution, from what is known and by asking the resolver again.

Nothing here reads the resolver's sentences. Known are the base's inventory, the definition with its
constraints, and the answer of each index for each name. A suspicion is tested: the resolver is
asked again without the suspect, and what solves it is the cause. So is advice, before it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

from reconciler.builder.build_output import causes
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.resolve.index_faults import fault_of
from reconciler.builder.resolve.markers import environment_of
from reconciler.builder.resolve.requested import (
    NAMED,
    Asked,
    Pinned,
    allows,
    is_same_version,
    joined,
    listed,
    parsed_of,
)
from reconciler.builder.resolve.resolver import Question, Resolution
from reconciler.builder.resolve.uv_errors import place_of, without_hints
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime

BUDGET = 240.0  # seconds that all questions of one diagnosis may take
SUSPECTS = 12  # requirements that are left out one by one
NEEDERS = 3  # packages of the base that a message names as needing another one

Ask = Callable[[Question, float], Resolution]


@dataclass(slots=True)
class Diagnosis:
    """The search for the cause of one failed resolution."""

    recipe: Recipe
    runtime: Runtime
    asked: tuple[Asked, ...]
    constraints: tuple[tuple[str, str], ...]  # (path, line)
    known: Indexes
    resolve: Ask
    deadline: float = 0.0
    _answers: dict[Question, Resolution] = field(default_factory=dict)

    def error(self, first: Resolution) -> GroundcrewError:
        """Return the cause in message, at its place; `first` is the failed run's answer."""
        self.deadline = time.monotonic() + BUDGET
        question = Question(
            tuple(one.line for one in self.asked), tuple(line for _, line in self.constraints)
        )
        again = self._ask(question)
        return (
            fault_of(self.known, self.recipe, self._place())
            or self._of_chance(again)
            or self._of_names()
            or self._of_offers()
            or self._of_sources(question, first)
            or self._of_base(question)
            or self._of_each_other(question, first)
        )

    def _of_chance(self, again: Resolution) -> GroundcrewError | None:
        """Return a failure that is gone when the same is asked again."""
        if not again.solved:
            return None
        message = "the resolver failed once and worked when asked again; the build is tried again"
        return Retryable(Reason.INDEX_UNREACHABLE, message, self._place())

    # ------------------------------------------------------------------------------ the names

    def _of_names(self) -> GroundcrewError | None:
        """Return names that are asked for, or needed, and on no index."""
        base = {d.name for d in self.runtime.base}
        missing = set(self.known.missing) - base
        internal = {name for name in missing if self.known.path_of(name) is not None}
        lost = [one for one in self._active() if one.name in missing - internal]
        if lost:
            rows = listed([f"{one.name} (index {self.known.missing[one.name]})" for one in lost])
            return Stalled(
                Reason.NOT_FOUND,
                f"not found: {rows}. Check the spelling; if it is a package of your own, "
                f"describe its index in `indexes`, or commit its source as an in-repo package",
                lost[0].requirement.place,
            )
        question = Question(
            tuple(one.line for one in self.asked), tuple(line for _, line in self.constraints)
        )
        for names, reason, message in (
            (internal, Reason.NOT_LISTED, "in this repo, and no index was asked for it"),
            (missing, Reason.NOT_FOUND, "not found on its index"),
            (self.known.sources_only - base, Reason.SOURCE_BUILD_REFUSED, "there as an sdist only"),
        ):
            cause = self._cause(names, question)
            if cause:
                return self._needed(cause, reason, message)
        return None

    def _cause(self, names: set[str], question: Question) -> set[str]:
        """Return those of the names without which the question is solved."""
        if not names or not self._ask(replace(question, without=frozenset(names))).solved:
            return set()
        left = set(names)
        for name in sorted(names)[:SUSPECTS]:
            fewer = left - {name}
            if fewer and self._ask(replace(question, without=frozenset(fewer))).solved:
                left = fewer
        return left

    def _needed(self, names: set[str], reason: Reason, message: str) -> Stalled:
        """Say what cannot be had, and what asks for it."""
        culprit = next((one for one in self._active() if self._asks(one, names)), None)
        needer = f", needed by {culprit.requirement.text}" if culprit is not None else ""
        rows = listed(sorted(names))
        return Stalled(
            reason,
            f"{rows} is {message}{needer}; {reason.advice}",
            culprit.requirement.place if culprit is not None else self._place(),
        )

    def _asks(self, one: Asked, names: set[str]) -> bool:
        """Return True if a requirement by itself needs one of the names."""
        if one.name in names:
            return True
        lines = tuple(line for _, line in self.constraints)
        question = Question((one.line,), lines)
        return (
            not self._ask(question).solved
            and self._ask(replace(question, without=frozenset(names))).solved
        )

    # --------------------------------------------------------------- what the indexes have of them

    def _of_offers(self) -> GroundcrewError | None:
        """Return a requirement for which its index has no version or no file that fits."""
        base = {d.name for d in self.runtime.base}
        for one in self._active():
            if one.parsed is None or one.requirement.package is not None or one.name in base:
                continue
            offer = self.known.offer(one.name)
            if offer is None:
                continue
            sources = one.name in self.recipe.source_builds
            problem = offer.problem(one.parsed.specifier, self.runtime, sources=sources)
            if problem is not None:
                message = f"{one.requirement.text}: {problem.message}"
                return Stalled(problem.reason, message, one.requirement.place)
        return None

    def _of_sources(self, question: Question, first: Resolution) -> GroundcrewError | None:
        """Return packages that are built from source to learn what they need, and do not build."""
        names = self._cause(set(self.recipe.source_builds), question)
        if not names:
            return None
        return Stalled(
            Reason.PACKAGE_BUILD_FAILED,
            f"{listed(sorted(names))} does not build from source: {causes(first.output)}",
            place_of(min(names), self.recipe),
        )

    # ------------------------------------------------------------------------------- the base

    def _of_base(self, question: Question) -> GroundcrewError | None:
        """Return everything that asks for another version of what the base has."""
        direct, pins = self._against_base(), self._pins()
        loosened = self._loosened(question, direct, pins)
        answer = self._ask(loosened)
        if answer.solved and (direct or pins):
            return self._conflict(direct, self._sorted(pins, answer))
        free = self._ask(replace(loosened, base=False))
        if not free.solved:
            return self._conflict(direct, pins, helps=False) if direct else None
        pins = self._sorted(pins, free)
        deep = self._changed(free)
        if not deep:
            return self._conflict(direct, pins, helps=False) if direct or pins else None
        roots = self._roots(deep, free)
        sentences = [self._needing(name, free) for name in deep[:NAMED]]
        sentences += self._advice(loosened, roots)
        where = roots[0].requirement.place if roots else self._place()
        if direct or pins:
            conflict = self._conflict(direct, pins, helps=False)
            sentences.insert(0, conflict.message.rstrip("."))
            where = conflict.place or where
        return Stalled(Reason.RESOLUTION_CONFLICT, joined(sentences), where)

    def _sorted(self, pins: Sequence[Pinned], answer: Resolution) -> list[Pinned]:
        """Return all pins, those in the way first; none where none is in the way."""
        in_the_way = [pin for pin in pins if pin.name in answer.versions]
        return [*in_the_way, *(pin for pin in pins if pin not in in_the_way)] if in_the_way else []

    def _loosened(
        self, question: Question, direct: Sequence[Asked], pins: Sequence[Pinned]
    ) -> Question:
        """Return the question without what excludes the base's versions."""
        pinned = {(pin.path, pin.line) for pin in pins}
        return replace(
            question,
            requirements=tuple(one.loose if one in direct else one.line for one in self.asked),
            constraints=tuple(
                line for path, line in self.constraints if (path, line) not in pinned
            ),
        )

    def _conflict(
        self, direct: Sequence[Asked], pins: Sequence[Pinned], *, helps: bool = True
    ) -> Stalled:
        """List requirements and constraints that exclude the base's versions, all at once."""
        base = f"the base (Airflow {self.runtime.airflow_version})"
        rows = [
            f"`{one.requirement.text}`, but {base} has {one.name} {self._version(one.name)}"
            f"{self._needers(one.name)}"
            for one in direct
        ]
        sentences = ["; ".join(rows)] if rows else []
        for path in dict.fromkeys(pin.path for pin in pins):
            lines = [
                f"`{pin.line}` ({pin.name} {self._version(pin.name)})"
                for pin in pins
                if pin.path == path
            ]
            sentences.append(f"the file {path} excludes versions that {base} has: {listed(lines)}")
        if helps:
            kind = "versions out of the requirements" if direct else "lines out of the file"
            both = " and lines" if direct and pins else ""
            sentences.append(
                f"take these {kind}{both}: what the base has is used, and the rest resolves then"
            )
        where = direct[0].requirement.place if direct else self._place()
        return Stalled(Reason.RESOLUTION_CONFLICT, joined(sentences), where)

    def _needing(self, name: str, free: Resolution) -> str:
        """Say what the base has, and what needs it in another version."""
        base = {d.name for d in self.runtime.base}
        others = [n for n in free.needed_by.get(name, ()) if n not in base]
        needers = listed([f"{other} {free.versions.get(other, '')}".strip() for other in others])
        return (
            f"the base (Airflow {self.runtime.airflow_version}) has {name} {self._version(name)}"
            f"{self._needers(name)}, but {needers or 'a requirement'} needs another version, such "
            f"as {free.versions[name]}; packages of the base are not replaced"
        )

    def _changed(self, free: Resolution) -> list[str]:
        """Return packages of the base that would need another version, the causes first."""
        base = {d.name: d.version for d in self.runtime.base}
        changed = [
            name
            for name, version in free.versions.items()
            if name in base and version and not is_same_version(version, base[name])
        ]
        causes = [n for n in changed if any(b not in base for b in free.needed_by.get(n, ()))]
        return causes or changed

    def _roots(self, names: Sequence[str], answer: Resolution) -> list[Asked]:
        """Return the requirements through which something needs one of the names."""
        reached, waiting = set(names), list(names)
        while waiting:
            for needer in answer.needed_by.get(waiting.pop(), ()):
                if needer not in reached:
                    reached.add(needer)
                    waiting.append(needer)
        base = {d.name for d in self.runtime.base}
        return [one for one in self._active() if one.name in reached and one.name not in base]

    def _advice(self, question: Question, roots: Sequence[Asked]) -> list[str]:
        """Return changes of the definition after which it resolves, each of them tried."""
        for one in roots[:SUSPECTS]:
            others = tuple(line for line in question.requirements if line != one.line)
            if one.loose != one.line:
                answer = self._ask(replace(question, requirements=(*others, one.loose)))
                if answer.solved and one.name in answer.versions:
                    version = answer.versions[one.name]
                    return [
                        f"with {one.name}=={version} instead of {one.requirement.text} it resolves"
                    ]
        for one in roots[:SUSPECTS]:
            others = tuple(line for line in question.requirements if line != one.line)
            if others and self._ask(replace(question, requirements=others)).solved:
                return [f"without {one.requirement.text} the rest resolves"]
        return []

    def _against_base(self) -> list[Asked]:
        """Return the requirements whose versions exclude the base's."""
        versions = {d.name: d.version for d in self.runtime.base}
        return [
            one
            for one in self._active()
            if one.requirement.package is None
            and one.parsed is not None
            and not allows(one.parsed, versions.get(one.name))
        ]

    def _pins(self) -> list[Pinned]:
        """Return the constraints that exclude the base's versions."""
        versions = {d.name: d.version for d in self.runtime.base}
        pins = []
        for path, line in self.constraints:
            parsed = parsed_of(line)
            if parsed is None or not self._applies(parsed):
                continue
            name = canonicalize_name(parsed.name)
            if not allows(parsed, versions.get(name)):
                pins.append(Pinned(path, line, name))
        return pins

    def _version(self, name: str) -> str:
        return next((d.version for d in self.runtime.base if d.name == name), "")

    def _needers(self, name: str) -> str:
        """Say which packages of the base need one of it, those with limits first."""
        specifiers = {
            dist.name: str(parsed.specifier)
            for dist in self.runtime.base
            for text in dist.requires
            if (parsed := parsed_of(text)) is not None
            and canonicalize_name(parsed.name) == name
            and self._applies(parsed)
        }
        rows = [
            f"{needer} needs {name}{specifier}"
            for needer, specifier in sorted(specifiers.items(), key=lambda row: not row[1])
        ]
        more = f" and {len(rows) - NEEDERS} more" if len(rows) > NEEDERS else ""
        return f" ({', '.join(rows[:NEEDERS])}{more})" if rows else ""

    # ------------------------------------------------------------------------- among themselves

    def _of_each_other(self, question: Question, first: Resolution) -> GroundcrewError:
        """Return requirements and constraints that exclude each other."""
        message = without_hints(first.output)
        if question.constraints:
            answer = self._ask(replace(question, constraints=()))
            if answer.solved:
                return self._conflict_of_files(answer)
        culprits = [
            one
            for one in self.asked[:SUSPECTS]
            if len(self.asked) > 1 and self._ask(self._except(question, one)).solved
        ]
        rows = listed([one.requirement.text for one in culprits])
        begin = f"without one of {rows} the rest resolves. " if len(culprits) > 1 else ""
        where = culprits[0].requirement.place if culprits else self._place()
        if first.code not in (0, 1):  # uv says so of a conflict; anything else is its own trouble
            message = f"the resolver ended with code {first.code}; it is tried again. {message}"
            return Retryable(Reason.RESOLVER_FAILED, message, where)
        return Stalled(Reason.RESOLUTION_CONFLICT, f"{begin}{message}", where)

    def _conflict_of_files(self, answer: Resolution) -> Stalled:
        """Say which constraints exclude what is needed."""
        lines = []
        for path, line in self.constraints:
            parsed = parsed_of(line)
            version = answer.versions.get(canonicalize_name(parsed.name)) if parsed else None
            if parsed is not None and not allows(parsed, version):
                lines.append((path, f"`{line}` ({version} would be chosen without it)"))
        files = list(dict.fromkeys(path for path, _ in lines)) or ["the constraints files"]
        rows = listed([line for _, line in lines])
        return Stalled(
            Reason.RESOLUTION_CONFLICT,
            f"{listed(files)} excludes what the requirements need{': ' if rows else ''}{rows}"
            f". Without the constraints it resolves",
            self._place(),
        )

    def _except(self, question: Question, one: Asked) -> Question:
        lines = tuple(line for line in question.requirements if line != one.line)
        return replace(question, requirements=lines)

    # ---------------------------------------------------------------------------------- parts

    def _ask(self, question: Question) -> Resolution:
        """Ask the resolver once for each question, while there is time."""
        if question not in self._answers:
            left = self.deadline - time.monotonic()
            if left <= 0:
                return Resolution(-1)
            self._answers[question] = self.resolve(question, left)
        return self._answers[question]

    def _active(self) -> list[Asked]:
        """Return the requirements that count on this runtime."""
        return [one for one in self.asked if one.parsed is None or self._applies(one.parsed)]

    def _applies(self, parsed: Parsed) -> bool:
        if parsed.marker is None:
            return True
        return parsed.marker.evaluate({**environment_of(self.runtime), "extra": ""})

    def _place(self) -> Place | None:
        return self.recipe.requirements[0].place if self.recipe.requirements else None
