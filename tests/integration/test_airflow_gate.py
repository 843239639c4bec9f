"""The gate of the local driver, which decides if a restart worked, against the fake Airflow."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow import local
from reconciler.airflow.declared import Declarations, Declared
from reconciler.airflow.local import DOWN_LOOKS, LocalDriver
from reconciler.core.errors import Retryable
from reconciler.core.model import Problem
from reconciler.core.phases import Step
from reconciler.core.reasons import Reason
from reconciler.settings import LocalSettings
from reconciler.share.schemas import BuildDocument, Distribution, PathRow
from tests.fakes.activations import loading
from tests.fakes.airflow_rest import PASSWORD
from tests.harness.local_driver import FAILED, NOT_YET, OK, Rig, problem, python


def test_after_a_restart_that_worked_the_gate_is_open(rig: Rig) -> None:
    """Heartbeats are fresh, DAGs were parsed again, and there is no new error."""
    rig.do(Step.OBSERVE)
    rig.restart()
    assert rig.do(Step.PROBE) == OK
    assert rig.do(Step.PROBE_BACK) == OK


def test_a_clock_that_is_set_back_while_probing_does_not_close_the_gate(rig: Rig) -> None:
    """Reports that are newer than the first probe count, even if the recorded time is later."""
    rig.do(Step.OBSERVE)
    rig.restart()
    rig.activation = replace(rig.activation, restarted_at=time.time() + 3600)
    assert rig.do(Step.PROBE) == OK


@pytest.mark.parametrize("component", ["scheduler", "triggerer", "dag-processor"])
def test_heartbeats_older_than_the_restart_are_not_healthy(rig: Rig, component: str) -> None:
    """A healthy report about the old process does not open the gate."""
    rig.airflow.state.restarts[component] = "silent"
    rig.restart()
    result = rig.do(Step.PROBE)
    assert (result.verdict, problem(result).reason) == (NOT_YET, Reason.UNHEALTHY)
    assert problem(result).message == f"{component} has not reported since its restart"


@pytest.mark.parametrize("section", ["metadatabase", "scheduler", "triggerer", "dag_processor"])
def test_never_healthy_is_a_gate_timeout(rig: Rig, section: str) -> None:
    """The step is unfinished until the deadline, then fails with the section's name."""
    rig.restart()
    rig.airflow.state.unhealthy = {section}
    assert rig.do(Step.PROBE, after=59).verdict is NOT_YET
    result = rig.do(Step.PROBE, after=61)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.GATE_TIMEOUT)
    assert "not healthy within 60 s" in problem(result).message
    named = "metadata database" if section == "metadatabase" else section.replace("_", "-")
    assert named in problem(result).message


@pytest.mark.parametrize("fault", ["drop", "401", "html", "500"])
def test_an_api_that_stays_away_is_a_gate_timeout(rig: Rig, fault: str) -> None:
    """An API may do anything while it starts; at the deadline the last fault is reported."""
    rig.restart()
    rig.airflow.state.fault = fault
    assert rig.do(Step.PROBE, after=1).verdict is NOT_YET
    result = rig.do(Step.PROBE, after=61)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.GATE_TIMEOUT)
    assert "not healthy within 60 s" in problem(result).message
    assert rig.airflow.url in problem(result).message
    assert PASSWORD not in problem(result).message


def test_refused_credentials_say_nothing_about_the_build(rig: Rig) -> None:
    """They are no GateTimeout, which would mark the build: they are the reason at the deadline."""
    rig.restart()
    (rig.secret / "password").write_text("of last year")
    assert rig.do(Step.PROBE, after=1).verdict is NOT_YET
    result = rig.do(Step.PROBE, after=61)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.AIRFLOW_DENIED)
    assert "not healthy within 60 s" in problem(result).message
    assert "renew the secret" in problem(result).message


def test_a_dag_that_is_not_parsed_again_keeps_the_gate_closed(rig: Rig) -> None:
    """Health proves nothing until every known DAG has been parsed since the restart."""
    rig.airflow.state.dags = {"hello": 1.0, "world": 1.0}
    rig.do(Step.OBSERVE)
    rig.restart()
    rig.airflow.state.dags["world"] = 1.0
    result = rig.do(Step.PROBE)
    assert (result.verdict, problem(result).reason) == (NOT_YET, Reason.NOT_PARSED)
    assert problem(result).message == "not parsed since the restart: world"


def test_a_dag_that_was_deleted_meanwhile_is_not_waited_for(rig: Rig) -> None:
    """Teams keep editing their DAGs during an activation."""
    rig.airflow.state.dags = {"hello": 1.0, "world": 1.0}
    rig.do(Step.OBSERVE)
    rig.restart()
    rig.airflow.state.dags["world"] = 1.0
    rig.airflow.state.stale = {"world"}
    assert rig.do(Step.PROBE) == OK


def dag_file(rig: Rig, name: str) -> str:
    """Return the name that Airflow gives to the file of a DAG that does not parse."""
    return f"{name}.py" if rig.airflow.airflow == "3" else f"/dags/{name}.py"


def test_a_new_import_error_fails_the_gate_at_once(rig: Rig) -> None:
    """The message has the file, the trace's last line and the number of further errors."""
    rig.airflow.state.errors = {dag_file(rig, "old"): ("boom", 1.0)}
    rig.do(Step.OBSERVE)
    rig.restart()
    trace = "Traceback:\n  File \"x.py\"\nModuleNotFoundError: No module named 'acme'\n\n"
    for name in ("old", "hello", "world"):
        rig.airflow.state.errors[dag_file(rig, name)] = (trace, time.time())
    result = rig.do(Step.PROBE)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.NEW_IMPORT_ERRORS)
    assert problem(result).message == (
        f"{dag_file(rig, 'hello')} does not parse any more: "
        "ModuleNotFoundError: No module named 'acme' (and 1 more files)"
    )


def test_what_was_broken_before_does_not_close_the_gate(rig: Rig) -> None:
    """Neither its error, reported again, nor its DAG, which stays listed but is never parsed."""
    rig.airflow.state.dags = {"hello": 1.0, "old": 1.0}
    rig.airflow.state.errors = {dag_file(rig, "old"): ("boom", 1.0)}
    rig.do(Step.OBSERVE)
    rig.restart()
    rig.airflow.state.dags["old"] = 1.0
    rig.airflow.state.errors = {dag_file(rig, "old"): ("boom", time.time())}
    assert rig.do(Step.PROBE) == OK


def test_a_file_of_the_same_name_in_another_bundle_is_another_file(three: Rig) -> None:
    """A file that was broken before in one bundle does not excuse the file of another bundle."""
    three.airflow.state.errors = {"etl.py": ("boom", 1.0)}
    three.do(Step.OBSERVE)
    three.restart()
    three.airflow.state.errors["blue:etl.py"] = ("boom", time.time())
    assert problem(three.do(Step.PROBE)).message.startswith("blue:etl.py does not parse any more")


def test_a_component_that_stays_down_fails(rig: Rig) -> None:
    """The status command's output is reported; right after the restart it may still be starting."""
    rig.restart()
    rig.component("scheduler", status=python("import sys; sys.exit('scheduler FATAL')"))
    looks = [rig.do(Step.PROBE) for _ in range(DOWN_LOOKS)]
    down = Problem(Reason.COMPONENT_DOWN, "scheduler is down: scheduler FATAL")
    assert [r.problem for r in looks] == [down] * DOWN_LOOKS
    assert [r.verdict for r in looks] == [NOT_YET] * (DOWN_LOOKS - 1) + [FAILED]


def test_time_in_which_nobody_looked_takes_no_component_down(rig: Rig, tmp_path: Path) -> None:
    """Consecutive bad checks count, not the time between them; a good one resets the count."""
    rig.restart()
    mark = tmp_path / "down"
    program = f"import pathlib, sys; sys.exit(pathlib.Path({str(mark)!r}).exists())"
    rig.component("scheduler", status=python(program))
    for _ in range(DOWN_LOOKS):
        mark.touch()
        assert rig.do(Step.PROBE, after=50).verdict is NOT_YET
        mark.unlink()
        assert rig.do(Step.PROBE, after=50) == OK


def test_a_status_command_without_an_answer_says_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take too long on a busy machine; only the gate's time limit ends that."""
    monkeypatch.setattr(local, "STATUS_TIMEOUT", 0.05)
    rig.restart()
    rig.component("scheduler", status=python("import time; time.sleep(30)"))
    looks = [rig.do(Step.PROBE) for _ in range(DOWN_LOOKS + 1)]
    assert {(r.verdict, problem(r).reason) for r in looks} == {(NOT_YET, "StatusUnknown")}
    late = rig.do(Step.PROBE, after=61)
    assert (late.verdict, problem(late).reason) == (FAILED, Reason.GATE_TIMEOUT)
    assert "the status command of scheduler did not answer" in problem(late).message


# ------------------------------------------------------------------- reports of the old processes


def test_what_the_old_process_reports_while_it_ends_is_not_believed(
    three: Rig, tmp_path: Path
) -> None:
    """The old dag-processor still reports for a moment; only reports of the new one count."""
    three.do(Step.OBSERVE)
    three.activation = replace(three.activation, restarted_at=time.time())
    time.sleep(0.2)
    assert three.do(Step.RESTART) == OK
    loader = tmp_path / "instances" / three.instance.name / "loader"
    time.sleep(0.2)
    process = subprocess.Popen(
        [sys.executable, "-Sc", "import time; time.sleep(60)", "airflow", "dag-processor"],
        env={"PYTHONPATH": str(loader)},
    )
    try:
        three.now = time.time() + 5
        while not three.driver._starts.living(three.instance):
            result = three.do(Step.PROBE)
        assert (result.verdict, problem(result).reason) == (NOT_YET, Reason.UNHEALTHY)
        three.airflow.state.heartbeats["dag_processor"] = time.time() + 1
        assert problem(three.do(Step.PROBE)).reason == Reason.NOT_PARSED
        three.airflow.state.dags = {"hello": time.time() + 1}
        assert three.do(Step.PROBE) == OK
    finally:
        process.kill()
        process.wait(timeout=10)


# ------------------------------------------------------------------------ providers and plugins


def test_declared_providers_and_plugins_must_be_loaded(rig: Rig, tmp_path: Path) -> None:
    """The gate stays closed until the API server has loaded the plugins that the build declares."""
    wanted = Declared(frozenset({"acme-provider"}), frozenset({"acme-plugin"}))
    rig.driver = LocalDriver(
        LocalSettings(allow=(sys.executable,)),
        tmp_path / "secrets",
        {"a" * 16: Declared(), "b" * 16: wanted}.__getitem__,
    )
    rig.restart()
    result = rig.do(Step.PROBE)
    assert (result.verdict, problem(result).reason) == (NOT_YET, Reason.NOT_LOADED)
    assert problem(result).message == (
        "the API server has not loaded the provider of acme-provider, the plugin of acme-plugin"
    )
    assert rig.do(Step.PROBE_BACK) == OK
    rig.airflow.state.providers = {"acme_provider": "1.0"}
    rig.airflow.state.plugins = ["Acme.Plugin"]
    assert rig.do(Step.PROBE) == OK


def test_a_server_that_does_not_load_the_build_is_not_asked_for_it(
    rig: Rig, tmp_path: Path
) -> None:
    """If only the scheduler loads the build, the API server has nothing of it."""
    rig.driver = LocalDriver(
        LocalSettings(allow=(sys.executable,)),
        tmp_path / "secrets",
        lambda _: Declared(frozenset({"acme-provider"})),
    )
    rig.restart()
    rig.activation = loading(rig.activation, ("scheduler",))
    assert rig.do(Step.PROBE) == OK


def build_with(*folders: str) -> BuildDocument:
    """Return a build.json with these folders of modules, wherever they are."""
    rows = [PathRow.model_construct(path=folder) for folder in folders]
    return BuildDocument.model_construct(build="b" * 16, team="red", paths=rows)


def test_what_a_build_declares_is_read_from_its_packages(tmp_path: Path) -> None:
    """The entry points of Airflow's two groups are read by distribution; others are ignored."""
    for stem, group in (
        ("Acme_Provider", "apache_airflow_provider"),
        ("acme_plugin", "airflow.plugins"),
        ("acme_tool", "console_scripts"),
    ):
        info = tmp_path / "store" / stem / "lib" / f"{stem.lower()}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {stem}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nx = y:z\n")
    folders = [f"store/{entry.name}/lib" for entry in (tmp_path / "store").iterdir()]
    read = Declarations(tmp_path, {"b" * 16: build_with(*folders)}.get)
    declared = read("b" * 16)
    assert (declared.providers, declared.plugins) == (
        frozenset({"acme-provider"}),
        frozenset({"acme-plugin"}),
    )
    assert read("c" * 16) == Declared()


def test_the_content_of_a_build_says_what_each_distribution_requires(tmp_path: Path) -> None:
    """Whatever each process may load by itself is declaring, or what has no valid metadata."""

    def entry(stem: str) -> str:
        return f"store/sha256/ab/{hashlib.sha256(stem.encode()).hexdigest()}/lib"

    for stem, text, points in (
        ("acme_plugin", "Requires-Dist: Acme.Lib>=1; extra == 'x'", "[airflow.plugins]\nx = y:z\n"),
        ("acme_policy", "Requires-Dist: requests", "[airflow.policy]\nx = y\n"),
        ("acme_lib", "", "[console_scripts]\nx = y:z\n"),
        ("acme_start", "", ""),
        ("acme_site", "", ""),
    ):
        info = tmp_path / entry(stem) / f"{stem}-1.0.dist-info"
        info.mkdir(parents=True)
        (tmp_path / entry(stem) / f"{stem}.py").touch()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {stem}\n{text}\n")
        (info / "entry_points.txt").write_text(points)
    (tmp_path / entry("acme_site") / "sitecustomize.py").touch()
    names = ("acme-plugin", "acme-policy", "Acme_Lib", "acme-start", "acme-site", "lost")
    rows = [Distribution(name=name, sha256=f"{n}" * 64) for n, name in enumerate(names)]
    stems = ("acme_plugin", "acme_policy", "acme_lib", "acme_start", "acme_site")
    paths = [PathRow(path=entry(stem), pth=stem == "acme_start") for stem in stems]
    document = build_with().model_copy(
        update={"distributions": rows, "paths": paths, "env": {"A": "1"}, "entries": ["f" * 64]}
    )
    content = Declarations(tmp_path, {"b" * 16: document}.get).content("b" * 16)
    assert content is not None
    assert content.distributions["acme-lib"] == "2" * 64
    assert content.requires["acme-plugin"] == {"acme-lib"}
    assert content.declaring == {"acme-plugin", "acme-policy", "acme-start", "acme-site", "lost"}
    assert "acme_lib" in content.modules["acme-lib"]
    assert (dict(content.env), content.files) == ({"A": "1"}, "f" * 64)
    assert Declarations(tmp_path, lambda _: None).content("b" * 16) is None


def test_a_component_that_keeps_running_needs_no_new_report(rig: Rig) -> None:
    """Its heartbeat and its process are those from before, and its command is not run."""
    rig.do(Step.OBSERVE)
    rig.activation = replace(rig.activation, kept=("api-server", "scheduler"))
    rig.airflow.state.heartbeats["scheduler"] = time.time() - 5
    rig.restart()
    started = {said["component"] for said in rig.airflow.state.loaded}
    assert started == {"dag-processor", "triggerer"}
    rig.now = time.time() + 5
    rig.airflow.state.heartbeats["scheduler"] = time.time() - 5
    result = rig.do(Step.PROBE)
    assert result == OK, result


def test_metadata_of_any_form_costs_its_own_distribution_only(tmp_path: Path) -> None:
    """Bytes that are no text, no name, sections without a header; and more than memory takes."""
    parts = {
        "bytes": (b"Name: bytes\n", b"\xff\xfe"),
        "nameless": (b"Version: 1.0\n", b"[airflow.plugins]\nx = y:z\n"),
        "loose": (b"Name: loose\n", b"x\n= y\n[[\n"),
        "good": (b"Name: good\n", b"[airflow.plugins]\nx = y:z\n"),
    }
    for stem, (metadata, points) in parts.items():
        info = tmp_path / stem / f"{stem}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_bytes(metadata)
        (info / "entry_points.txt").write_bytes(points)
    read = Declarations(tmp_path, {"b" * 16: build_with(*parts)}.get)
    assert (read("b" * 16).providers, read("b" * 16).plugins) == (
        frozenset(),
        frozenset({"good"}),
    )
    with (tmp_path / "good/good-1.0.dist-info/entry_points.txt").open("wb") as file:
        file.truncate(4 << 30)  # a hole, which takes no space on the disk
    with pytest.raises(Retryable, match="more memory") as caught:
        read("b" * 16)
    assert caught.value.reason == Reason.SHARE_UNREACHABLE
