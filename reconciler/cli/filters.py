"""Selection of the objects that `groundcrew status` shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from reconciler.cli.exit_codes import Misuse
from reconciler.cli.objects import INSTANCE, find
from reconciler.core.phases import Health, Sync

if TYPE_CHECKING:
    from reconciler.api import contract

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Filter:
    """Selection of objects; what is "" or None selects all."""

    object: str
    team: str
    health: Health | None
    sync: Sync | None

    @classmethod
    def of(cls, object: str, team: str, health: str, sync: str) -> Filter:  # noqa: A002
        """Return the filter that the command's options describe. Raises Misuse."""
        return cls(object, team, _member(Health, health), _member(Sync, sync))

    def applied(self, status: contract.Status) -> contract.Status:
        """Return the status of what is selected. Raises Misuse if there is no such object."""
        instances = [one for one in status.instances if self._has(one)]
        environments = [one for one in status.environments if self._has(one)]
        findings = status.findings
        if self.object:
            kind, _, name = find(status, self.object).partition("/")
            if kind == INSTANCE:
                instances = [one for one in instances if one.name == name]
                environments = [one for one in environments if name in one.instances]
            else:
                environments = [one for one in environments if one.name == name]
                instances = [one for one in instances if one.environment == name]
            files = {one.file for one in environments}
            findings = [f for f in findings if f.file in files]
        elif self.team:
            findings = [f for f in findings if f.file.startswith(f"teams/{self.team}/")]
        selected = {
            "instances": instances,
            "environments": environments,
            "findings": findings,
        }
        return status.model_copy(update=selected)

    def _has(self, one: contract.Instance | contract.Environment) -> bool:
        return (
            self.team in ("", one.team)
            and self.health in (None, one.health)
            and self.sync in (None, one.sync)
        )


def _member(values: type[E], said: str) -> E | None:
    """Return the member that is meant, in any case; None for "". Raises Misuse."""
    if not said:
        return None
    for value in values:
        if value.lower() == said.lower():
            return value
    raise Misuse(f"there is no {values.__name__.lower()} {said}; write {', '.join(values)}")
