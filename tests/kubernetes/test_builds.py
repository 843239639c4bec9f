"""Builds in Jobs of the instance's image, with a real API server and real controllers."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.executor.bubblewrap import LINE_LIMIT
from reconciler.builder.executor.kubernetes.executor import JobExecutor
from reconciler.core.definitions import SourcePackage
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from tests.fakes.base import make_base
from tests.fakes.pod_status import Behaviour, LabImage
from tests.harness.builder import PASSWORD, holding
from tests.harness.job_builder import SLOW, JobBench, build_in_thread, text
from tests.harness.kube_api import Json, wait_for
from tests.harness.laboratory import Lab
from tests.harness.wheels import make_wheel


def test_the_whole_way_of_a_build(bench: JobBench) -> None:
    """An in-repo package and a private wheel are resolved, built, compiled and verified in pods."""
    make_wheel(bench.private.folder, "acme-lib", "1.0", {"acme_lib/__init__.py": "x = 1\n"})
    own = bench.package("acme-own", {"acme_own/__init__.py": "import acme_lib\n"})
    recipe, job = bench.recipe(own, "acme-lib", indexes=(bench.corp(),)), bench.job()
    built = bench.build(recipe, job)
    assert dict(built.packages) == {"acme-lib": "1.0", "acme-own": "1.0"}
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert verified.report["modules"] == 2
    assert list((bench.share.root / "store").rglob("*.pyc"))
    bench.builder.leave(job)
    wait_for(lambda: not bench.jobs(), 20, "the Jobs to be gone")
    assert not list((bench.share.root / "staging").iterdir())


def test_a_job_is_given_the_pins_and_variables_of_the_build(bench: JobBench) -> None:
    """A backend in a pod gets the pinned build requirement and the variable, as in the sandbox."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "helper", version)
    seen = "import helper, os\nSEEN = f\"{helper.__version__} {os.environ.get('CFLAGS')}\"\n"
    seen += "open('acme_own/seen.py', 'w').write(SEEN)\n"
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=seen)
    project = bench._trees[own.tree] / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["helper"]'))
    given = {"build_constraints": ("helper<2",), "build_env": (("CFLAGS", "-O1"),)}
    job = bench.job()
    pinned = bench.build(bench.recipe(own, **given), job)
    assert bench.paths(pinned)["acme_own/seen.py"] == "1.0 -O1"
    newest = bench.build(bench.recipe(own), job)
    assert bench.paths(newest)["acme_own/seen.py"] == "2.0 None"


def test_the_inventory_is_the_images_and_asked_once(bench: JobBench) -> None:
    """The runtime is that of the interpreter in the pod; a known image starts no Job."""
    assert bench.runtime.image == bench.image
    assert Path(bench.runtime.python).parent == Path(bench.python).parent
    assert bench.runtime.airflow_version
    wait_for(lambda: not bench.jobs(), 20, "the Job of the inspection to be gone")
    assert bench.images.inspect(bench.image, "blue") == bench.runtime
    assert not bench.jobs()


def test_a_job_has_no_secret_and_writes_to_its_folder_only(bench: JobBench) -> None:
    """A build script finds neither credentials nor a token, and cannot write outside its folder."""
    make_wheel(bench.private.folder, "acme-lib", "1.0", {"acme_lib.py": ""})
    share = bench.share.root
    probe = (
        "import os, pathlib\n"
        f"for place in ({str(share / 'store')!r}, {str(share / 'instances')!r}, '/'):\n"
        "    try:\n"
        "        pathlib.Path(place, 'planted').write_text('x'); print('WROTE', place)\n"
        "    except OSError as error:\n"
        "        print('refused', place, error.strerror)\n"
        "print('token:', os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token'))\n"
        "print('uid:', os.getuid())\n"
        f"print({PASSWORD!r} in repr(dict(os.environ)), 'in the environment')\n"
    )
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=probe)
    job = bench.job()
    bench.build(bench.recipe(own, "acme-lib", indexes=(bench.corp(),)), job)
    log = job.log.read_text()
    assert "WROTE" not in log
    assert log.count("refused") >= 3
    assert "token: False" in log
    assert "uid: 50000" in log
    assert "False in the environment" in log
    assert not holding(PASSWORD, share)


@pytest.mark.parametrize("loss", ["job", "pod", "evicted", "node"])
def test_a_lost_job_is_done_again_in_a_new_one(bench: JobBench, loss: str) -> None:
    """Whoever ends a running Job: the build reports that, and the same build then succeeds."""
    marker = bench.share.root / "slow"
    marker.touch()
    once = (
        "import os, time\nprint('begun', flush=True)\n"
        f"if os.path.exists({str(marker)!r}): time.sleep(90)\n"
    )
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=once)
    job = bench.job()
    thread = build_in_thread(bench, own, job)
    wait_for(lambda: "begun" in text(job.log), 60, "the build script to run")
    _lose(bench, loss)
    thread.join(300)
    assert isinstance(thread.error, Retryable), thread.error
    assert thread.error.reason == Reason.JOB_LOST
    marker.unlink()
    if loss == "node":
        bench.lab.kubelet.restore(bench.lost)
    assert bench.build(bench.recipe(own), job).packages == (("acme-own", "1.0"),)


@pytest.mark.parametrize("end", ["memory", "disk", "deadline"])
def test_what_would_end_every_job_is_for_a_person(lab: Lab, tmp_path: Path, end: str) -> None:
    """If it lacks memory, disk space or time, the build fails and names the setting."""
    settings: dict[str, Any] = {"deadline": 40} if end == "deadline" else {}
    with JobBench(lab, tmp_path, **settings) as bench:
        own, job = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW), bench.job()
        thread = build_in_thread(bench, own, job)
        wait_for(lambda: "half way there" in text(job.log), 60, "the build script to run")
        (pod,) = [p for p in lab.pods(bench.namespace) if p["status"].get("phase") == "Running"]
        if end == "memory":
            lab.kubelet.out_of_memory(bench.namespace, pod["metadata"]["name"])
        elif end == "disk":
            said = 'Usage of EmptyDir volume "scratch" exceeds the limit "8Gi". '
            life = lab.kubelet.life(bench.namespace, pod["metadata"]["name"])
            life.end("Failed", "Evicted", said)
        thread.join(300)
        assert isinstance(thread.error, Stalled), thread.error
        setting = {"memory": "memory", "disk": "scratch", "deadline": "deadline"}[end]
        assert f"kubernetes.jobs.{setting}" in thread.error.message
        wait_for(lambda: not bench.jobs(), 20, "the Jobs to be gone")


@pytest.mark.parametrize("behaviour", [Behaviour("imagepull"), Behaviour("configerror")])
def test_a_pod_that_cannot_start_says_why(lab: Lab, tmp_path: Path, behaviour: Behaviour) -> None:
    """An image that cannot be pulled, or a missing secret, is reported early in kubelet's words."""
    lab.kubelet.behave = lambda pod: behaviour
    begun = time.monotonic()
    try:
        with pytest.raises(Retryable) as caught, JobBench(lab, tmp_path):
            pass
    finally:
        lab.kubelet.behave = lambda pod: None
    assert time.monotonic() - begun < 60
    assert caught.value.reason == Reason.JOB_NOT_STARTED
    expected = {"imagepull": "ImagePullBackOff", "configerror": "CreateContainerConfigError"}
    assert expected[behaviour.mode] in caught.value.message


@pytest.mark.parametrize("refusal", ["quota", "policy"])
def test_a_pod_that_is_refused_says_why(lab: Lab, tmp_path: Path, refusal: str) -> None:
    """A used-up quota or a limit range is reported early, in the words of the Job's event."""
    space: dict[str, Json] = {
        "quota": {"kind": "resourcequotas", "spec": {"hard": {"pods": "0"}}},
        "policy": {
            "kind": "limitranges",
            "spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]},
        },
    }
    asked = space[refusal]

    class Refused(JobBench):
        def inspect(self) -> Runtime:
            body = {"metadata": {"name": "one"}, "spec": asked["spec"]}
            lab.api.create(asked["kind"], self.namespace, body)
            if refusal == "quota":
                wait_for(
                    lambda: lab.api.get(asked["kind"], self.namespace, "one").get("status"),  # type: ignore[union-attr]
                    20,
                    "the quota to be counted",
                )
            return super().inspect()

    begun = time.monotonic()
    with pytest.raises(Retryable) as caught, Refused(lab, tmp_path):
        pass
    assert time.monotonic() - begun < 60
    assert caught.value.reason == Reason.JOB_NOT_STARTED
    expected = {"quota": "exceeded quota", "policy": "maximum memory usage"}
    assert expected[refusal] in caught.value.message


def test_one_job_answers_all_that_ask_for_an_image(bench: JobBench) -> None:
    """Ten instances with the same image get the inventory from a single Job."""
    shutil.rmtree(bench.images.cache / "inventories")
    with _counting(bench) as counted, ThreadPoolExecutor(10) as pool:
        inventories = list(pool.map(lambda _: bench.images.inspect(bench.image, "red"), range(10)))
    assert inventories == [bench.runtime] * 10
    assert len(counted.names) == 1


def test_an_image_of_a_thousand_distributions_that_warns_is_inspected(
    bench: JobBench, tmp_path: Path
) -> None:
    """Its inventory is far longer than a line of a log may be, and its Python prints warnings."""
    others = {f"acme-distribution-number-{number}": "1.0" for number in range(1000)}
    make_base(tmp_path / "image", others)
    (site,) = (tmp_path / "image").glob("lib/python3*/site-packages")
    for info in site.glob("acme_*.dist-info"):
        needs = "".join(f"Requires-Dist: acme-{n}>=1.0; extra == 'e{n}'\n" for n in range(5))
        with (info / "METADATA").open("a") as file:
            file.write(needs)
    (site / "sitecustomize.py").write_text(
        "import sys\nprint('{}')\nsys.stderr.write('DeprecationWarning: fork\\n' * 1000)\n"
    )
    image = replace(bench.image, reference="example.test/large:1", id="example.test/large:1")
    bench.lab.kubelet.images[image.reference] = LabImage(root=tmp_path / "image")
    runtime = bench.images.inspect(image, "red")
    assert len(runtime.base) == 1001
    (kept,) = (
        k for k in (bench.images.cache / "inventories").iterdir() if "number-7" in k.read_text()
    )
    assert kept.stat().st_size > 4 * LINE_LIMIT


def test_an_inventory_of_an_earlier_version_is_asked_for_anew(bench: JobBench) -> None:
    """One without a listing cannot tell this base from others: it is not kept for ever."""
    (kept,) = (bench.images.cache / "inventories").glob("*.json")
    inventory = json.loads(kept.read_text())
    assert inventory.pop("listing")
    kept.write_text(json.dumps(inventory))
    assert bench.images.inspect(bench.image, "red").listing
    assert json.loads(kept.read_text())["listing"]


def test_jobs_at_once_are_bounded(lab: Lab, tmp_path: Path) -> None:
    """Builds with commands of both kinds, and inspections, all finish with space for one Job."""
    with JobBench(lab, tmp_path, limits={"parallel_builds": 1}) as bench:
        own = [bench.package(f"acme-{n}", {f"acme_{n}.py": ""}) for n in range(3)]
        images = [replace(bench.image, id=f"another-{n}") for n in range(3)]
        with _counting(bench) as counted, ThreadPoolExecutor(6) as pool:
            builds = [pool.submit(_whole_build, bench, one) for one in own]
            asked = [pool.submit(bench.images.inspect, image, "blue") for image in images]
            futures: list[Future[Any]] = [*builds, *asked]
            for future in futures:
                future.result(240)
        assert len(counted.names) >= 9
        assert counted.most == 1


def test_a_job_at_rest_stays_while_the_other_works(lab: Lab, tmp_path: Path) -> None:
    """One Job's command takes longer than `idle`: the build's other Job is not ended."""
    with JobBench(lab, tmp_path, idle=6) as bench:
        slow = "import time; time.sleep(15)\n"
        own, job = bench.package("acme-own", {"acme_own.py": ""}, preamble=slow), bench.job()
        executor = JobExecutor(bench.sessions, bench.image)
        folder = executor.scratch(job, harmless=True)
        executor.run(job, ["true"], work=folder, timeout=20, harmless=True)
        bench.build(bench.recipe(own), job)
        assert folder.is_dir()
        bench.builder.leave(job)


def test_nothing_is_made_where_the_share_should_be(bench: JobBench) -> None:
    """The disk below a mount point stays empty, and the build is tried again."""
    away = bench.share.root.with_name("away")
    bench.share.root.rename(away)
    bench.share.root.mkdir()
    try:
        for start in (
            lambda: bench.build(bench.recipe(bench.package("acme-own", {"acme_own.py": ""}))),
            lambda: bench.sessions.apart(bench.job(), bench.image, "acme").__enter__(),
        ):
            with pytest.raises(Retryable) as caught:
                start()
            assert caught.value.reason == Reason.SHARE_MISSING
        assert not list(bench.share.root.iterdir())
    finally:
        bench.share.root.rmdir()
        away.rename(bench.share.root)


def test_a_conflict_is_told_as_on_this_machine(bench: JobBench) -> None:
    """The resolver's explanation comes back from the pod, at the requirement's line."""
    own = bench.package("acme-own", {"acme_own.py": ""}, requires=("apache-airflow<1",))
    with pytest.raises(Stalled) as caught:
        bench.lock(bench.recipe(own))
    assert caught.value.reason == Reason.RESOLUTION_CONFLICT


def test_a_new_leader_ends_the_jobs_of_the_old(bench: JobBench) -> None:
    """A Job that a killed daemon left is ended, and its folder is removed."""
    job = bench.job()
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
    thread = build_in_thread(bench, own, job)
    wait_for(lambda: "half way" in text(job.log), 60, "the build script to run")
    bench.sessions._stop.set()  # as if killed: no more heartbeats, and no memory of its Jobs
    left, bench.sessions._open = dict(bench.sessions._open), {}
    assert left
    forgotten = bench.share.root / "staging" / "groundcrew-whose-job-is-gone"
    forgotten.mkdir()
    bench.sessions.sweep("lab")
    bench.sessions.tidy()
    wait_for(lambda: not bench.jobs(), 30, "the Jobs to be gone")
    assert not list((bench.share.root / "staging").iterdir())
    thread.join(300)
    assert isinstance(thread.error, Retryable)


def test_a_job_ends_by_itself_without_its_daemon(lab: Lab, tmp_path: Path) -> None:
    """Without a sign of the daemon the worker ends, and Kubernetes removes the Job."""
    with JobBench(lab, tmp_path, idle=2, ttl=0) as bench:
        bench.sessions._stop.set()
        job = bench.job()
        own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
        thread = build_in_thread(bench, own, job)
        thread.join(300)
        assert isinstance(thread.error, Retryable)
        wait_for(lambda: not bench.jobs(), 30, "the Job to be forgotten")


def _lose(bench: JobBench, loss: str) -> None:
    api, space = bench.lab.api, bench.namespace
    (pod,) = [p for p in bench.lab.pods(space) if p["status"].get("phase") == "Running"]
    name = pod["metadata"]["name"]
    if loss == "job":
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        api.delete("jobs", space, job, {"propagationPolicy": "Background"})
    elif loss == "pod":
        api.delete("pods", space, name)
    elif loss == "evicted":
        bench.lab.kubelet.evict(space, name)
    else:
        bench.lost = pod["spec"]["nodeName"]
        bench.lab.kubelet.lose(bench.lost)


@dataclass
class _Counted:
    """The Jobs seen on a server: all of them, and the largest number at once."""

    names: set[str] = field(default_factory=set)
    most: int = 0


@contextmanager
def _counting(bench: JobBench) -> Iterator[_Counted]:
    """Count the Jobs on the API server during the block."""
    counted, over = _Counted(), threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            names = bench.jobs()
            counted.names |= set(names)
            counted.most = max(counted.most, len(names))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        over.set()
        thread.join(300)


def _whole_build(bench: JobBench, own: SourcePackage) -> None:
    job = bench.job()
    try:
        bench.build(bench.recipe(own), job)
    finally:
        bench.builder.leave(job)
