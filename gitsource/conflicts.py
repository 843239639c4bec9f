"""Findings that concern several objects: names, instances and secrets that only one may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gitsource.assembly_cache import Made
from gitsource.tree import TEAM_LISTING
from reconciler.core.definitions import Environment, Finding, Instance, Place
from reconciler.core.formatting import names
from reconciler.core.reasons import Reason

OTHERS = 5  # objects that a message about a conflict names
UNLISTED = (
    f"more than {TEAM_LISTING.files} files and folders (or {TEAM_LISTING.size >> 20} MiB of their "
    f"paths, or {TEAM_LISTING.depth} folders inside each other); the team's files are not read, "
    f"and its environments stay as they are. Keep data elsewhere, or revert the commit"
)


def of_folder(team: str, message: str) -> Finding:
    """Return a finding for the folder of a team."""
    return Finding(Place(f"teams/{team}/"), f"teams/{team}/", Reason.TOO_LARGE, message)


def double(name: str, place: Place, path: str, paths: Sequence[str]) -> Finding:
    """Return the finding for a name that is not unique; none of the objects with it counts."""
    message = f"{name} is also in {_others(path, paths)}; rename one"
    return Finding(place, name, Reason.DUPLICATE_NAME, message)


def _others(own: str, every: Sequence[str]) -> str:
    """Return a few of the others: there may be thousands, and as many messages."""
    some = [one for one in every[: OTHERS + 1] if one != own]
    return names(some, OTHERS, len(every) - 1)


def taken(environments: dict[str, Environment], owners: Mapping[str, list[Made]]) -> list[Finding]:
    """Return findings for instances that two environments name; neither of these acts."""
    findings: list[Finding] = []
    shared = {
        name: sorted(mades, key=lambda m: m.path)
        for name, mades in owners.items()
        if len(mades) > 1
    }
    for name, mades in sorted(shared.items()):
        called = [made.object.partition("/")[2] for made in mades]
        for made, own in zip(mades, called, strict=True):
            others = _others(own, called)
            findings.append(
                Finding(
                    made.rollout_place,
                    made.object,
                    Reason.INSTANCE_TAKEN,
                    f"instance {name} is also requested by {others}; remove it from all but one",
                )
            )
    for mades in shared.values():
        for made in mades:
            environments.pop(made.object.partition("/")[2], None)
    return findings


def platforms(
    environments: dict[str, Environment], instances: Mapping[str, Instance]
) -> list[Finding]:
    """Return findings for indexes that use an Airflow API's secret, which is the platform's."""
    used = {
        (instance.team, instance.api.credentials): name
        for name, instance in sorted(instances.items(), reverse=True)
    }
    findings = [
        Finding(
            environment.place,
            f"Environment/{environment.name}",
            Reason.CREDENTIALS_TAKEN,
            f"the secret {index.credentials} of index {index.name} is that of instance "
            f"{used[environment.team, index.credentials]}'s Airflow API and is sent to nobody "
            f"else; give the index a secret of its own",
        )
        for environment in environments.values()
        for index in environment.recipe.indexes
        if index.credentials and (environment.team, index.credentials) in used
    ]
    for finding in findings:
        environments.pop(finding.object.partition("/")[2], None)
    return findings
