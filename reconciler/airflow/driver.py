"""Interface of a driver: the only way in which the daemon touches an Airflow instance."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from reconciler.core.definitions import Instance
from reconciler.core.loaded import Loaded
from reconciler.core.model import Activation, Reports, StepResult
from reconciler.core.phases import Step
from reconciler.core.runtime import Base


class Driver(Protocol):
    """Driver of instances of one kind of target. Every effect is idempotent."""

    def permit(self, instance: Instance) -> None:
        """Raise Stalled("NotAllowed") unless the settings permit actions on this instance."""

    def base(self, instance: Instance) -> Base:
        """Return the location of the instance's base. Raises Retryable while that is not clear."""

    def fingerprint(self, instance: Instance) -> str:
        """Return a cheap fingerprint of what is installed in the base, or "" if unknown."""

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Carry out one step of an activation; the SWITCH steps belong to the share.

        Deadlines count from `activation.step_since`, which is specific to this process; see
        `Patience`.
        """

    def reports(self, instance: Instance, activation: Activation, now: float) -> Reports:
        """Return what Airflow reports right before a restart; never raises Retryable."""

    def processes(
        self, instance: Instance, load_into: Collection[str]
    ) -> tuple[Loaded, ...] | None:
        """Return what running processes of these components have loaded, as far as that is certain.

        None while nothing can be seen.
        """

    def oldest_process(self, instance: Instance, now: float) -> float | None:
        """Return when the instance's oldest living process started, or None if that is unknown."""
