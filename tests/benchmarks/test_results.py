"""Files results.json and RESULTS.md: what a run replaces, and their contents."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from benchmarks.results import FOLDER, Run, keep, read, text
from benchmarks.rows import Row
from benchmarks.suite import ALL

MET = Row("one", "round trips", 5, "", "≤ 10", 10, "pip", 50, count=True)
MISSED = Row("two", "a start", 3.5, "s", "≤ 2 s", 2.0)
TOLD = Row("two", "disk", 1234.5, "MiB")


def test_a_run_replaces_its_own_rows_and_keeps_the_others(tmp_path: Path) -> None:
    """Each benchmark has the date and the machine of its own last run."""
    names = ("one", "two")
    keep(Run("two", "About two.", (TOLD,), "2026-01-01", "a machine"), names, tmp_path)
    keep(Run("one", "About one.", (MET,), "2026-01-02", "another machine"), names, tmp_path)
    keep(Run("two", "About two.", (MISSED, TOLD), "2026-01-03", "a machine"), names, tmp_path)
    runs = read(tmp_path)
    assert list(runs) == ["one", "two"]
    assert (runs["one"].date, runs["two"].date) == ("2026-01-02", "2026-01-03")
    assert runs["two"].rows == (MISSED, TOLD)
    written = (tmp_path / "RESULTS.md").read_text()
    assert written == text(list(runs.values()))
    assert "2026-01-02, another machine: `make bench NAME=one`" in written
    assert "2026-01-01" not in written
    (one, *_), (two, *_) = (
        run["rows"] for run in json.loads((tmp_path / "results.json").read_text())
    )
    assert (one["ratio"], one["met"]) == (10.0, True)
    assert (two["ratio"], two["met"]) == (None, False)


def test_a_row_tells_the_ratio_to_the_peer_and_to_the_limit() -> None:
    """Ten times better than the peer, with half of the limit used; missed targets come first."""
    assert MET.cells() == ("one", "round trips", "5", "pip", "50", "10×", "≤ 10", "0.50", "yes")
    assert MISSED.cells()[-2:] == ("1.75", "NO")
    assert TOLD.cells() == ("two", "disk", "1,234 MiB", "–", "–", "–", "–", "–", "–")
    near = Row("three", "disk", 999.87, "MiB", "≤ 1,001", 1001.0, "pip", 1.4e6)
    assert near.cells()[2:6] == ("1,000 MiB", "pip", "1,400,000 MiB", "1,400×")
    assert near.cells()[-2:] == ("0.999", "yes"), "more digits where it is near"
    assert "- two: a start: 3.5 s (≤ 2 s)" in text([Run("two", "About.", (MISSED,))])


def test_the_kept_results_are_those_of_these_benchmarks_and_name_no_machine() -> None:
    """The results in the repository were written by the benchmarks in it."""
    runs = read()
    assert list(runs) == [name for name in ALL if name in runs]
    written = (FOLDER / "RESULTS.md").read_text()
    assert written == text(list(runs.values()))
    assert os.uname().nodename not in written
    assert not re.search(r"/(home|root|tmp|work)/", written)
