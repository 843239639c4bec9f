"""Tests with every seed, and every input that ever broke a target, on that target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CRASHES = Path(__file__).with_name("crashes")


@pytest.mark.parametrize("target", TARGETS)
def test_no_known_input_breaks_a_target(target: str) -> None:
    """Fuzzing keeps these inputs in crashes/, where they stay after the bug is fixed."""
    known = seeds()[target]
    known += [path.read_bytes() for path in sorted((CRASHES / target).glob("*"))]
    for data in (b"", *known, *(part[: len(part) // 2] for part in known)):
        TARGETS[target](data)


def test_each_target_has_seeds() -> None:
    """A target without seeds starts with nothing and finds nothing in a short run."""
    assert set(seeds()) == set(TARGETS)
    assert all(seeds().values())


def test_inputs_that_were_found_belong_to_a_target() -> None:
    """A folder with another name would never be read."""
    assert {path.name for path in CRASHES.glob("*/")} <= set(TARGETS)
