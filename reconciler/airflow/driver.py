"""What a driver promises: the one way in which the daemon touches an Airflow instance."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.definitions import Instance
from reconciler.core.model import Activation, StepResult
from reconciler.core.phases import Step
from reconciler.core.runtime import Base


class Driver(Protocol):
    """Acts on instances of one kind of target. Every effect is idempotent."""

    def permit(self, instance: Instance) -> None:
        """Raise Stalled("NotAllowed") unless the settings let this instance be acted on."""

    def base(self, instance: Instance) -> Base:
        """Where the instance's packages are installed; raises Retryable while that is not clear."""

    def fingerprint(self, instance: Instance) -> str:
        """A cheap mark of the base that changes with what is installed; "" when unknown."""

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Carry out one step of an activation; the SWITCH steps are the share's.

        Deadlines count from `activation.step_since`, which is for this process, see `Patience`.
        """

    def oldest_process(self, instance: Instance, now: float) -> float | None:
        """When the instance's oldest living process started; None when that cannot be told."""
