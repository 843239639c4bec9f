"""Choice of the components that an activation restarts.

A component must be started anew if the part of the build that it may load differs between the two
builds. That part is the whole build for components that parse DAGs or run tasks and triggers. A
scheduler that does neither, and the API server, never import a DAG or an operator: of a build they
load what others look for by entry points, such as providers, plugins and policies, with all that
these require, and modules that Airflow's configuration names. `part_of` returns it; two builds
whose parts are equal are the same build for that component.

Nothing here guesses in favour of fewer restarts: what is not known counts as loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SERVERS = frozenset({"api-server", "webserver"})
SCHEDULER, DAG_PROCESSOR = "scheduler", "dag-processor"
READ_BY_AIRFLOW = "AIRFLOW"  # prefix of environment variables that every component reads
MOST_BEHIND = 20  # earlier builds that a component may run before it is restarted all the same


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a build, as far as it decides which components load it.

    `distributions` maps normalised names to digests of their wheels. `requires` maps a name to the
    names that its metadata requires, extras included; `modules` to its outermost modules.
    `declaring` are the distributions that other packages may load by themselves: those with entry
    points. `files` is the digest of the definition's own files, "" for none.
    """

    distributions: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, frozenset[str]] = field(default_factory=dict)
    modules: Mapping[str, frozenset[str]] = field(default_factory=dict)
    declaring: frozenset[str] = frozenset()
    env: Mapping[str, str] = field(default_factory=dict)
    files: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Division of the work among an instance's components, as observed before an activation.

    `configured` are names in Airflow's configuration that may be modules. `unknown` says why it is
    not known what the scheduler and the API server load ("": it is known).
    """

    components: tuple[str, ...]
    scheduler_runs_tasks: bool = True
    configured: tuple[str, ...] = ()
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """Content of the build before a switch, and of the one after it."""

    before: Content
    after: Content


Part = frozenset[tuple[str, str, str]]
"""Rows of (kind, name, value) that a component may load of a build."""


def part_of(content: Content, component: str, layout: Layout) -> Part:
    """Return the part of a build that a component may load."""
    packages, env, files = set(content.distributions), content.env, content.files
    if _loads_selectively(component, layout):
        packages = _with_requirements(content, _looked_for(content, layout))
        env = {n: v for n, v in content.env.items() if n.startswith(READ_BY_AIRFLOW)}
        files = ""
    rows = {("package", name, content.distributions[name]) for name in packages}
    rows |= {("env", name, value) for name, value in env.items()}
    rows |= {("files", "", files)} if files else set()
    return frozenset(rows)


def kept(layout: Layout, switch: Switch, components: Iterable[str]) -> tuple[str, ...]:
    """Return which of these components may keep their processes, because nothing differs there."""
    if layout.unknown:
        return ()
    return tuple(
        sorted(
            name
            for name in set(components).intersection(layout.components)
            if part_of(switch.before, name, layout) == part_of(switch.after, name, layout)
        )
    )


def _loads_selectively(component: str, layout: Layout) -> bool:
    if component in SERVERS:
        return True
    parses = DAG_PROCESSOR not in layout.components  # the scheduler of 2.x does, without one
    return component == SCHEDULER and not (parses or layout.scheduler_runs_tasks)


def _looked_for(content: Content, layout: Layout) -> set[str]:
    """Return the distributions that others look for, or that Airflow's configuration names."""
    configured = set(layout.configured)
    named = {name for name, modules in content.modules.items() if modules & configured}
    return (named | content.declaring).intersection(content.distributions)


def _with_requirements(content: Content, names: Collection[str]) -> set[str]:
    reached, following = set[str](), set(names)
    while following:
        name = following.pop()
        reached.add(name)
        required = content.requires.get(name, frozenset()).intersection(content.distributions)
        following |= required - reached
    return reached


# --------------------------------------------------------------------- builds that stay in use

Earlier = tuple[tuple[str, tuple[str, ...]], ...]
"""Components that kept their processes, each with the builds it may run besides the current one."""


def with_earlier(earlier: Earlier, kept: Collection[str], left: str, current: str) -> Earlier:
    """Return what components may still run, once `current` took the place of `left`.

    Components that are not in `kept` were started anew, so they run nothing earlier.
    """
    before = dict(earlier)
    rows = []
    for name in sorted(kept):
        builds = [b for b in (*before.get(name, ()), left) if b != current]
        rows.append((name, tuple(dict.fromkeys(builds))))
    return tuple(row for row in rows if row[1])


def with_returned(earlier: Earlier, kept: Collection[str], left: str) -> Earlier:
    """Return what components may still run, once an activation to `left` was taken back.

    A component that kept its processes may have started by itself meanwhile, and loaded `left`.
    """
    before = dict(earlier)
    return tuple(
        (name, tuple(dict.fromkeys((*before.get(name, ()), left)))) for name in sorted(kept)
    )


def earlier_words(earlier: Mapping[str, Sequence[str]]) -> str:
    """Return a text about the components that kept their processes, or ""."""
    if not earlier:
        return ""
    return (
        f"{', '.join(sorted(earlier))} kept running on an earlier build; nothing loaded there has "
        f"changed since"
    )


def too_far_behind(earlier: Earlier) -> frozenset[str]:
    """Return the components that are restarted whatever differs, to let old builds be deleted."""
    return frozenset(name for name, builds in earlier if len(builds) >= MOST_BEHIND)


def builds_in(earlier: Earlier) -> frozenset[str]:
    """Return the builds that components may run besides the current one."""
    return frozenset(build for _, builds in earlier for build in builds)
