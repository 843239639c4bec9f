"""The number of Jobs that a commit costs on a cluster: the short run of that benchmark."""

from __future__ import annotations

from pathlib import Path

from benchmarks import kubernetes
from tests.harness.laboratory import Lab


def test_a_commit_takes_few_jobs(lab: Lab, tmp_path: Path) -> None:
    """The benchmark's own counts are checked, on the control plane of these tests."""
    rows = kubernetes.short(lab, tmp_path)
    assert rows
    for row in rows:
        assert row.met, row
