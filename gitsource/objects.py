"""Conversion of one file to one object, or to findings."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterable, Mapping

from gitsource.fields import NAME
from gitsource.models import DagsModel, InstanceModel, KubernetesModel, LocalModel
from gitsource.tree import Entry, Tree
from gitsource.typed import ReadFile
from gitsource.worktree import LFS_POINTER
from reconciler.core.definitions import (
    Api,
    Component,
    DagOrigin,
    Finding,
    Instance,
    KubernetesTarget,
    LocalTarget,
    OnTimeout,
    Place,
    Window,
)
from reconciler.core.errors import Stalled
from reconciler.core.formatting import names
from reconciler.core.reasons import Reason

log = logging.getLogger(__name__)

LABEL = re.compile(NAME)
RESERVED = "packages"  # the name of a folder of source packages, which is not read


def kind_of_path(path: str) -> str | None:
    """Return the kind of definition that belongs at `path`, or None if it is no definition."""
    parts = path.split("/")
    if not path.endswith((".yaml", ".yml")):
        return None
    if len(parts) == 2 and parts[0] == "instances":
        return "Instance"
    if len(parts) == 2 and parts[0] == "shared":
        return "Fragment"
    if len(parts) == 3 and parts[0] == "teams":
        return "Environment"
    return None


def refused(entry: Entry, limit: int) -> Finding | None:
    """Return the finding for a file that is not read at all, or None."""
    location = Place(entry.path)
    wrong = wrong_entry(entry)
    if wrong is not None:
        return Finding(location, entry.path, *wrong)
    if entry.size > limit:
        message = f"{entry.size} bytes; a definition has at most {limit}"
        return Finding(location, entry.path, Reason.TOO_LARGE, message)
    folder, team = entry.path.split("/")[:2]
    if folder == "teams" and not LABEL.fullmatch(team):
        message = "name a team's folder with at most 63 lower-case letters, digits and -"
        return Finding(location, entry.path, Reason.INVALID_VALUE, message)
    if folder == "teams" and team == RESERVED:
        message = f"a team cannot be named {RESERVED}, the folder for source packages; rename it"
        return Finding(location, entry.path, Reason.INVALID_VALUE, message)
    return None


def wrong_entry(entry: Entry) -> tuple[Reason, str] | None:
    """Return (reason, message) of an entry that is not a file; None for a file."""
    if entry.mode == "120000":
        return Reason.SYMLINK_REFUSED, "a symlink; commit the file itself"
    if entry.mode == "160000":
        return Reason.SUBMODULE_REFUSED, "a submodule; commit its files"
    return None


def virtual_environment_in(paths: Iterable[str]) -> str | None:
    """Return the folder of a virtual environment among files, or None."""
    markers = [path for path in paths if path.endswith("/pyvenv.cfg")]
    return min(markers).removesuffix("/pyvenv.cfg") if markers else None


def wrong_content(tree: Tree, entry: Entry) -> tuple[Reason, str] | None:
    """Return (reason, message) of a file that stands for another one; None for any other."""
    return LFS_POINTER if tree.is_pointer(entry) else None


def unexpected(path: str, name: str, error: Exception) -> Finding:
    """Return an error as a finding of one file, so that nothing else stops."""
    if isinstance(error, Stalled):
        return Finding(error.place or Place(path), name, error.reason, error.message)
    log.error("%s cannot be read", path, exc_info=error)
    message = f"it cannot be read ({type(error).__name__}), and the daemon's log says where; look "
    return Finding(Place(path), name, Reason.READ_FAILED, message + "for what is unusual in it")


def instance_of(read: ReadFile) -> Instance | None:
    """Return the instance that a file defines, or None."""
    model = read.model
    if not isinstance(model, InstanceModel):
        return None
    spec = model.spec
    window = spec.maintenance.window
    listed = spec.loadInto
    extra = {"load_into": tuple(listed)} if listed else {}
    return Instance(
        name=model.metadata.name,
        team=spec.team,
        place=Place(read.path, 1, 1),
        api=Api(spec.api.url.rstrip("/"), spec.api.credentials),
        local=_local(spec.local) if spec.local else None,
        kubernetes=_cluster(spec.kubernetes) if spec.kubernetes else None,
        drain_timeout=spec.maintenance.drain.timeout,
        on_timeout=OnTimeout(spec.maintenance.drain.onTimeout),
        probe_timeout=spec.maintenance.probe.timeout,
        window=Window(window.cron, window.duration, window.timezone) if window else None,
        suspend=spec.suspend,
        dags=_origin(spec.dags) if spec.dags else None,
        checks_as_release=spec.checks.runAs == "release",
        restarts_all=bool(listed),
        **extra,
    )


def _origin(dags: DagsModel) -> DagOrigin:
    git = dags.git
    path = git.path if git is not None else dags.path
    return DagOrigin(
        claim=dags.claim or "",
        sub_path=dags.subPath or "",
        image=dags.image or "",
        container=git.container if git is not None else "",
        path=path or "",
    )


def _local(local: LocalModel) -> LocalTarget:
    components = (
        Component(name, tuple(c.restart), tuple(c.status or ()))
        for name, c in local.components.items()
    )
    return LocalTarget(local.python, local.airflowHome, tuple(components))


def _cluster(cluster: KubernetesModel) -> KubernetesTarget:
    return KubernetesTarget(cluster.namespace, cluster.release, cluster.context)


def wrong_instance(
    name: str, team: str, seen: Container[str], instances: Mapping[str, Instance]
) -> tuple[Reason, str] | None:
    """Return (reason, message) of why a rollout of `team` cannot name this instance, or None."""
    if name in seen:
        return Reason.INSTANCE_TAKEN, f"{name} is in this rollout twice; keep one"
    if name not in instances:
        mine = sorted(n for n, i in instances.items() if i.team == team)
        return (
            Reason.UNKNOWN_INSTANCE,
            f"instance {name} is not defined, or its file has a mistake; "
            + (f"team {team} has {names(mine)}" if mine else f"team {team} has no instances"),
        )
    if instances[name].team != team:
        return (
            Reason.FOREIGN_INSTANCE,
            f"{name} belongs to team {instances[name].team}; name only instances of team {team}",
        )
    return None
