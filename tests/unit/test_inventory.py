"""Inventories of bases: written by an interpreter that may be anybody's image."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from reconciler.builder.base.inspection import Inventory, inspect_base, runtime_of
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed, parse

ROW: dict[str, Any] = {
    "name": "apache-airflow",
    "version": "3.0.0",
    "requires": [],
    "provides_extra": [],
    "requires_python": None,
}
GOOD: dict[str, Any] = {
    "python": "/usr/bin/python3",
    "python_version": "3.12.1",
    "python_tag": "cp312",
    "platform": "linux_x86_64",
    "tags": ["py3-none-any"],
    "base": [ROW],
    "listing": "",
}


def test_an_inventory_becomes_a_runtime() -> None:
    broken = {**ROW, "name": "broken", "version": None}
    inventory = parse(Inventory, json.dumps({**GOOD, "base": [ROW, broken]}), "inventory")
    runtime = runtime_of(inventory, "/x")
    assert runtime.airflow_version == "3.0.0"
    assert [dist.version for dist in runtime.base] == ["3.0.0", "None"]


@pytest.mark.parametrize(
    "change",
    [
        {"base": None},
        {"base": [1]},
        {"base": [{"name": "a"}]},
        {"tags": "x"},
        {"python": 3},
        {"base": [{**ROW, "version": 3}]},
        {"base": [{**ROW, "name": "a" * 301}]},
        {"platform": None},
        {"base": [ROW] * 20_001},
    ],
)
def test_an_inventory_of_another_shape_is_refused_in_words(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="inventory is invalid"):
        parse(Inventory, json.dumps({**GOOD, **change}), "inventory")


def test_an_interpreter_without_airflow_is_told() -> None:
    with pytest.raises(Stalled, match="has no Airflow") as caught:
        inspect_base(sys.executable)
    assert caught.value.reason == Reason.BASE_UNREADABLE
