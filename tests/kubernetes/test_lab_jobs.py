"""Checks that the laboratory's Jobs see, write, print and end as in a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.pod_status import LabImage
from tests.harness.kube_api import Json, path_of, wait_for
from tests.harness.laboratory import Lab


@pytest.fixture
def share(lab: Lab, space: str, tmp_path: Path) -> Path:
    """Return a directory that backs the claim `share` of the namespace."""
    share = tmp_path / "share"
    (share / "staging" / "one").mkdir(parents=True)
    (share / "staging" / "two").mkdir()
    lab.claim(space, "share", share)
    return share


def job(script: str, **spec: Any) -> Json:
    """Return a Job `work` of one shell script, with the share mounted as in the loader's pods."""
    mounts = spec.pop("mounts", [])
    seconds = spec.pop("deadline", 60)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work"},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 1,
                    "volumes": [
                        {"name": "share", "persistentVolumeClaim": {"claimName": "share"}},
                        {"name": "scratch", "emptyDir": {}},
                    ]
                    if mounts
                    else [],
                    "containers": [
                        {
                            "name": "main",
                            "image": "example/airflow:1",
                            "command": ["sh", "-c", script],
                            "volumeMounts": mounts,
                            **spec,
                        }
                    ],
                }
            },
        },
    }


def phase(lab: Lab, space: str, labels: str = "job-name=work") -> Json | None:
    """Return the first pod, once it has ended."""
    pods = lab.pods(space, labels)
    over = pods and pods[0].get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return pods[0] if over else None


def ended(lab: Lab, space: str) -> tuple[str, str]:
    """Return the phase in which the Job's pod ended, and its log."""
    pod = wait_for(lambda: phase(lab, space), 30, "the Job's pod to end")
    return pod["status"]["phase"], lab.log(space, pod)


def test_a_job_writes_where_its_subpath_is_and_nowhere_else(
    lab: Lab, space: str, share: Path
) -> None:
    """The share is read-only outside of it, and so is the root; the emptyDir is writable."""
    at = "/srv/groundcrew-lab"
    script = f"""
        echo fine > {at}/staging/one/result && echo staged
        echo no > {at}/staging/two/result || echo refused
        echo no > {at}/result || echo refused
        echo no > /etc/result || echo refused
        echo yes > /tmp/result && echo scratched
        ls /tmp; ls {share.parent} || echo hidden
    """
    mounts = [
        {"name": "share", "mountPath": at, "readOnly": True},
        {"name": "share", "mountPath": f"{at}/staging/one", "subPath": "staging/one"},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    lab.apply([job(script, mounts=mounts)], space)
    final_phase, text = ended(lab, space)
    assert final_phase == "Succeeded", text
    said = [line for line in text.splitlines() if not line.startswith(("sh:", "ls:"))]
    assert said == ["staged", *["refused"] * 3, "scratched", "result", "hidden"]
    assert (share / "staging/one/result").read_text() == "fine\n"
    assert not (share / "staging/two/result").exists()


def test_a_job_has_its_own_variables_and_its_images_programs(
    lab: Lab, space: str, tmp_path: Path
) -> None:
    """It has none of the machine's, and the image's `bin` is first in PATH."""
    program = tmp_path / "image" / "bin" / "python3"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho the interpreter of the image\n")
    program.chmod(0o755)
    lab.kubelet.images["example/airflow:1"] = LabImage(root=tmp_path / "image", uid=50001)
    env = [
        {"name": "ONE", "value": "1"},
        {"name": "BOTH", "value": "$(ONE)2"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    os.environ["LAB_LEAK"] = "yes"
    try:
        lab.apply([job("python3; id -u; env; pwd", env=env, workingDir="/usr")], space)
        text = ended(lab, space)[1]
    finally:
        del os.environ["LAB_LEAK"]
    lines = text.splitlines()
    assert lines[:2] == ["the interpreter of the image", "50001"]
    assert {"ONE=1", "BOTH=12", "/usr"} <= set(lines)
    assert any(line.startswith("NODE=lab-") for line in lines)
    assert "LAB_LEAK" not in text


def test_a_failing_command_fails_its_job(lab: Lab, space: str) -> None:
    """The terminated state has its exit code."""
    lab.apply([job("exit 7")], space)
    assert ended(lab, space)[0] == "Failed"
    state = lab.pods(space)[0]["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 7
    wait_for(lambda: job_condition(lab, space) == "Failed" or None, 20, "the Job to have failed")


def job_condition(lab: Lab, space: str) -> str:
    """Return the last condition of the Job."""
    current_job = lab.api.get("jobs", space, "work")
    conditions = (current_job or {}).get("status", {}).get("conditions", [])
    return str(conditions[-1]["type"]) if conditions else ""


def test_logs_can_be_followed(lab: Lab, space: str, tmp_path: Path) -> None:
    """Lines arrive while the command runs, and the stream ends with it."""
    gate = tmp_path / "gate"
    gate.mkdir()
    lab.claim(space, "share", gate)
    script = "echo first; until [ -e /gate/open ]; do sleep 0.05; done; echo last"
    mounts = [{"name": "share", "mountPath": "/gate", "readOnly": True}]
    lab.apply([job(script, mounts=mounts)], space)
    pod = running(lab, space)
    path = path_of("pods", space, pod["metadata"]["name"], "log")
    lines = lab.api.follow(f"{path}?follow=true")
    assert next(lines) == "first"
    assert phase(lab, space) is None
    (gate / "open").touch()
    assert list(lines) == ["last"]


def running(lab: Lab, space: str) -> Json:
    """Return the Job's pod once its command runs."""

    def found() -> Json | None:
        pods = lab.pods(space, "job-name=work")
        return next((p for p in pods if p["status"].get("phase") == "Running"), None)

    return wait_for(found, 30, "the Job's pod to run")


def no_process(lab: Lab, pid: int) -> Callable[[], bool | None]:
    """Return a check that is true once the process is gone."""
    return lambda: not Path(f"/proc/{pid}").exists() or None


STUBBORN = "trap '' TERM; echo up; while true; do sleep 0.1; done"


def test_a_deleted_jobs_process_ends(lab: Lab, space: str) -> None:
    """It ends even if it ignores SIGTERM, after its grace period; then the pod is gone."""
    lab.apply([job(STUBBORN)], space)
    running(lab, space)
    pids = lab.kubelet.processes(space)
    assert len(pids) == 1
    lab.api.delete("jobs", space, "work", {"propagationPolicy": "Background"})
    wait_for(no_process(lab, pids[0]), 20, "the process to end")
    wait_for(lambda: not lab.pods(space) or None, 20, "the pod to go")


def test_a_process_that_is_asked_to_end_can_say_goodbye(lab: Lab, space: str) -> None:
    """SIGTERM comes first, to process 1 of the container."""
    script = "trap 'echo goodbye; exit 3' TERM; echo up; while true; do sleep 0.05; done"
    lab.apply([job(script)], space)
    pod = running(lab, space)
    lines = lab.api.follow(path_of("pods", space, pod["metadata"]["name"], "log") + "?follow=true")
    assert next(lines) == "up"
    lab.api.delete("pods", space, pod["metadata"]["name"])
    assert list(lines) == ["goodbye"]


def test_a_job_past_its_deadline_is_ended(lab: Lab, space: str) -> None:
    """The real Job controller does it, with the reason DeadlineExceeded."""
    lab.apply([job(STUBBORN, deadline=2)], space)
    running(lab, space)
    pids = lab.kubelet.processes(space)
    wait_for(lambda: job_condition(lab, space) == "Failed" or None, 30, "the Job to have failed")
    failed_job = lab.api.get("jobs", space, "work")
    assert failed_job is not None
    assert {c["reason"] for c in failed_job["status"]["conditions"]} == {"DeadlineExceeded"}
    wait_for(no_process(lab, pids[0]), 20, "the process to end")


def test_an_evicted_pod_has_failed_and_its_process_is_gone(lab: Lab, space: str) -> None:
    """The reason is Evicted, which the Job counts as a failure."""
    lab.apply([job(STUBBORN)], space)
    pod, pids = running(lab, space), lab.kubelet.processes(space)
    lab.kubelet.evict(space, pod["metadata"]["name"])
    over = wait_for(lambda: phase(lab, space), 20, "the pod to have failed")
    assert (over["status"]["phase"], over["status"]["reason"]) == ("Failed", "Evicted")
    assert no_process(lab, pids[0])()
