"""A short run of each benchmark: its counts, which hold on every machine; no seconds.

Requests of imports to a slow share are in tests/integration/test_import_trips.py, the cost of a
commit on a cluster in tests/kubernetes/test_counts.py.
"""

from __future__ import annotations

import os
import shutil

import pytest

from benchmarks.suite import ALL

ELSEWHERE = {"imports", "kubernetes"}
FUSE = {"publish"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in ELSEWHERE])
def test_the_counts_of_a_short_run_are_within_their_limits(name: str) -> None:
    """More round trips, statements, builds or bytes than the limit is a failure, not a figure."""
    if name in FUSE and (not os.access("/dev/fuse", os.W_OK) or not shutil.which("fusermount3")):
        pytest.skip("needs FUSE: /dev/fuse, fuse3, libfuse3-dev, pkg-config, cc")
    rows = ALL[name].short()
    assert rows
    for row in rows:
        assert row.count, "a short run asserts nothing that depends on the machine"
        assert row.met, row
