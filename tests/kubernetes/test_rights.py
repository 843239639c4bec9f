"""Least privilege: the server's audit log shows that the daemon uses all that the chart grants."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from reconciler.builder.verify.dag_pods.runner import sweep
from reconciler.core.errors import GroundcrewError
from reconciler.core.phases import Step, Verdict
from tests.fakes.releases import CELERY, Release
from tests.harness.dag_builder import DagBench
from tests.harness.job_builder import JobBench
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import standing, used
from tests.kubernetes.test_chart import GRANTED


def test_everything_granted_in_airflows_namespaces_is_used(lab: Lab, tmp_path: Path) -> None:
    """A restart that fails with a log, a way back that deletes a pod, and one that hangs."""
    with standing(lab, tmp_path) as stand:
        stand.install(Release(executor=CELERY))
        stand.up()
        assert stand.perform(stand.activation(Step.OBSERVE)).verdict is Verdict.OK
        stand.change("worker", {"mode": "crashloop", "log": "boom\n"})
        assert stand.perform(stand.activation(), 20).verdict is Verdict.FAILED
        stand.change("worker", {"mode": "notready"})
        stand.instance = replace(stand.instance, probe_timeout=1.0)
        now = time.time()
        back = replace(stand.activation(Step.RESTART_BACK), restarted_at=now, step_since=now - 3600)
        assert stand.perform(back).verdict is Verdict.FAILED
        wait_for(
            lambda: used(lab, stand.user) == GRANTED["airflow"] or None,
            20,
            f"{used(lab, stand.user)} to be what is granted",
        )


def test_everything_granted_for_parsing_dags_is_used(lab: Lab, tmp_path: Path) -> None:
    """A Job that is refused a pod and one that ends, and the Jobs of an earlier daemon."""
    with DagBench(lab, tmp_path) as bench:
        build_id = bench.made(name="1")
        (bench.dags / "good.py").write_text("import acme_own\n")
        assert bench.check(build_id).seen == 1
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        lab.api.create("resourcequotas", bench.airflow, quota)
        wait_for(
            lambda: (lab.api.get("resourcequotas", bench.airflow, "none") or {}).get("status"),
            20,
            "the quota to be counted",
        )
        assert "exceeded quota" in bench.check(build_id).unseen
        sweep(bench.sessions, [("lab", bench.airflow)], print)
        there = used(lab, bench.user, bench.airflow)
        jobs = ("batch", "jobs", "")
        assert there.pop(jobs) == GRANTED["dags"][jobs]
        assert all(verbs <= GRANTED["airflow"][key] for key, verbs in there.items())


def test_everything_granted_for_builds_is_used(lab: Lab, tmp_path: Path) -> None:
    """A build whose Job is deleted, and the Jobs of an earlier daemon."""
    with JobBench(lab, tmp_path) as bench:
        own = bench.package("acme-own", {"acme_own.py": ""})
        bench.lock(bench.recipe(own))
        bench.sessions.sweep("lab")
        (session, *_) = bench.sessions._open.values()
        lab.api.delete("jobs", bench.namespace, session.name, {"propagationPolicy": "Background"})
        with contextlib.suppress(GroundcrewError):
            bench.lock(bench.recipe(own))
        assert session._over()
        assert session._startup._query_refusals() == []
        assert used(lab, bench.user) == GRANTED["builds"]
