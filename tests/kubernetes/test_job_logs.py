"""Logs of Jobs, with a real API server: live, cut in the middle, silent and quiet."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from reconciler.builder.executor.kubernetes.executor import JobExecutor
from reconciler.cluster.cluster import Cluster
from reconciler.core.errors import Cancelled, Retryable, Stalled
from tests.harness.job_builder import SLOW, JobBench, build_in_thread, text
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab

LIMIT = 5.0  # seconds of a request, which a silent log exceeds


def test_the_log_is_followed_while_the_build_runs(bench: JobBench) -> None:
    """The output of a build is in its log before the build has ended."""
    own = bench.package("acme-own", {"acme_own.py": ""}, preamble=SLOW)
    job = bench.job()
    thread = build_in_thread(bench, own, job)
    wait_for(lambda: "half way there" in text(job.log), 60, "the line in the log")
    assert thread.is_alive()
    job.cancelled.set()
    thread.join(300)
    assert isinstance(thread.error, Cancelled)
    wait_for(lambda: not bench.lab.kubelet.processes(bench.namespace), 20, "no process")


def test_a_log_that_was_cut_is_followed_again(bench: JobBench) -> None:
    """The API server restarts in the middle: later lines are live too, and none comes twice."""
    lines = "import time\nfor n in range(999): print('line', n, flush=True); time.sleep(0.5)\n"
    own, job = bench.package("acme-own", {"acme_own.py": ""}, preamble=lines), bench.job()
    thread = build_in_thread(bench, own, job)
    wait_for(lambda: "line 3\n" in text(job.log), 60, "the first lines")
    bench.lab.plane.restart_apiserver()
    there = text(job.log).count("line ")
    wait_for(lambda: text(job.log).count("line ") > there + 4, 60, "lines after the restart")
    assert thread.is_alive()
    job.cancelled.set()
    thread.join(300)
    said = [line for line in text(job.log).splitlines() if line.startswith("line ")]
    assert said == [f"line {n}" for n in range(len(said))]


def _follow(cluster: Cluster, namespace: str, pod: str) -> list[str]:
    """Return its log up to the end; retry what is refused at first, as a session does."""
    for _ in range(20):
        with suppress(Stalled):
            return list(cluster.follow(namespace, pod, "main"))
        time.sleep(0.5)
    raise AssertionError(f"the log of {pod} is refused")


def _answers(cluster: Cluster, namespace: str) -> bool:
    """Return True if the API server answers in time; on a busy machine it may not at once."""
    with suppress(Retryable):
        cluster.list("jobs", namespace)
        return True
    return False


def test_a_log_that_says_nothing_leaves_the_cluster_reachable(lab: Lab, tmp_path: Path) -> None:
    """Its first byte takes longer than any other answer may; other requests continue meanwhile."""
    with JobBench(lab, tmp_path, {"request_timeout": LIMIT}) as bench:
        spec = {"containers": [{"name": "main", "image": bench.image.reference}]}
        lab.api.create("pods", bench.namespace, {"metadata": {"name": "quiet"}, "spec": spec})
        ready = {"type": "Ready", "status": "True"}.items()
        wait_for(
            lambda: any(
                ready <= c.items()
                for p in lab.pods(bench.namespace)
                for c in p["status"].get("conditions", [])
            ),
            30,
            "the pod",
        )
        cluster = bench.clusters.of("lab")
        with ThreadPoolExecutor() as pool:
            heard = pool.submit(_follow, cluster, bench.namespace, "quiet")
            time.sleep(LIMIT + 2.0)
            wait_for(lambda: _answers(cluster, bench.namespace), 60, "an answer meanwhile")
            assert not heard.done(), (heard, lab.pods(bench.namespace))
            lab.api.delete("pods", bench.namespace, "quiet")
            assert heard.result(120) == []


def test_a_quiet_jobs_log_begins_at_once(bench: JobBench) -> None:
    """The worker prints a line before any command, so that the log request is answered."""
    job, executor = bench.job(), JobExecutor(bench.sessions, bench.image)
    folder = executor.scratch(job, harmless=True)
    executor.run(job, ["true"], work=folder, timeout=20, harmless=True, quiet=True)
    (pod,) = bench.lab.pods(bench.namespace, f"groundcrew.io/build={job.key}")
    name = pod["metadata"]["name"]
    assert bench.clusters.of("lab").logs(bench.namespace, name, "worker", tail=9) == "- ready\n"
    bench.builder.leave(job)
