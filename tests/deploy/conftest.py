"""Chart that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts import manifests


@pytest.fixture
def chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the chart without rules and dashboards, which is rendered instead."""
    chart = tmp_path / "groundcrew"
    shutil.copytree(manifests.CHART, chart)
    for folder in manifests.COPIES:
        shutil.rmtree(chart / "files" / folder, ignore_errors=True)
        (chart / "files" / folder).mkdir(parents=True)
    monkeypatch.setattr(manifests, "CHART", chart)
    return chart
