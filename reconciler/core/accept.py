"""From definitions to records: what of a revision is accepted.

Called by `decide` first. A broken file keeps what was accepted before; a revision that loses most
of the definitions is held until someone confirms it.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.definitions import Definitions, Finding
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Problem
from reconciler.core.world import REPO, Draft


def accept(draft: Draft) -> bool:
    """Take the newest definitions into the records; False while a revision is held."""
    definitions = draft.world.definitions
    if definitions is None:
        return _held(draft) is None
    if _prunes_too_much(draft, definitions):
        _hold(draft, definitions)
        return False
    if _held(draft) is not None:
        draft.repo = replace(draft.repo, source_problem=None)
    revision = definitions.commit.revision
    if revision != draft.repo.accepted_revision:
        draft.repo = replace(draft.repo, accepted_revision=revision)
        draft.event("SourceChanged", REPO, definitions.commit.subject, revision=revision)
    _accept_instances(draft, definitions)
    _accept_environments(draft, definitions)
    draft.definitions_changed()
    _note_findings(draft, definitions)
    return True


def _held(draft: Draft) -> Problem | None:
    problem = draft.repo.source_problem
    return problem if problem is not None and problem.reason == "PruneHeld" else None


def _kept_by_break(file: str, definitions: Definitions) -> bool:
    return file in definitions.broken


def lost(draft: Draft, definitions: Definitions) -> list[str]:
    """Recorded objects that the definitions neither hold nor have in a broken file."""
    environments = [
        f"environment/{e.name}"
        for e in draft.environments.values()
        if e.name not in definitions.environments
        and not _kept_by_break(e.definition.place.file, definitions)
    ]
    instances = [
        f"instance/{i.name}"
        for i in draft.instances.values()
        if not i.removed
        and i.name not in definitions.instances
        and not _kept_by_break(i.definition.place.file, definitions)
    ]
    return environments + instances


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


def _accept_instances(draft: Draft, definitions: Definitions) -> None:
    for name, definition in definitions.instances.items():
        record = draft.instances.get(name)
        if record is None:
            record = InstanceRecord(name, definition.team, definition)
            draft.event("InstanceAdded", record, f"{name} of team {definition.team}")
        elif record.definition != definition or record.removed:
            record = replace(
                record, definition=definition, team=definition.team, removed=False, not_before=0.0
            )
        draft.instances[name] = record
    for name, record in list(draft.instances.items()):
        if name in definitions.instances:
            continue
        if _kept_by_break(record.definition.place.file, definitions):
            continue
        if record.activation is None:
            del draft.instances[name]
            draft.event("InstanceRemoved", record, "no longer defined; left as it is")
        elif not record.removed:
            draft.instances[name] = replace(record, removed=True)


def _accept_environments(draft: Draft, definitions: Definitions) -> None:
    commit = definitions.commit
    for name, definition in definitions.environments.items():
        record = draft.environments.get(name)
        if record is None:
            record = EnvironmentRecord(name, definition.team, definition, commit, draft.now)
            draft.event("EnvironmentAccepted", record, commit.subject, revision=commit.revision)
        elif record.definition != definition:
            if record.definition.recipe.digest != definition.recipe.digest:
                record = replace(record, commit=commit, seen_at=draft.now)
                draft.event("EnvironmentAccepted", record, commit.subject, revision=commit.revision)
            record = replace(record, definition=definition, team=definition.team)
        draft.environments[name] = replace(record, problem=None) if record.problem else record
    for name, record in list(draft.environments.items()):
        if name in definitions.environments:
            continue
        file = record.definition.place.file
        if _kept_by_break(file, definitions):
            finding = next(f for f in definitions.findings if f.place.file == file)
            problem = Problem(finding.reason, finding.message, finding.place)
            if record.problem != problem:
                draft.environments[name] = replace(record, problem=problem)
        else:
            del draft.environments[name]
            draft.event("EnvironmentDeleted", record, "no longer defined", revision=commit.revision)


def _note_findings(draft: Draft, definitions: Definitions) -> None:
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
