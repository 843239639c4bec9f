"""Instances on Kubernetes from end to end: a commit, Jobs, rollouts, the gate, and the way back.

The daemon is a separate process; API server, controllers and scheduler are real; pods of releases
run a small stand-in for Airflow under the real loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reconciler.core.event_codec import data_of
from reconciler.core.model import InstanceRecord
from reconciler.core.phases import BuildPhase, Step
from reconciler.core.reasons import Reason
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.base import make_base
from tests.fakes.releases import CELERY, Release
from tests.harness.cluster_daemon import BAD_LIVE, KubeSite, Place
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import used

LIMIT = 20
SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(6)\n"


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[KubeSite]:
    with KubeSite(lab, tmp_path) as site:
        yield site


def test_from_commit_to_active_and_back(site: KubeSite) -> None:
    """Two namespaces, 2.x with Celery and 3.x; then an image change; then a build that crashes."""
    red = site.instance("red-dev", "red", Release(version="2.11.0", executor=CELERY))
    blue = site.instance("blue-dev", "blue", Release(version="3.1.0", persistence=False))
    site.environment("red", "red-dev", version="1.0")
    site.environment("blue", "blue-dev", version="1.0")
    site.commit()
    with site.daemon():
        for name in ("red-dev", "blue-dev"):
            site.active(name, "1.0", seconds=180)
        everything = {"scheduler": "1.0", "triggerer": "1.0"}
        for name, more in (
            ("red-dev", ("webserver", "worker")),
            ("blue-dev", ("api-server", "dag-processor")),
        ):
            wanted = everything | dict.fromkeys(more, "1.0")
            wait_for(lambda n=name, w=wanted: site.loaded(n) == w, 60, "all to say it")  # type: ignore[misc]
        paused = {name for name, slots in red.airflow.state.patched if slots == 0}
        assert paused == {"default_pool", "small"}  # Celery's tasks run in components that restart
        assert not blue.airflow.state.patched  # tasks have their own pods
        assert red.airflow.state.pools["default_pool"] == 128

        starts = len(blue.airflow.state.loaded)
        site.environment("red", "red-dev", version="2.0", text=BAD_LIVE)
        site.commit("breaks")
        record = site.until("red-dev", lambda r: r.quarantines and r.activation is None, "back")
        assert record.last is not None
        assert record.last.problem is not None
        assert record.last.problem.reason == Reason.CRASH_LOOP
        assert "acme does not start" in record.last.problem.message
        site.active("red-dev", "1.0")
        assert set(site.loaded("red-dev").values()) == {"1.0"}
        assert red.airflow.state.pools["default_pool"] == 128
        assert site.record("blue-dev") is not None
        assert len(blue.airflow.state.loaded) == starts  # the other team's did not restart
    wait_for(lambda: not site.lab.api.list("jobs", site.builds), 30, "no Job is left")
    assert ("apps", "deployments", "") in used(site.lab, site.user)  # and no request was refused


def test_an_image_that_changes_is_resolved_for_anew(site: KubeSite) -> None:
    """The watch sees it; the pointer then has builds for both, and misfits are reported."""
    instance = site.instance("blue-dev", "blue", Release(version="3.1.0"))
    site.environment("blue", "blue-dev", version="1.0")
    site.commit()
    with site.daemon():
        before = site.active("blue-dev", "1.0", seconds=120)
        upgrade(site, instance, "example.test/blue-dev:same", site.root / "base")
        same = site.until("blue-dev", lambda r: image_of(r) != image_of(before), "the image")
        assert image_of(same).startswith("example.test/blue-dev@sha256:")
        assert same.current.runtime == before.current.runtime
        assert same.current.build == before.current.build

        make_base(site.root / "newer", {"acme-other": "2.0"})
        upgrade(site, instance, "example.test/blue-dev:newer", site.root / "newer")
        upgraded = site.until(
            "blue-dev",
            lambda r: r.current.runtime not in (None, before.current.runtime) and not r.activation,
            "active on the new runtime",
        )
        pointer = site.share.pointer("blue-dev")
        assert pointer is not None
        assert set(pointer.builds) == {before.current.runtime, upgraded.current.runtime}

        make_base(site.root / "unfit", {"acme": "9.0"})
        upgrade(site, instance, "example.test/blue-dev:unfit", site.root / "unfit")
        wait_for(lambda: unfit_words(site), 60, "what no longer fits")
        assert "9.0" in unfit_words(site)
        assert site.share.pointer("blue-dev") == pointer  # the existing pointer stays


def test_a_commit_during_an_upgrade_is_built_for_the_new_image_only(site: KubeSite) -> None:
    """While pods of both images run, nothing is built or activated for the outgoing one."""
    instance = site.instance("blue-dev", "blue", Release(version="3.1.0"))
    site.environment("blue", "blue-dev", version="1.0")
    site.commit()
    with site.daemon():
        before = site.active("blue-dev", "1.0", seconds=120)
        assert "ActivationAborted" not in site.events()
        make_base(site.root / "newer", {"acme-other": "2.0"})
        given = instance.release.annotations
        slow = {"scheduler": {**given.get("scheduler", {}), "lab/ready-after": "12"}}
        instance.release = replace(instance.release, annotations={**given, **slow})
        upgrade(site, instance, "example.test/blue-dev:newer", site.root / "newer")
        site.until(
            "blue-dev", lambda r: r.problem and r.problem.reason == Reason.MIXED_IMAGES, "the mix"
        )
        site.environment("blue", "blue-dev", version="2.0")
        site.commit()
        after = site.active("blue-dev", "2.0", seconds=120)
    assert after.current.runtime != before.current.runtime
    history = site.store().events(limit=1000)
    begun = [data_of(e)["to"] for e in history if e.kind == "ActivationStarted"]
    assert begun.count(after.current.build) == 1
    assert not {b for b in begun if b} - {
        before.current.build,
        after.current.build,
        *older(site, "1.0"),
    }
    new = [b for b in site.store().load().builds.values() if ("acme", "2.0") in b.packages]
    assert {b.runtime_key for b in new} == {after.current.runtime}


def older(site: KubeSite, version: str) -> set[str | None]:
    """Return the builds of an earlier version, of any runtime."""
    builds = site.store().load().builds.values()
    return {b.build_id for b in builds if ("acme", version) in b.packages}


def unfit_words(site: KubeSite) -> str:
    """Return the reason why a build failed."""
    failed = [b for b in site.store().load().builds.values() if b.phase is BuildPhase.FAILED]
    return failed[0].problem.message if failed and failed[0].problem else ""


def image_of(record: InstanceRecord) -> str:
    """Return the reference of the image in a record."""
    image = record.runtime.image if record.runtime else None
    return image.reference if image else ""


def upgrade(site: KubeSite, place: Place, reference: str, base: Path) -> None:
    """Upgrade the release to another image, as a person would."""
    site.image(reference, base)
    place.release = replace(place.release, image=reference)
    site.lab.apply(place.release.manifests(place.namespace))


def test_a_cluster_that_is_away_delays_only_its_own_instances(site: KubeSite) -> None:
    """Its instances report that; the others become active."""
    site.instance("red-dev", "red", Release(version="3.1.0"))
    away = site.definition(site.places["red-dev"])
    away["metadata"]["name"] = "blue-far"
    away["spec"]["team"] = "blue"
    away["spec"]["kubernetes"]["context"] = "far"
    site.write("instances/blue-far.yaml", away)
    site.environment("red", "red-dev", version="1.0")
    site.environment("blue", "blue-far", version="1.0")
    site.commit()
    site.grant()
    config = yaml.safe_load(site.kubeconfig.read_text())
    (cluster,) = config["clusters"]
    far = {"name": "far", "cluster": {**cluster["cluster"], "server": "https://127.0.0.1:1"}}
    config["clusters"].append(far)
    config["contexts"].append({"name": "far", "context": {"cluster": "far", "user": "lab"}})
    site.kubeconfig.write_text(yaml.safe_dump(config))
    with site.daemon():
        site.active("red-dev", "1.0")
        record = site.until("blue-far", lambda r: r.problem, "a problem")
        assert record.problem is not None
        assert record.problem.reason == Reason.CLUSTER_UNREACHABLE
        assert "cluster far" in record.problem.message
        site.environment("red", "red-dev", version="2.0")
        site.commit()
        site.active("red-dev", "2.0")


def test_a_daemon_killed_in_the_middle_of_a_build(site: KubeSite) -> None:
    """The next one ends the remaining Job, and builds in a new one."""
    site.instance("red-dev", "red", Release(version="3.1.0"))
    site.environment("red", "red-dev", version="1.0", preamble=SLOW)
    site.commit()
    with site.daemon() as first:
        wait_for(lambda: site.lab.kubelet.processes(site.builds), 60, "an inventory's Job")
        wait_for(lambda: "begun" in building(site), 60, "the build script to run")
        (left,) = {j["metadata"]["name"] for j in site.lab.api.list("jobs", site.builds)}
        first.kill()
        first.wait()
    with site.daemon():
        site.active("red-dev", "1.0", seconds=120)
        assert not site.lab.api.get("jobs", site.builds, left)
    wait_for(lambda: not site.lab.api.list("jobs", site.builds), 30, "no Job is left")


def building(site: KubeSite) -> str:
    """Return the text of all build logs."""
    return "".join(path.read_text() for path in (site.root / "state" / "logs").glob("*.log"))


def test_a_namespace_that_goes_in_the_middle_and_comes_back(lab: Lab, tmp_path: Path) -> None:
    """The other instance continues; the lost one is activated once its release is back."""
    with KubeSite(lab, tmp_path, played=True) as site:
        lost = site.instance("red-lost", "red", Release(version="3.1.0"))
        site.instance("red-kept", "red", Release(version="2.11.0"))
        site.environment("red", "red-lost", "red-kept", version="1.0")
        site.commit()
        with site.daemon():
            site.active("red-lost", "1.0")
            site.active("red-kept", "1.0")
            site.environment("red", "red-lost", "red-kept", version="2.0")
            site.commit()
            site.until("red-lost", lambda r: r.activation and r.activation.step is Step.RESTART, "")
            lab.drop(lost.namespace)
            site.active("red-kept", "2.0")
            wait_for(lambda: not lab.api.get("namespaces", "", lost.namespace), 60, "its end")
            lab.api.create("namespaces", "", {"metadata": {"name": lost.namespace}})
            site.connect(lost)
            site.active("red-lost", "2.0", seconds=120)


@pytest.mark.timeout(1200)
def test_a_hundred_instances_roll_within_the_limit(lab: Lab, tmp_path: Path) -> None:
    """One commit for all of them causes one build, and never more activations than the limit."""
    with KubeSite(lab, tmp_path, played=True) as site, FakeAirflow("2") as airflow:
        space = lab.namespace("many")
        names = [f"red-{number:03}" for number in range(100)]
        slim = Release(version="2.11.0", statsd=False, persistence=False)
        site.more = {"kubernetes": {"clusters": {"in-cluster": {"parallel_activations": LIMIT}}}}
        for name in names:
            site.instance(name, "red", replace(slim, name=name), space, airflow)
        site.environment("red", *names, version="1.0")
        site.commit()
        with site.daemon():
            for name in names:
                site.active(name, "1.0", seconds=900)
        running = most = 0
        for event in site.store().events(limit=5000):  # the limit is of those not yet watched
            running += event.kind == "ActivationStarted"
            running -= event.kind == "ActivationPhase" and data_of(event)["phase"] == "Probing"
            most = max(most, running)
        assert LIMIT // 2 < most <= LIMIT
        assert len({b.build_id for b in site.store().load().builds.values()}) == 1
        assert not [e for e in site.store().events(limit=5000) if e.kind == "RolledBack"]
