"""The dashboards in the repository: current, easy to find and readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana import __main__ as grafana

FILES = sorted(grafana.HERE.glob("*.json"))


def documents() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in FILES]


def test_there_are_three_and_they_are_current() -> None:
    """The files in the repository are what the code generates."""
    assert {path.name: path.read_text() for path in FILES} == dict(grafana.dashboards())
    assert sorted(d["uid"] for d in documents()) == [
        "groundcrew-daemon",
        "groundcrew-fleet",
        "groundcrew-instance",
    ]


def test_a_difference_is_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names a changed, a missing and a left-over file; without it all are corrected."""
    for path in FILES:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(grafana, "HERE", tmp_path)
    assert grafana.main(["--check"]) == 0
    (tmp_path / "fleet.json").write_text("{}\n")
    (tmp_path / "daemon.json").unlink()
    (tmp_path / "old.json").write_text("{}\n")
    assert grafana.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("fleet.json", "daemon.json", "old.json"))
    assert "instance.json" not in said
    assert grafana.main([]) == 0
    assert grafana.main(["--check"]) == 0


@pytest.mark.parametrize("document", documents(), ids=lambda document: str(document["uid"]))
def test_a_panel_can_be_found_and_understood(document: dict[str, Any]) -> None:
    """Titles and ids are unique, every panel has a description, each query the source and job."""
    panels = [p for p in document["panels"] if p["type"] != "row"]
    assert len({p["id"] for p in document["panels"]}) == len(document["panels"])
    assert len({p["title"] for p in panels}) == len(panels)
    for panel in panels:
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job="$job", namespace=~"$namespace"' in target["expr"], panel["title"]


def test_graphs_are_marked_where_a_build_changes() -> None:
    """Both dashboards with instances mark activations and rollbacks of what they show."""
    chosen = {"groundcrew-fleet": 'team=~"$team"', "groundcrew-instance": 'instance="$instance"'}
    for document in documents():
        marks = {m["name"]: m for m in document["annotations"].get("list") or []}
        if document["uid"] not in chosen:
            assert not marks
            continue
        assert sorted(marks) == ["Build activated", "Rolled back"]
        for mark in marks.values():
            assert mark["enable"]
            assert mark["datasource"]["uid"] == "${datasource}"
            assert mark["expr"].count(chosen[document["uid"]]) == 3


def test_colours_tell_when_something_is_wrong() -> None:
    """No leader is red, as are two; one is green; a share turns orange and then red as it fills."""
    panels = {p["title"]: p for document in documents() for p in document["panels"]}

    def colour(title: str, value: float) -> str:
        steps = panels[title]["fieldConfig"]["defaults"]["thresholds"]["steps"]
        return str([s["color"] for s in steps if s["value"] is None or s["value"] <= value][-1])

    assert [colour("Leaders", n) for n in (0, 1, 2)] == ["red", "green", "red"]
    assert [colour("Share left", n) for n in (0.05, 0.15, 0.5)] == ["red", "orange", "green"]
    assert [colour("Queue", n) for n in (0, 100)] == ["green", "green"]


def test_a_count_and_its_table_are_about_the_same_teams() -> None:
    """The number of objects with problems links to a table; both are limited to the same teams."""
    (fleet,) = [d for d in documents() if d["uid"] == "groundcrew-fleet"]
    panels = {p["title"]: p["targets"][0]["expr"] for p in fleet["panels"] if "targets" in p}
    for title in ("Objects with problems", "Problems"):
        assert 'team=~"$team"' in panels[title]


@pytest.mark.parametrize("document", documents(), ids=lambda document: str(document["uid"]))
def test_panels_do_not_lie_on_one_another(document: dict[str, Any]) -> None:
    """Each cell of the grid has one panel, and none is wider than the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_runbooks_name_panels_that_there_are() -> None:
    """Every panel that a page names exists."""
    root = grafana.HERE.parents[1]
    titles = {d["title"]: {p["title"] for p in d["panels"]} for d in documents()}
    named = 0
    for page in (root / "docs" / "runbooks").glob("*.md"):
        text = " ".join(page.read_text().split())
        for title, panels in titles.items():
            for rest in text.split(f"*{title}*")[1:]:
                sentence = rest.split(" - ")[0].split(" ## ")[0]
                mentioned = sentence.split("*")[1::2]
                assert set(mentioned) <= panels, (page.name, mentioned)
                named += len(mentioned)
    assert named >= 8
