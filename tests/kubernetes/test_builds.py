"""Builds in Jobs of the instance's image, through a real API server and real controllers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.errors import Cancelled, Retryable, Stalled
from tests.fakes.bench import PASSWORD, holding
from tests.fakes.jobbench import JobBench
from tests.fakes.kubeapi import Json, wait_for
from tests.fakes.lab import Lab
from tests.fakes.podstatus import Behaviour
from tests.fakes.wheels import make_wheel

SLOW = "import time; print('half way there', flush=True); time.sleep(60)\n"


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[JobBench]:
    with JobBench(lab, tmp_path) as bench:
        yield bench


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


def test_the_inventory_is_the_images_and_asked_once(bench: JobBench) -> None:
    """The runtime is that of the interpreter in the pod; an image that is known starts no Job."""
    assert bench.runtime.image == bench.image
    assert Path(bench.runtime.python).parent == Path(bench.python).parent
    assert bench.runtime.airflow_version
    wait_for(lambda: not bench.jobs(), 20, "the Job of the inspection to be gone")
    assert bench.images.inspect(bench.image, "blue") == bench.runtime
    assert not bench.jobs()


def test_a_job_has_no_secret_and_writes_to_its_folder_only(bench: JobBench) -> None:
    """A build script finds neither credentials nor a token, and cannot write beside its folder."""
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


def test_the_log_is_followed_while_the_build_runs(bench: JobBench) -> None:
    """What a build prints is in its log before the build has ended."""
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
    job = bench.job()
    thread = _build_in_thread(bench, own, job)
    wait_for(lambda: "half way there" in _text(job.log), 60, "the line in the log")
    assert thread.is_alive()
    job.cancelled.set()
    thread.join(30)
    assert isinstance(thread.error, Cancelled)
    wait_for(lambda: not bench.lab.kubelet.processes(bench.namespace), 20, "no process")


@pytest.mark.parametrize("loss", ["job", "pod", "evicted", "node"])
def test_a_lost_job_is_done_again_in_a_new_one(bench: JobBench, loss: str) -> None:
    """Whoever ends a Job in the middle: the build says so, and the same build then succeeds."""
    marker = bench.share.root / "slow"
    marker.touch()
    once = (
        "import os, time\nprint('begun', flush=True)\n"
        f"if os.path.exists({str(marker)!r}): time.sleep(90)\n"
    )
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=once)
    job = bench.job()
    thread = _build_in_thread(bench, own, job)
    wait_for(lambda: "begun" in _text(job.log), 60, "the build script to run")
    _lose(bench, loss)
    thread.join(60)
    assert isinstance(thread.error, Retryable), thread.error
    assert thread.error.reason == "JobLost"
    marker.unlink()
    if loss == "node":
        bench.lab.kubelet.restore(bench.lost)
    assert bench.build(bench.recipe(own), job).packages == (("acme-own", "1.0"),)


def test_a_pod_that_cannot_start_says_why(lab: Lab, tmp_path: Path) -> None:
    """An image that cannot be pulled ends the wait with the kubelet's words."""
    lab.kubelet.behave = _unpullable
    try:
        with pytest.raises(Retryable) as caught, JobBench(lab, tmp_path, start_timeout=5):
            pass
    finally:
        lab.kubelet.behave = lambda pod: None
    assert caught.value.reason == "JobNotStarted"
    assert "ImagePullBackOff" in caught.value.message


def test_a_conflict_is_told_as_on_this_machine(bench: JobBench) -> None:
    """The resolver's explanation comes back from the pod, at the requirement's line."""
    own = bench.package("acme-own", {"acme_own.py": ""}, requires=("apache-airflow<1",))
    with pytest.raises(Stalled) as caught:
        bench.lock(bench.recipe(own))
    assert caught.value.reason == "Conflict"


def test_a_new_leader_ends_the_jobs_of_the_old(bench: JobBench) -> None:
    """A Job that a killed daemon left is ended, and its folder is removed."""
    job = bench.job()
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
    thread = _build_in_thread(bench, own, job)
    wait_for(lambda: "half way" in _text(job.log), 60, "the build script to run")
    bench.sessions._stop.set()  # as if killed: it beats no more and forgets what it had
    left, bench.sessions._open = dict(bench.sessions._open), {}
    assert left
    forgotten = bench.share.root / "staging" / "groundcrew-whose-job-is-gone"
    forgotten.mkdir()
    bench.sessions.sweep("lab")
    bench.sessions.tidy()
    wait_for(lambda: not bench.jobs(), 30, "the Jobs to be gone")
    assert not list((bench.share.root / "staging").iterdir())
    thread.join(60)
    assert isinstance(thread.error, Retryable)


def test_a_job_ends_by_itself_without_its_daemon(lab: Lab, tmp_path: Path) -> None:
    """When nothing is heard of the daemon the worker ends, and Kubernetes forgets the Job."""
    with JobBench(lab, tmp_path, idle=2, ttl=0) as bench:
        bench.sessions._stop.set()
        job = bench.job()
        own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
        thread = _build_in_thread(bench, own, job)
        thread.join(60)
        assert isinstance(thread.error, Retryable)
        wait_for(lambda: not bench.jobs(), 30, "the Job to be forgotten")


class _Build(threading.Thread):
    def __init__(self, bench: JobBench, recipe: object, job: object) -> None:
        super().__init__(daemon=True)
        self.bench, self.recipe, self.job = bench, recipe, job
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.bench.build(self.recipe, self.job)  # type: ignore[arg-type]
        except BaseException as error:
            self.error = error


def _build_in_thread(bench: JobBench, own: object, job: object) -> _Build:
    thread = _Build(bench, bench.recipe(own), job)  # type: ignore[arg-type]
    thread.start()
    return thread


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


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


def _unpullable(pod: Json) -> Behaviour:
    del pod
    return Behaviour(mode="imagepull")
