"""From definitions to records: what of a revision is accepted.

Called by `decide` first. A broken file keeps what was accepted before; a revision that loses most
of the definitions is held until someone confirms it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from reconciler.core.budget import demanded
from reconciler.core.definitions import Broken, Definitions, Environment, Finding
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Problem
from reconciler.core.world import REPO, Draft

T = TypeVar("T")


def accept(draft: Draft) -> bool:
    """Take the newest definitions into the records; False while a revision is held."""
    definitions = draft.world.definitions
    if definitions is None:
        return _held(draft) is None
    definitions = readable(definitions, draft.world.records.unreadable)
    if _prunes_too_much(draft, definitions):
        _hold(draft, definitions)
        return False
    if _held(draft) is not None:
        draft.repo = replace(draft.repo, source_problem=None)
    revision = definitions.commit.revision
    if revision != draft.repo.accepted_revision:
        draft.repo = replace(draft.repo, accepted_revision=revision)
        draft.event("SourceChanged", REPO, definitions.commit.subject, revision=revision)
    broken = _broken(draft, definitions)
    _accept_instances(draft, definitions, broken)
    _accept_environments(draft, definitions, broken)
    draft.definitions_changed()
    _note_findings(draft, definitions)
    return True


def readable(definitions: Definitions, unreadable: frozenset[str]) -> Definitions:
    """What is recorded but cannot be read is a finding: nothing new may take its place."""
    lost = [
        (f"{kind}/{defined.name}", defined.place)
        for kind, all_of in (
            ("Environment", definitions.environments),
            ("Instance", definitions.instances),
        )
        for defined in all_of.values()
        if f"{kind.lower()}/{defined.name}" in unreadable
    ]
    if not lost:
        return definitions
    words = (
        "its row in the database cannot be read (the log says why), so it is left as it is; "
        "restore a backup, or remove that row: it is then taken as the share has it"
    )
    findings = tuple(Finding(place, name, "RecordUnreadable", words) for name, place in lost)
    return replace(
        definitions,
        environments={
            k: v
            for k, v in definitions.environments.items()
            if f"environment/{k}" not in unreadable
        },
        instances={
            k: v for k, v in definitions.instances.items() if f"instance/{k}" not in unreadable
        },
        findings=definitions.findings + findings,
    )


def _held(draft: Draft) -> Problem | None:
    problem = draft.repo.source_problem
    return problem if problem is not None and problem.reason == "PruneHeld" else None


def lost(draft: Draft, definitions: Definitions) -> list[str]:
    """Recorded objects that the definitions neither hold nor have in a broken file."""
    broken = _broken(draft, definitions)
    environments = [
        f"environment/{name}"
        for name in sorted(draft.environments.keys() - definitions.environments.keys())
        if broken.by(draft.environments[name].definition) is None
    ]
    instances = [
        f"instance/{name}"
        for name in sorted(draft.instances.keys() - definitions.instances.keys())
        if not draft.instances[name].removed and broken.by(draft.instances[name].definition) is None
    ]
    return environments + instances


def _broken(draft: Draft, definitions: Definitions) -> Broken:
    environments = (record.definition for record in draft.environments.values())
    instances = (record.definition for record in draft.instances.values())
    return Broken(definitions, chain(environments, instances))


def _near(defined: Mapping[str, T], names: frozenset[str] | None) -> Iterable[tuple[str, T]]:
    """The definitions to look at: all of them, or those of a focus."""
    if names is None:
        return defined.items()
    return [(name, defined[name]) for name in sorted(names & defined.keys())]


def _prunes_too_much(draft: Draft, definitions: Definitions) -> bool:
    if draft.repo.prune_confirmed == definitions.commit.revision:
        return False
    known = len(draft.environments) + sum(not i.removed for i in draft.instances.values())
    gone = len(lost(draft, definitions))
    return gone >= 2 and gone > known * draft.policy.prune_fraction


def _hold(draft: Draft, definitions: Definitions) -> None:
    gone = lost(draft, definitions)
    revision = definitions.commit.revision
    message = (
        f"revision {revision[:10]} removes {len(gone)} of the known objects "
        f"({', '.join(gone[:5])}{', …' if len(gone) > 5 else ''}); nothing is changed until "
        f"`groundcrew confirm-prune` or a newer revision"
    )
    problem = Problem("PruneHeld", message)
    if draft.repo.source_problem != problem:
        draft.repo = replace(draft.repo, source_problem=problem)
        draft.event("PruneHeld", REPO, message, revision=revision)


def _accept_instances(draft: Draft, definitions: Definitions, broken: Broken) -> None:
    near = draft.focus.instances if draft.focus is not None else None
    for name, definition in _near(definitions.instances, near):
        record = draft.instances.get(name)
        if record is None:
            record = InstanceRecord(name, definition.team, definition, since=draft.now)
            draft.event("InstanceAdded", record, f"{name} of team {definition.team}")
        elif record.definition != definition or record.removed:
            record = replace(
                record, definition=definition, team=definition.team, removed=False, not_before=0.0
            )
        draft.instances[name] = record
    for name in sorted(draft.instances.keys() - definitions.instances.keys()):
        record = draft.instances[name]
        if broken.by(record.definition) is not None:
            continue
        if record.activation is None:
            del draft.instances[name]
            others = (row for row in draft.repo.removals if row[0] != record.team)
            draft.repo = replace(draft.repo, removals=(*others, (record.team, draft.now)))
            draft.event("InstanceRemoved", record, "no longer defined; left as it is")
        elif not record.removed:
            draft.instances[name] = replace(record, removed=True)


def _accept_environments(draft: Draft, definitions: Definitions, broken: Broken) -> None:
    commit = definitions.commit
    near = draft.focus.environments if draft.focus is not None else None
    for name, definition in _near(definitions.environments, near):
        record = draft.environments.get(name)
        if record is None:
            record = EnvironmentRecord(name, definition.team, definition, commit, draft.now)
            draft.event("EnvironmentAccepted", record, commit.subject, revision=commit.revision)
        elif record.definition != definition:
            if _asks(record.definition) != _asks(definition):
                record = replace(record, commit=commit, seen_at=draft.now)
                draft.event("EnvironmentAccepted", record, commit.subject, revision=commit.revision)
            record = replace(record, definition=definition, team=definition.team)
        draft.environments[name] = replace(record, problem=None) if record.problem else record
    for name in sorted(draft.environments.keys() - definitions.environments.keys()):
        record = draft.environments[name]
        finding = broken.by(record.definition)
        if finding is not None:
            problem = Problem(finding.reason, finding.message, finding.place)
            if record.problem != problem:
                draft.environments[name] = replace(record, problem=problem)
        else:
            del draft.environments[name]
            draft.event("EnvironmentDeleted", record, "no longer defined", revision=commit.revision)


def _asks(definition: Environment) -> object:
    """What decides which builds are wanted and which are refused."""
    recipe = definition.recipe
    return recipe.digest, demanded(recipe.checks.budget)


def _note_findings(draft: Draft, definitions: Definitions) -> None:
    if draft.repo.findings == definitions.findings:
        return
    old, new = set(draft.world.records.findings), set(definitions.findings)
    for finding in definitions.findings:
        if finding not in old:
            _finding_event(draft, "ObjectStalled", finding, definitions)
    stalled = {f.object for f in new}
    for name in sorted({f.object for f in old} - stalled):
        finding = next(f for f in old if f.object == name)
        _finding_event(draft, "ObjectRecovered", finding, definitions)
    draft.repo = replace(draft.repo, findings=definitions.findings)


def _finding_event(draft: Draft, kind: str, finding: Finding, definitions: Definitions) -> None:
    parts = finding.place.file.split("/")
    team = parts[1] if parts[0] == "teams" and len(parts) > 2 else ""
    kind_of, _, name = finding.object.partition("/")
    draft.event(
        kind,
        (f"{kind_of.lower()}/{name}" if name else finding.object, team),
        f"{finding.place}: {finding.message}",
        reason=finding.reason,
        revision=definitions.commit.revision,
    )


def source_failed(draft: Draft, problem: Problem) -> None:
    """The repo could not be read: said once for each reason; a held revision stays held."""
    held = draft.repo.source_problem
    if held is not None and (held.reason == "PruneHeld" or held.reason == problem.reason):
        return
    draft.repo = replace(draft.repo, source_problem=problem)
    draft.event("SourceFailed", REPO, problem.message, reason=problem.reason)


def source_recovered(draft: Draft) -> None:
    """The repo was read."""
    held = draft.repo.source_problem
    if held is not None and held.reason != "PruneHeld":
        draft.repo = replace(draft.repo, source_problem=None)
        draft.event("SourceRecovered", REPO, "the environments repo answers again")
