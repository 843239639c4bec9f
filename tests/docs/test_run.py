"""Every page with commands is followed by a reader who does exactly what it says."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks
from tests.docs.world import SETTINGS, World, world
from tests.fakes.base import VERSION

pytestmark = pytest.mark.slow


def follow(world: World, page: str, after: Callable[[int], object] = lambda _: None) -> list[str]:
    """Take every block of a page in order; `after` is called with the number of each that ran."""
    printed = []
    for block in blocks(ROOT / "docs" / page):
        if block.title or block.mark == "run":
            text = world.take(block)
            if block.mark == "run":
                printed.append(text)
                after(len(printed))
    assert printed, f"nothing of {page} was run"
    return printed


def test_the_ten_minute_start_ends_with_an_active_instance(tmp_path: Path) -> None:
    """It starts from nothing, with the page's own settings, repo and secrets."""
    with world(tmp_path / "world") as machine:
        machine.path("/srv/git/environments").symlink_to(machine.here / "environments")
        printed = follow(machine, "start.md")
        (instance,) = machine.status()["instances"]
        assert (instance["sync"], instance["health"]) == ("Synced", "Healthy")
        assert machine.installed("analytics-dev") == ["humanize"]
        loaded = machine.airflows["analytics-dev"].state.loaded
        assert {one["component"] for one in loaded} == {
            "scheduler",
            "dag-processor",
            "triggerer",
            "api-server",
        }
        assert {one["build"] for one in loaded} == {instance["build"]}
        assert "ActivationActive" in printed[-1]


def test_a_package_is_added(tmp_path: Path) -> None:
    """The first is from an index, and is planned before; the second is the team's own."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():
            seen: list[list[str]] = []

            def after(_: int) -> None:
                machine.settled()
                seen.append(machine.installed("analytics-dev"))

            printed = follow(machine, "howto/add-a-package.md", after)
            assert printed[0].count("+1 -0") == 2, "the plan says what comes"
            assert seen[0] == ["humanize"], "a plan changes nothing"
            assert seen[1] == ["humanize", "tabulate"]
            assert sorted(seen[-1]) == ["acme-dates", "humanize", "tabulate"]


def test_a_change_is_built_before_it_is_pushed(tmp_path: Path) -> None:
    """No daemon runs; the locks are files of the tools that they are for."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        printed = follow(machine, "howto/before-you-push.md")
        assert "ok" in printed[0]
        assert "humanize" in printed[0]
        assert "humanize==" in (machine.here / "requirements.txt").read_text()
        project = tomllib.loads((machine.here / "pyproject.toml").read_text())
        assert any(text.startswith("humanize==") for text in project["project"]["dependencies"])
        lock = tomllib.loads((machine.here / "pylock.toml").read_text())
        assert [package["name"] for package in lock["packages"]] == ["humanize"]


def test_a_private_index_is_used(tmp_path: Path) -> None:
    """Its package comes from it and from no other; without the secret it would be refused."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():
            follow(machine, "howto/private-index.md", lambda _: machine.settled() and None)
            assert sorted(machine.installed("analytics-dev")) == ["acme-core", "humanize"]
            assert set(machine.private.downloads()) == {"acme_core-1.2.0-py3-none-any.whl"}
            assert not [path for path in machine.public.asked if "acme" in path]


def test_a_canary_goes_first(tmp_path: Path) -> None:
    """The second wave waits for the soak, as the page says; the manual hold is in the history."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():
            printed = follow(machine, "howto/canary.md", lambda _: machine.settled() and None)
            assert "soak" in printed[1]
            dev, prod = (machine.instance(f"analytics-{name}") for name in ("dev", "prod"))
            assert dev["sync"] == "Synced"
            assert prod["waits_on"].startswith("soak")
            assert [e["object"] for e in machine.history("Suspended")] == [
                "instance/analytics-prod"
            ]


def test_one_goes_back(tmp_path: Path) -> None:
    """The reader uses git, then one instance by hand, and goes forward again."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():
            before = machine.settled()["instances"][0]["build"]
            text = (machine.here / "teams/analytics/analytics.yaml").read_text()
            machine.write("teams/analytics/analytics.yaml", text.replace("<4.10", "<5"))
            machine.shell("git commit --quiet --all --message newer; git push --quiet")
            newer = machine.settled()["instances"][0]["build"]
            assert newer != before
            seen: list[dict[str, object]] = []

            def after(_: int) -> None:
                machine.settled()
                seen.append(machine.instance("analytics-dev"))

            follow(machine, "howto/roll-back.md", after)
            reverted, rolled_back, again = seen
            assert (reverted["build"], reverted["sync"]) == (before, "Synced")
            assert (rolled_back["build"], rolled_back["sync"]) == (newer, "OutOfSync")
            assert rolled_back["quarantined"] == [before]
            assert (again["build"], again["quarantined"]) == (before, [])


def test_airflow_is_upgraded(tmp_path: Path) -> None:
    """Another base between two blocks: detected, built for, and active."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():

            def after(number: int) -> None:
                if number == 1:
                    upgrade(machine)

            printed = follow(machine, "howto/upgrade-airflow.md", after)
            assert "RuntimeChanged" in printed[1]
            (last,) = machine.history("RuntimeChanged")[-1:]
            assert "airflow3.9.9" in last["message"]


def upgrade(found: World) -> None:
    """Install another Airflow in the interpreter of the development instance."""
    known = len(found.history("RuntimeChanged"))
    (site,) = found.path("/opt/airflow").glob("lib/python3*/site-packages")
    (info,) = site.glob("apache_airflow-*.dist-info")
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().replace(VERSION, "3.9.9"))
    info.rename(site / "apache_airflow-3.9.9.dist-info")
    (site / "airflow" / "__init__.py").write_text('__version__ = "3.9.9"\n')
    for _ in range(100):
        if len(found.history("RuntimeChanged")) > known:
            break
    else:
        pytest.fail("the new base was not seen")
    found.settled()


def test_a_token_is_made_and_used(tmp_path: Path) -> None:
    """The tokens file of one page, the request of the other; another token is refused."""
    with world(tmp_path / "world") as machine:
        machine.prepare()
        with machine.daemon():
            (token,) = follow(machine, "pages.md")
            machine.variables["token"] = token.strip()
            (answer,) = follow(machine, "api.md")
            assert json.loads(answer) == []
            machine.variables["token"] = "another"
            (refused,) = follow(machine, "api.md")
            assert json.loads(refused)["reason"] == "Unauthorized"


def test_rules_get_the_addresses_of_runbooks(tmp_path: Path) -> None:
    """The commands run in a checkout of the project."""
    with world(tmp_path / "world") as machine:
        machine.here = ROOT
        (rules,) = follow(machine, "runbooks/README.md")
    groups = yaml.safe_load(rules)["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["annotations"]["runbook_url"].startswith("https://git.example.com/")


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "howto").glob("*.md")), ids=lambda p: p.stem
)
def test_every_howto_is_followed_by_a_test(page: Path) -> None:
    """A new page needs a test of its own."""
    assert f'"howto/{page.name}"' in Path(__file__).read_text()
    assert "git" in SETTINGS
