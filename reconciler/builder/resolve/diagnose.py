"""Diagnosis of a failed resolution, from what is known and by asking the resolver again.

Nothing here reads the resolver's sentences. Known are the base's inventory, the definition with its
constraints, and the answer of each index for each name. A suspicion is tested: the resolver is
asked again without the suspect, and what solves it is the cause. So is advice, before it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from packaging.utils import canonicalize_name

from reconciler.builder.build_output import causes
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.resolve.base_conflicts import Base
from reconciler.builder.resolve.index_faults import fault_of
from reconciler.builder.resolve.requested import (
    NAMED,
    Asked,
    Pinned,
    allows,
    joined,
    listed,
    parsed_of,
)
from reconciler.builder.resolve.resolver import NO_ANSWER, Question, Resolution
from reconciler.builder.resolve.uv_errors import names_in, place_of, without_hints
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime

BUDGET = 120.0  # seconds that all questions of one diagnosis may take, …
BUDGET_FACTOR = 4  # … and so many times the seconds of the run that failed
SUSPECTS = 12  # requirements that are left out one by one
UNSOLVABLE = 1  # uv's exit code for requirements that do not fit together

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
    _is_late: bool = False
    _answers: dict[Question, Resolution] = field(default_factory=dict)

    def error(self, first: Resolution, took: float) -> GroundcrewError:
        """Return the cause of a failed run, at its place; it took that many seconds."""
        question = self._begin(took)
        again = self._ask(question)
        return (
            fault_of(self.known, self.recipe, self._place())
            or self._of_chance(again)
            or self._of_lost_names()
            or self._of_offers()
            or self._of_base(question)
            or self._of_needed_names(question)
            or self._of_sources(question, first)
            or self._of_direct()
            or self._of_each_other(question, first)
        )

    def late(self, limit: float) -> GroundcrewError:
        """Return the error for a first run that found nothing within `limit` seconds."""
        question = self._begin(limit)
        message = (
            f"no solution was found within {limit:.0f} s; narrow the requirements (an "
            f"unsatisfiable set can take very long)"
        )
        fault = fault_of(self.known, self.recipe, self._place())
        if fault is not None:
            return fault
        direct, pins = self._against_base()
        free = self._ask(replace(self._loosened(question, direct, pins), base=False))
        sentences = [self._base.conflict(direct, (), "", None).message] if direct else []
        sentences += [
            self._base.needing(name, free) for name in self._base.changed_in(free)[:NAMED]
        ]
        where = direct[0].requirement.place if direct else self._place()
        return Stalled(Reason.RESOLVE_TIMEOUT, joined([message, *sentences]), where)

    def _begin(self, took: float) -> Question:
        """Ask what is answered soonest, without the base's versions, and return the first question.

        The budget grows with what the first run took, as on a busy machine all of them take longer.
        """
        self.deadline = time.monotonic() + BUDGET + took * BUDGET_FACTOR
        self.known.remember()
        question = Question(_lines(self.asked), tuple(line for _, line in self.constraints))
        self._ask(replace(self._loosened(question, *self._against_base()), base=False))
        return question

    def _of_chance(self, again: Resolution) -> GroundcrewError | None:
        """Return a failure that is gone when the same is asked again."""
        if not again.solved:
            return None
        message = "the resolver failed once and worked when asked again; the build is tried again"
        return Retryable(Reason.INDEX_UNREACHABLE, message, self._place())

    # ------------------------------------------------------------------------------ the names

    def _missing(self) -> tuple[set[str], set[str]]:
        """Return the names that no index has, and those of them that are packages of the repo."""
        missing = set(self.known.missing).difference(self._base.versions)
        return missing, {name for name in missing if self.known.path_of(name) is not None}

    def _of_lost_names(self) -> GroundcrewError | None:
        """Return names that are asked for and on no index."""
        missing, internal = self._missing()
        lost = [one for one in self._active() if one.name in missing - internal]
        if not lost:
            return None
        rows = listed([f"{one.name} (index {self.known.missing[one.name]})" for one in lost])
        return Stalled(
            Reason.NOT_FOUND,
            f"not found: {rows}. Check the spelling; if it is a package of your own, "
            f"describe its index in `indexes`, or commit its source as an in-repo package",
            lost[0].requirement.place,
        )

    def _of_needed_names(self, question: Question) -> GroundcrewError | None:
        """Return names that are needed, and that cannot be had."""
        missing, internal = self._missing()
        sources = self.known.sources_only.difference(self._base.versions)
        for names, reason, message in (
            (internal, Reason.NOT_LISTED, "in this repo, and no index was asked for it"),
            (missing, Reason.NOT_FOUND, "not found on its index"),
            (sources, Reason.SOURCE_BUILD_REFUSED, "on its index as an sdist only"),
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
        rows, advice = listed(sorted(names)), reason.advice
        if reason is Reason.SOURCE_BUILD_REFUSED:
            it = "it" if len(names) == 1 else "them"
            advice = f"to have {it} built, write `{self.recipe.allowing(*names)}` in `spec`"
        return Stalled(
            reason,
            f"{rows} is {message}{needer}; {advice}",
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
        base = self._base.versions
        for one in self._active():
            if one.parsed is None or one.requirement.package is not None or one.name in base:
                continue
            offer = self.known.offer(one.name)
            if offer is None:
                continue
            problem = offer.problem(one.parsed.specifier, self.runtime, self.recipe)
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
        base, direct, pins = self._base, *self._against_base()
        loosened = self._loosened(question, direct, pins)
        if direct or pins:
            answer = self._ask(loosened)
            in_the_way = self._sorted(pins, answer)
            if answer.solved and (direct or in_the_way):
                return base.conflict(direct, in_the_way, _remedy(direct, in_the_way), self._place())
        free = self._ask(replace(loosened, base=False))
        if not free.solved:
            return None
        pins, deep = self._sorted(pins, free), base.changed_in(free)
        conflict = base.conflict(direct, pins, "", self._place())
        if not deep:
            return conflict if direct or pins else None
        roots = self._roots(deep, free)
        culprits = self._culprits(loosened, roots)
        if culprits:  # what the others would take as well is no reason
            theirs = self._ask(replace(loosened, requirements=_lines(culprits), base=False))
            free, deep = (theirs, base.changed_in(theirs)) if theirs.solved else (free, deep)
        advice = self._advice(loosened, culprits, roots)
        sentences = []
        if direct or pins:  # the advice was found without them
            sentences = [conflict.message.rstrip("."), _removal(direct, pins)]
            advice = f"besides that, {advice}"
        sentences += [base.needing(name, free) for name in deep[:NAMED]]
        sentences += ["packages of the base are not replaced", advice]
        to_blame = [*direct, *culprits, *roots]
        where = to_blame[0].requirement.place if to_blame else self._place()
        return Stalled(Reason.RESOLUTION_CONFLICT, joined(sentences), where)

    def _of_direct(self) -> GroundcrewError | None:
        """Return what excludes the base's versions, where something else is in the way as well."""
        direct, pins = self._against_base()
        more = "" if self._is_late else "; that alone is not enough"
        remedy = f"take these versions out of the requirements{more}"
        return self._base.conflict(direct, pins, remedy, self._place()) if direct else None

    def _against_base(self) -> tuple[list[Asked], list[Pinned]]:
        """Return the requirements and the constraints that exclude the base's versions."""
        return self._base.excluded_by(self._active()), self._base.pins_against(self.constraints)

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

    def _roots(self, names: Sequence[str], answer: Resolution) -> list[Asked]:
        """Return the requirements through which something needs one of the names."""
        reached, waiting = set(names), list(names)
        while waiting:
            for needer in answer.needed_by.get(waiting.pop(), ()):
                if needer not in reached:
                    reached.add(needer)
                    waiting.append(needer)
        base = self._base.versions
        return [one for one in self._active() if one.name in reached and one.name not in base]

    def _culprits(self, question: Question, roots: Sequence[Asked]) -> list[Asked]:
        """Return the requirements that do not fit the base even without the others."""
        return [one for one in roots[:SUSPECTS] if self._fails_alone(one.line, question)]

    def _fails_alone(self, line: str, question: Question) -> bool:
        return self._ask(replace(question, requirements=(line,))).code == UNSOLVABLE

    def _advice(self, question: Question, culprits: Sequence[Asked], roots: Sequence[Asked]) -> str:
        """Return a change of the definition after which it resolves, or that none was found."""
        removal = ""
        for removed in filter(None, (culprits, *([one] for one in roots[:SUSPECTS]))):
            rest = _changed(question, removed)
            if rest.requirements and self._ask(rest).solved:
                texts = listed([one.requirement.text for one in removed])
                removal = f"without {texts} the rest resolves"
                break
        for one in culprits or roots[:SUSPECTS]:
            if one.loose == one.line or self._fails_alone(one.loose, question):
                continue
            answer = self._ask(_changed(question, [one], one.loose))
            if answer.solved and one.name in answer.versions:
                version = answer.versions[one.name]
                return f"with {one.name}=={version} instead of {one.requirement.text} it resolves"
        if removal:
            return removal
        texts = listed([one.requirement.text for one in culprits or roots]) or "the requirements"
        if self._is_late:
            return (
                f"there was no time to find out which change helps: ask for versions of {texts} "
                f"that take what the base has, or leave them out"
            )
        return f"{texts} cannot be had with this base: leave it out, or have the base changed"

    # ------------------------------------------------------------------------- among themselves

    def _of_each_other(self, question: Question, first: Resolution) -> GroundcrewError:
        """Return requirements and constraints that exclude each other."""
        if self._is_late and first.code == UNSOLVABLE:
            return self._unfinished(first)
        message = without_hints(first.output)
        if question.constraints:
            answer = self._ask(replace(question, constraints=()))
            if answer.solved:
                return self._conflict_of_files(answer)
        culprits = [
            one
            for one in self.asked[:SUSPECTS]
            if len(self.asked) > 1 and self._ask(_changed(question, [one])).solved
        ]
        rows = listed([one.requirement.text for one in culprits])
        begin = f"without one of {rows} the rest resolves. " if len(culprits) > 1 else ""
        where = culprits[0].requirement.place if culprits else self._place()
        if first.code not in (0, 1):  # uv says so of a conflict; anything else is its own trouble
            message = f"the resolver ended with code {first.code}; it is tried again. {message}"
            return Retryable(Reason.RESOLVER_FAILED, message, where)
        return Stalled(Reason.RESOLUTION_CONFLICT, f"{begin}{message}", where)

    def _unfinished(self, first: Resolution) -> Stalled:
        """Return what the failed run named, as there was no time to find the cause."""
        mentioned = names_in(first.output)
        asked = [one for one in self._active() if one.name in mentioned] or self._active()
        texts = listed([f"`{one.requirement.text}`" for one in asked])
        rows = [self._base.has(name) for name in self._base.pinned_in(first.output)[:NAMED]]
        against = f"; in the way: {'; '.join(rows)}" if rows else ""
        remedy = "that take what the base has" if rows else "that go together"
        return Stalled(
            Reason.RESOLUTION_CONFLICT,
            f"{texts} cannot be resolved{against}. Ask for versions {remedy}, or leave out what "
            f"needs others. (The search for the cause ran out of time; the log has the resolver's "
            f"own explanation.)",
            asked[0].requirement.place if asked else self._place(),
        )

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

    # ---------------------------------------------------------------------------------- parts

    def _ask(self, question: Question) -> Resolution:
        """Ask the resolver once for each question, while there is time."""
        if question not in self._answers:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self._is_late = True
                return Resolution(NO_ANSWER)
            answer = self._answers[question] = self.resolve(question, left)
            self._is_late = self._is_late or answer.code == NO_ANSWER
        return self._answers[question]

    @property
    def _base(self) -> Base:
        return Base(self.runtime)

    def _active(self) -> list[Asked]:
        """Return the requirements that count on this runtime."""
        return [one for one in self.asked if one.parsed is None or self._base.applies(one.parsed)]

    def _place(self) -> Place | None:
        return self.recipe.requirements[0].place if self.recipe.requirements else None


def _lines(asked: Sequence[Asked]) -> tuple[str, ...]:
    return tuple(one.line for one in asked)


def _changed(question: Question, removed: Sequence[Asked], *added: str) -> Question:
    """Return a question without some requirements, and with others."""
    lines = _lines(removed)
    kept = tuple(line for line in question.requirements if line not in lines)
    return replace(question, requirements=(*kept, *added))


def _remedy(direct: Sequence[Asked], pins: Sequence[Pinned]) -> str:
    """Say what resolves when it is changed."""
    return f"{_removal(direct, pins)}: what the base has is used, and the rest resolves then"


def _removal(direct: Sequence[Asked], pins: Sequence[Pinned]) -> str:
    kind = "versions out of the requirements" if direct else "lines out of the file"
    both = " and lines" if direct and pins else ""
    return f"take these {kind}{both}"
