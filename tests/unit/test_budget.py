"""Import budget: costs in a report, exceeded limits, increases, and their texts."""

from __future__ import annotations

import math

import pytest

from reconciler.core.budget import exceeded, fits, growth, measured, must_measure, refusal
from reconciler.core.definitions import ImportLimit, Measure, Place
from reconciler.core.model import ImportCost
from reconciler.core.reasons import Reason

COST = ImportCost(412, 1300, 40 << 20, 2.0)


def limit(measure: Measure, most: float, line: int = 12) -> ImportLimit:
    return ImportLimit(measure, most, Place("teams/red/one.yaml", line, 7))


@pytest.mark.parametrize(
    "report",
    [
        {"files": "9", "opens": True, "bytes": -1, "seconds": math.nan},
        {"files": 10**40, "opens": None, "bytes": 1.5, "seconds": math.inf},
        {"files": [9], "seconds": "2"},
        {},
    ],
)
def test_a_report_that_lies_about_its_types_tells_nothing(report: dict[str, object]) -> None:
    """The build's own code writes the report: only valid figures are accepted."""
    assert measured(report) == ImportCost()


def test_a_cost_at_its_limit_is_within_it() -> None:
    """One more exceeds it, in each measure."""
    for measure in Measure:
        cost = COST.of(measure)
        assert cost is not None
        assert exceeded([limit(measure, cost)], COST) == ()
        assert len(exceeded([limit(measure, cost - 0.5)], COST)) == 1


def test_only_time_is_measured_again() -> None:
    """Files are the same on every machine; a measure that was not recorded is not a pass."""
    time, files = limit(Measure.SECONDS, 1.0), limit(Measure.FILES, 100.0)
    assert must_measure([time], COST)
    assert not must_measure([files], COST)
    assert not must_measure([time, files], COST), "it is refused for its files anyway"
    assert must_measure([files], ImportCost(seconds=1.0))
    assert not fits([files], ImportCost(seconds=1.0))
    assert fits([], ImportCost())


def test_a_refusal_says_which_where_what_and_what_to_do() -> None:
    """Every exceeded limit has its own place; the problem's place is that of the first."""
    over = [limit(Measure.FILES, 300.0), limit(Measure.BYTES, float(16 << 20), 13)]
    packages = {"small": ImportCost(2, None, 10), "pandas": ImportCost(300, None, 30 << 20)}
    problem = refusal(over, COST, packages)
    assert (problem.reason, problem.place) == (Reason.IMPORT_BUDGET_EXCEEDED, over[0].place)
    assert problem.message == (
        "importing the build takes 412 files, and importBudget.files at teams/red/one.yaml:12:7 "
        "allows 300 files; importing the build takes 40.0 MiB, and importBudget.bytes at "
        "teams/red/one.yaml:13:7 allows 16.0 MiB; most of it by pandas (300 files), small "
        "(2 files). Take out or replace what costs most, or raise the limit"
    )
    assert "groundcrew retry" in refusal([limit(Measure.SECONDS, 1.0)], COST, {}).message


def test_a_regression_is_a_quarter_more_and_enough_to_be_felt() -> None:
    """Small builds may double, large ones may grow a little; a slow machine is no regression."""
    assert [str(g) for g in growth(COST, ImportCost(980, 3000, 40 << 20, 2.0))] == [
        "412 files → 980 files (+138 %)",
        "1300 opens → 3000 opens (+131 %)",
    ]
    assert growth(ImportCost(20, 60, 1 << 20, 0.1), ImportCost(60, 180, 5 << 20, 0.9)) == ()
    assert growth(COST, ImportCost(480, 1500, 45 << 20, 9.0)) == ()
    assert growth(COST, ImportCost()) == growth(ImportCost(), COST) == ()
    (regression,) = growth(ImportCost(files=0), ImportCost(files=60))
    assert (regression.ratio, str(regression)) == (60.0, "0 files → 60 files")
    assert growth(ImportCost(980), ImportCost(412)) == (), "less is none"
