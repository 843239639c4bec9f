"""Differences between two revisions for each instance; pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.core import waits
from reconciler.core.accept import pruned
from reconciler.core.budget import demanded
from reconciler.core.definitions import (
    Broken,
    Checks,
    Definitions,
    Environment,
    Finding,
    Index,
    Instance,
    Place,
    Recipe,
    Wave,
    Window,
)
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Problem, Records
from reconciler.core.packages import Difference, Packages
from reconciler.core.waits import WindowState
from reconciler.core.world import Draft, Policy, World, owners_of


class Action(StrEnum):
    """Effect of merging on an instance."""

    BUILD = "new build"
    FIRST = "first build"
    BARE = "back to the bare base"
    RESTART = "restart: other components load it"
    SETTINGS = "settings only"
    REMOVED = "no longer managed; left as it is"
    STALLED = "kept as it is: its definition has a mistake"


@dataclass(frozen=True, slots=True)
class Advisory:
    """Known vulnerability of a package's version; `new`: this change introduces it."""

    id: str
    package: str
    version: str
    new: bool

    @property
    def url(self) -> str:
        """The URL of its description."""
        return f"https://osv.dev/vulnerability/{self.id}"


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """Change to one instance.

    `packages` is None if it could not be determined; `unknown` says why. `in_base` are the
    requirements that the base satisfies, so that nothing is installed for them. `problem` is what
    prevents the change: a conflict with the base, or a missing package.
    """

    instance: str
    team: str
    environment: str
    action: Action
    waits_on: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()  # lines of the definition: "+ pandas>=3", "- pandas<3"
    runtime: str = ""
    packages: Difference | None = None
    in_base: Packages = field(default_factory=dict)
    problem: Problem | None = None
    unknown: str = ""
    advisories: tuple[Advisory, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """Effect of a pull request; `findings` are the mistakes that it introduces."""

    base: str
    changes: tuple[InstanceChange, ...] = ()
    findings: tuple[Finding, ...] = ()
    mended: tuple[Finding, ...] = ()
    lost: tuple[str, ...] = ()  # objects whose removal makes the prune guard hold the revision
    advisories: str = ""  # why they were not queried; "" if they were

    @property
    def wrong(self) -> bool:
        """True if merging would fail."""
        return bool(self.findings) or any(c.problem is not None for c in self.changes)


def compare(
    old: Definitions,
    new: Definitions,
    state_of: Callable[[Window], WindowState],
    prune_fraction: float,
) -> Preview:
    """Return the changes, without packages; `state_of` returns a window's current state."""
    before, after = _owners(old), _owners(new)
    broken = Broken(new, (*old.environments.values(), *old.instances.values()))
    changes = []
    for name in sorted({*old.instances, *new.instances}):
        was, now = old.instances.get(name), new.instances.get(name)
        action = _action(name, was, now, before.get(name), after.get(name), broken)
        if action is not None:
            instance = new.instances.get(name) or old.instances[name]
            changes.append(_change(instance, action, before.get(name), after.get(name), state_of))
    known = {(f.object, f.reason, f.message) for f in old.findings}
    still = {(f.object, f.reason, f.message) for f in new.findings}
    return Preview(
        base=old.commit.revision,
        changes=tuple(changes),
        findings=tuple(f for f in new.findings if (f.object, f.reason, f.message) not in known),
        mended=tuple(f for f in old.findings if (f.object, f.reason, f.message) not in still),
        lost=_held(old, new, Policy(prune_fraction=prune_fraction)),
    )


def _owners(definitions: Definitions) -> dict[str, Environment]:
    environments = definitions.environments
    return {i: environments[name] for i, name in owners_of(environments.values()).items()}


def _action(
    name: str,
    was: Instance | None,
    now: Instance | None,
    before: Environment | None,
    after: Environment | None,
    broken: Broken,
) -> Action | None:
    """Return what happens to one instance; None if nothing."""
    if now is None:
        kept = was is not None and broken.by(was) is not None
        return Action.STALLED if kept else Action.REMOVED
    if before is not None and after is None:
        return Action.STALLED if broken.by(before) is not None else Action.BARE
    if after is not None and (was is None or before is None):
        return Action.FIRST
    if was is None:
        return None  # an instance that no environment names yet
    if after is not None and before is not None:
        if after.recipe.digest != before.recipe.digest:
            return Action.BUILD
        if was.load_into != now.load_into:
            return Action.RESTART
        if _earlier(before, name) != _earlier(after, name) or before.suspend != after.suspend:
            return Action.SETTINGS
        if demanded(before.recipe.checks.budget) != demanded(after.recipe.checks.budget):
            return Action.SETTINGS
    return None if _without_place(was) == _without_place(now) else Action.SETTINGS


def _earlier(environment: Environment, name: str) -> tuple[Wave, ...]:
    """Return the waves before the instance's own."""
    waves = environment.rollout
    return waves[: next(n for n, wave in enumerate(waves) if name in wave.instances)]


def _without_place(instance: Instance) -> Instance:
    return replace(instance, place=Place(""))


def _change(
    instance: Instance,
    action: Action,
    before: Environment | None,
    after: Environment | None,
    state_of: Callable[[Window], WindowState],
) -> InstanceChange:
    environment = after or before
    starts = action in (Action.BUILD, Action.FIRST, Action.BARE, Action.RESTART)
    return InstanceChange(
        instance.name,
        instance.team,
        environment.name if environment else "",
        action,
        tuple(_waits_on(instance, after, state_of)) if starts else (),
        _lines(before.recipe if before else None, after.recipe if after else None)
        if action in (Action.BUILD, Action.FIRST, Action.BARE)
        else (),
    )


def _waits_on(
    instance: Instance, environment: Environment | None, state_of: Callable[[Window], WindowState]
) -> list[str]:
    """Return texts about what the activation would wait for."""
    reasons = []
    if instance.suspend:
        reasons.append(waits.for_instance().message)
    if environment is not None and environment.suspend:
        reasons.append(waits.for_environment(environment.name).message)
    if environment is not None:
        for number, wave in enumerate(_earlier(environment, instance.name), start=1):
            soak = f" and has soaked {wave.soak / 60:g} min" if wave.soak else ""
            until = f"until {', '.join(wave.instances)} is active{soak}"
            reasons.append(waits.for_wave(number, until).message)
    if instance.window is not None:
        state = state_of(instance.window)
        if not state.is_open:
            reasons.append(waits.for_window(state).message)
    return reasons


def _lines(before: Recipe | None, after: Recipe | None) -> tuple[str, ...]:
    old = _asked(before) if before else {}
    new = _asked(after) if after else {}
    gone = [f"- {line}" for line in old if line not in new]
    return (*gone, *(f"+ {line}" for line in new if line not in old))


def _asked(recipe: Recipe) -> dict[str, None]:
    """Return every line of a recipe, in readable form."""
    trees = {p.path: p.tree[:SHORT_TREE] for p in recipe.packages}
    lines = [
        f"{r.text} (source {trees.get(r.package, '')})" if r.package else r.text
        for r in recipe.requirements
    ]
    for path, text in recipe.constraints:
        lines += [f"{line} ({path})" for line in text.split("\n") if line.strip()]
    lines += [
        f"file {f.jar or f.url} {f.sha256[:12]} at {f.target}, mode {f.mode:o}"
        for f in recipe.files
    ]
    lines += [f"env {key}={value}" for key, value in recipe.env]
    lines += [f"source build of {name}" for name in recipe.source_builds]
    lines += [
        f"{name} with the hash sha256:{digest[:12]}"
        for name, digests in recipe.hashes
        for digest in digests
    ]
    lines += [f"build requirement {line}" for line in recipe.build_constraints]
    lines += [f"build env {key}={value}" for key, value in recipe.build_env]
    lines += [_index_line(index) for index in recipe.indexes]
    lines += _check_lines(recipe.checks)
    return dict.fromkeys(lines)


def _index_line(index: Index) -> str:
    """Return a line that differs with everything that says how an index is read."""
    line = f"index {index.name} {index.url} for {', '.join(index.packages)}"
    if index.credentials:
        line += f", with the secret {index.credentials}"
    if index.ca_bundle:
        line += f", trusting {hashlib.sha256(index.ca_bundle.encode()).hexdigest()[:12]}"
    return line


def _check_lines(checks: Checks) -> list[str]:
    """Return the lines of what a verification is asked to look at."""
    lines = [f"check that {name} imports" for name in checks.imports]
    lines += [f"check without {glob}" for glob in checks.exclude]
    for path, text in checks.dags:
        lines.append(f"check DAG {path} {hashlib.sha256(text.encode()).hexdigest()[:12]}")
    if checks.timeout != Checks().timeout:
        lines.append(f"check within {checks.timeout:g} s")
    lines += [
        f"check that {limit.measure.key} is at most {limit.most:g}" for limit in checks.budget
    ]
    return lines


SHORT_TREE = 10  # digits of an in-repo package's tree


def _held(old: Definitions, new: Definitions, policy: Policy) -> tuple[str, ...]:
    """Return what is lost, if the daemon's prune guard would hold the revision."""
    records = Records(
        environments={
            e.name: EnvironmentRecord(e.name, e.team, e, old.commit)
            for e in old.environments.values()
        },
        instances={i.name: InstanceRecord(i.name, i.team, i) for i in old.instances.values()},
    )
    return pruned(Draft(World(0.0, records, policy=policy)), new).objects
