"""Meaning of the end of a Job."""

from __future__ import annotations

import pytest

from reconciler.builder.executor.kubernetes.outcomes import lost
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import JobSettings

DEADLINE = 600.0


@pytest.mark.parametrize("before", [-5.0, 0.0, 0.9])
@pytest.mark.parametrize("pod", [None, {"status": {"phase": "Running"}}])
def test_a_job_ends_at_its_deadline_or_a_moment_before(pod: object, before: float) -> None:
    """Kubernetes counts from the whole second in which it began; the pod gives no reason."""
    error = lost("one", pod, JobSettings(deadline=DEADLINE), DEADLINE - before)  # type: ignore[arg-type]
    assert isinstance(error, Stalled)
    assert error.reason == Reason.JOB_DEADLINE
    assert "kubernetes.jobs.deadline (600 s)" in error.message


@pytest.mark.parametrize("pod", [None, {"status": {"phase": "Running"}}])
def test_a_job_that_ends_long_before_is_done_anew(pod: object) -> None:
    """A node vanished, or somebody deleted the Job."""
    error = lost("one", pod, JobSettings(deadline=DEADLINE), DEADLINE - 10.0)  # type: ignore[arg-type]
    assert isinstance(error, Retryable)
    assert error.reason == Reason.JOB_LOST
