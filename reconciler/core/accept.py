"""Acceptance of a revision: which of its definitions are taken into the records.

`decide` calls it first. An object with a broken file keeps its accepted definition; a revision that
loses most definitions is held until an operator confirms it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from reconciler.core.budget import demanded
from reconciler.core.definitions import (
    TEAM_BYTES,
    TEAM_ENVIRONMENTS,
    Broken,
    Commit,
    Definitions,
    Environment,
    Finding,
    Instance,
)
from reconciler.core.events import EventKind
from reconciler.core.machine import UNTOUCHED, Decision, stuck
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Problem, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.steps import move, remove
from reconciler.core.world import REPO, Draft

T = TypeVar("T")

GONE = 3600.0  # seconds in one step after which the Airflow that it waits for counts as gone


def accept(draft: Draft) -> bool:
    """Take the newest definitions into the records; return False while a revision is held."""
    definitions = draft.world.definitions
    if definitions is None:
        return draft.repo.held is None
    definitions = acceptable(definitions, draft.world.records)
    confirmed = draft.repo.prune_confirmed == definitions.commit.revision
    loss = Loss() if confirmed else pruned(draft, definitions)
    if loss.objects:
        _hold(draft, definitions.commit.revision, loss)
        if not loss.teams:
            return False
    elif draft.repo.held is not None:
        draft.repo = replace(draft.repo, source_problem=None)
    revision = definitions.commit.revision
    if revision != draft.repo.accepted_revision:
        draft.repo = replace(draft.repo, accepted_revision=revision)
        draft.event(EventKind.SOURCE_CHANGED, REPO, definitions.commit.subject, revision=revision)
    broken = _broken(draft, definitions)
    _accept_instances(draft, definitions, broken, loss)
    _accept_environments(draft, definitions, broken, loss)
    draft.definitions_changed()
    _note_findings(draft, definitions)
    return True


@dataclass(frozen=True, slots=True)
class Loss:
    """Objects that a revision loses and that stay until an operator confirms it; none by default.

    `teams` are the teams that lose them; empty if the repo as a whole does.
    """

    objects: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


def acceptable(definitions: Definitions, records: Records) -> Definitions:
    """Return the definitions as they may be accepted, given these records."""
    definitions = with_owners(readable(definitions, records.unreadable), records.environments)
    return with_room(definitions, records.environments)


def with_room(definitions: Definitions, known: Mapping[str, EnvironmentRecord]) -> Definitions:
    """Return the definitions without the new environments of teams that have no room for them.

    What is no longer defined may stay recorded, because its removal waits for an operator or for
    the repair of a file. A team cannot fill the records with more and more of it.
    """
    left = known.keys() - definitions.environments.keys()
    counts = Counter(known[name].team for name in left)
    sizes: Counter[str] = Counter()
    for name in left:
        sizes[known[name].team] += known[name].definition.size
    full = {t for t, n in counts.items() if n > TEAM_ENVIRONMENTS or sizes[t] > TEAM_BYTES}
    refused = [
        environment
        for name, environment in (definitions.environments.items() if full else ())
        if environment.team in full and name not in known
    ]
    if not refused:
        return definitions
    message = (
        "not accepted, as {} environments of team {} are still recorded that are no longer "
        "defined; repair the team's other files, or confirm the removal with "
        "`groundcrew confirm-prune`"
    )
    findings = tuple(
        Finding(
            one.place,
            f"Environment/{one.name}",
            Reason.TOO_LARGE,
            message.format(counts[one.team], one.team),
        )
        for one in refused
    )
    names = {one.name for one in refused}
    environments = {k: v for k, v in definitions.environments.items() if k not in names}
    return replace(definitions, environments=environments, findings=definitions.findings + findings)


def with_owners(definitions: Definitions, known: Mapping[str, EnvironmentRecord]) -> Definitions:
    """Return the definitions with each contested name assigned to the file that had it first.

    A name belongs to the environment that was accepted under it first: another team's file with the
    same name gets a finding, and does not stop any other object.
    """
    won = {
        name: one
        for name, several in definitions.contested.items()
        for one in several
        if name in known and one.place.file == known[name].definition.place.file
    }
    named = _named(definitions)
    won = {
        name: one
        for name, one in won.items()
        if not any(i in named for wave in one.rollout for i in wave.instances)
    }
    if not won:
        return definitions
    settled = {(f"Environment/{name}", one.place.file) for name, one in won.items()}
    return replace(
        definitions,
        environments={**definitions.environments, **won},
        findings=tuple(
            f
            for f in definitions.findings
            if f.reason is not Reason.DUPLICATE_NAME or (f.object, f.place.file) not in settled
        ),
    )


def readable(definitions: Definitions, unreadable: frozenset[str]) -> Definitions:
    """Return the definitions with a finding for each recorded object that cannot be read.

    No new definition may replace such an object.
    """
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
    message = (
        "its row in the database cannot be read (the log says why), so it is left as it is; "
        "restore a backup, or remove that row: it is then taken as the share has it"
    )
    findings = tuple(
        Finding(location, name, Reason.RECORD_UNREADABLE, message) for name, location in lost
    )
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


def lost(draft: Draft, definitions: Definitions) -> list[str]:
    """Return recorded objects that are neither in the definitions nor in a broken file."""
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


def pruned(draft: Draft, definitions: Definitions) -> Loss:
    """Return the loss that an operator has to confirm, if it is that large; otherwise an empty one.

    A loss is too large if it is more than a fraction of all recorded objects, of the environments
    or of the instances; the loss of one object never is. If that is true of the repo and more than
    that fraction of its teams lose something, the revision as a whole is held. Otherwise each team
    is considered separately: only that team's objects stay, and no other team waits for it.
    """
    gone = lost(draft, definitions)
    known = {f"environment/{name}": e.team for name, e in draft.environments.items()}
    known |= {f"instance/{n}": i.team for n, i in draft.instances.items() if not i.removed}
    fraction = draft.policy.prune_fraction
    teams = set(known.values())
    losing = {known[name] for name in gone}
    if len(losing) > len(teams) * fraction and _is_too_much(gone, known.keys(), fraction):
        return Loss(tuple(gone))
    objects: list[str] = []
    held: list[str] = []
    for team in sorted(losing):
        of_team = [name for name in gone if known[name] == team]
        all_of_team = [name for name, owner in known.items() if owner == team]
        if _is_too_much(of_team, all_of_team, fraction):
            objects += of_team
            held.append(team)
    return Loss(tuple(objects), tuple(held))


def _is_too_much(gone: Collection[str], known: Collection[str], fraction: float) -> bool:
    """Return True if more than a fraction of `known`, or of one kind of it, is gone."""
    for kind in ("environment/", "instance/", ""):
        count = sum(name.startswith(kind) for name in gone)
        if count >= 2 and count > fraction * sum(name.startswith(kind) for name in known):
            return True
    return False


def _broken(draft: Draft, definitions: Definitions) -> Broken:
    environments = (record.definition for record in draft.environments.values())
    instances = (record.definition for record in draft.instances.values())
    return Broken(definitions, chain(environments, instances))


def _near(defined: Mapping[str, T], names: frozenset[str] | None) -> Iterable[tuple[str, T]]:
    """Return the definitions to consider: all of them, or those of a focus."""
    if names is None:
        return defined.items()
    return [(name, defined[name]) for name in sorted(names & defined.keys())]


def _hold(draft: Draft, revision: str, loss: Loss) -> None:
    gone = loss.objects
    whose = f"objects of team {', '.join(loss.teams)}" if loss.teams else "known objects"
    stays = "these stay as they are" if loss.teams else "nothing is changed"
    message = (
        f"revision {revision[:10]} removes {len(gone)} of the {whose} "
        f"({', '.join(gone[:5])}{', …' if len(gone) > 5 else ''}); {stays} until "
        f"`groundcrew confirm-prune` or a newer revision"
    )
    problem = Problem(Reason.PRUNE_HELD, message)
    if draft.repo.source_problem != problem:
        draft.repo = replace(draft.repo, source_problem=problem)
        draft.event(EventKind.PRUNE_HELD, REPO, message, revision=revision)


def _accept_instances(draft: Draft, definitions: Definitions, broken: Broken, loss: Loss) -> None:
    near = draft.focus.instances if draft.focus is not None else None
    for name, definition in _near(definitions.instances, near):
        record = draft.instances.get(name)
        if record is None:
            record = InstanceRecord(name, definition.team, definition, since=draft.now)
            draft.event(EventKind.INSTANCE_ADDED, record, f"{name} of team {definition.team}")
        elif record.definition != definition or record.removed:
            record = _defined(draft, record, definition)
        draft.instances[name] = record
    for name in sorted(draft.instances.keys() - definitions.instances.keys()):
        record = draft.instances[name]
        if f"instance/{name}" in loss.objects or broken.by(record.definition) is not None:
            continue
        remove(draft, record)


def _defined(draft: Draft, record: InstanceRecord, new: Instance) -> InstanceRecord:
    """Return the record with a newer definition.

    While an activation is in progress, the instance stays on the same Airflow until it has ended,
    as the old one's pools would stay at 0; unless that Airflow seems to be gone. If nothing was
    switched yet, the activation is given up in favour of the new Airflow.
    """
    old, activation = record.definition, record.activation
    if activation is not None and _where(old) != _where(new):
        gone = stuck(activation) or draft.elapsed(activation.step_since) > GONE
        if activation.step in UNTOUCHED:
            problem = Problem(Reason.SUPERSEDED, "the instance is defined to be another Airflow")
            activation = replace(activation, problem=problem)
            record = replace(record, activation=move(draft, record, activation, Decision.GIVE_UP))
        if activation.step in UNTOUCHED or not gone:
            new = replace(
                new, team=old.team, api=old.api, local=old.local, kubernetes=old.kubernetes
            )
    if new == old and not record.removed:
        return record
    return replace(record, definition=new, team=new.team, removed=False, not_before=0.0)


def _where(instance: Instance) -> object:
    """Return a key that identifies the Airflow and the team whose secrets open it."""
    home = instance.local.airflow_home if instance.local is not None else ""
    return instance.team, instance.api.url, instance.kubernetes, home


def _accept_environments(
    draft: Draft, definitions: Definitions, broken: Broken, loss: Loss
) -> None:
    near = draft.focus.environments if draft.focus is not None else None
    for name, definition in _near(definitions.environments, near):
        commit = definitions.commits.get(name, definitions.commit)
        record = draft.environments.get(name)
        if record is None:
            record = EnvironmentRecord(name, definition.team, definition, commit, draft.now)
            _claim_builds(draft, definition, commit)
            draft.event(
                EventKind.ENVIRONMENT_ACCEPTED, record, commit.subject, revision=commit.revision
            )
        elif record.definition != definition:
            if _asks(record.definition) != _asks(definition):
                if record.definition.recipe.digest != definition.recipe.digest:
                    _claim_builds(draft, definition, commit)
                record = replace(record, commit=commit, seen_at=draft.now)
                draft.event(
                    EventKind.ENVIRONMENT_ACCEPTED, record, commit.subject, revision=commit.revision
                )
            record = replace(record, definition=definition, team=definition.team)
        draft.environments[name] = replace(record, problem=None) if record.problem else record
    left = sorted(draft.environments.keys() - definitions.environments.keys())
    taken = _named(definitions) if left else frozenset()
    for name in left:
        record = draft.environments[name]
        finding = broken.by(record.definition)
        problem = Problem(finding.reason, finding.message, finding.place) if finding else None
        if f"environment/{name}" in loss.objects:
            problem = Problem(
                Reason.PRUNE_HELD, "it is no longer defined; its removal waits for someone"
            )
        if problem is not None:
            kept = _without(record.definition, taken)
            if record.problem != problem or record.definition != kept:
                draft.environments[name] = replace(record, definition=kept, problem=problem)
        else:
            del draft.environments[name]
            revision = definitions.commit.revision
            draft.event(
                EventKind.ENVIRONMENT_DELETED, record, "no longer defined", revision=revision
            )


def _claim_builds(draft: Draft, definition: Environment, commit: Commit) -> None:
    """Set `commit` as the commit of the finished builds of a recipe that a definition returns to.

    What is activated from them now was requested by this commit, not by the one for which they were
    built.
    """
    digest = definition.recipe.digest
    for key, build in list(draft.builds.items()):
        mine = build.environment == definition.name and build.recipe_digest == digest
        if mine and build.phase is BuildPhase.READY:
            draft.builds[key] = replace(build, revision=commit.revision, commit=commit)


def _named(definitions: Definitions) -> frozenset[str]:
    """Return the instances that the environments of a revision name."""
    return frozenset(
        instance
        for environment in definitions.environments.values()
        for wave in environment.rollout
        for instance in wave.instances
    )


def _without(definition: Environment, taken: frozenset[str]) -> Environment:
    """Return the environment of a broken file without the instances that another one has taken.

    So no two recorded environments name the same instance.
    """
    waves = (
        replace(wave, instances=tuple(i for i in wave.instances if i not in taken))
        for wave in definition.rollout
    )
    return replace(definition, rollout=tuple(wave for wave in waves if wave.instances))


def _asks(definition: Environment) -> object:
    """Return a key of the settings that decide which builds are wanted and which are refused."""
    recipe = definition.recipe
    return recipe.digest, demanded(recipe.checks.budget)


def _note_findings(draft: Draft, definitions: Definitions) -> None:
    if draft.repo.findings == definitions.findings:
        return
    old, new = set(draft.world.records.repo.findings), set(definitions.findings)
    for finding in definitions.findings:
        if finding not in old:
            _finding_event(draft, EventKind.OBJECT_STALLED, finding, definitions)
    stalled = {f.object for f in new}
    for name in sorted({f.object for f in old} - stalled):
        finding = next(f for f in old if f.object == name)
        _finding_event(draft, EventKind.OBJECT_RECOVERED, finding, definitions)
    draft.repo = replace(draft.repo, findings=definitions.findings)


def _finding_event(
    draft: Draft, kind: EventKind, finding: Finding, definitions: Definitions
) -> None:
    draft.event(
        kind,
        (finding.subject, finding.team),
        f"{finding.place}: {finding.message}",
        reason=finding.reason,
        revision=definitions.commit.revision,
    )


def source_failed(draft: Draft, problem: Problem) -> None:
    """Record that the repo could not be read, once for each reason; a held revision stays held."""
    held = draft.repo.source_problem
    if held is not None and (held.reason in (Reason.PRUNE_HELD, problem.reason)):
        return
    draft.repo = replace(draft.repo, source_problem=problem)
    draft.event(EventKind.SOURCE_FAILED, REPO, problem.message, reason=problem.reason)


def source_recovered(draft: Draft) -> None:
    """Record that the repo was read."""
    if draft.repo.source_problem is not None and draft.repo.held is None:
        draft.repo = replace(draft.repo, source_problem=None)
        draft.event(EventKind.SOURCE_RECOVERED, REPO, "the environments repo answers again")
