"""Changes to the share are found, told and put right, over restarts of the daemon too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.core.event_codec import data_of
from reconciler.core.events import Event
from reconciler.core.model import InstanceRecord
from reconciler.core.reasons import Reason
from reconciler.share import marker
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import COMPONENTS, INSTANCE, Site

LIVE = "print(flush=True); import time; time.sleep(600)"


def once(site: Site, **variables: str) -> tuple[int, str]:
    """One run of a daemon that starts now; an error if it has no end, however slow the machine."""
    return site.run("run", "--once", **variables)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """Yield a site that is active on the second of two builds, and a copy of it."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path_factory.mktemp("drift") / "site", airflow)
        for version in ("1.0", "2.0"):
            site.commit(version)
            code, output = once(site)
            assert code == 0, output
        yield site, site.keep()


@pytest.fixture
def site(made: tuple[Site, Path]) -> Site:
    site, kept = made
    site.put_back(kept)
    return site


def pointer(site: Site) -> Path:
    return site.share.instance_path(INSTANCE) / "pointer.json"


def record(site: Site) -> InstanceRecord:
    store = site.store()
    try:
        return store.load().instances[INSTANCE]
    finally:
        store.close()


def history(site: Site, *kinds: str) -> list[Event]:
    """Return the events of these kinds, oldest first."""
    store = site.store()
    try:
        return [e for e in store.events(limit=1000) if e.kind in kinds]
    finally:
        store.close()


def named(site: Site) -> set[str]:
    """Return the builds that the pointer names."""
    target = site.share.pointer(INSTANCE)
    return {n.build for n in target.entries.values()} if target else set()


def old_pointer(site: Site) -> None:
    """Put the pointer back to the build before, as a backup or a hand would."""
    document = json.loads(pointer(site).read_text())
    for entry in document["builds"].values():
        entry["build"] = record(site).previous.build
    pointer(site).write_text(json.dumps(document))


def other_components(site: Site) -> None:
    """Let fewer components load the build."""
    document = json.loads(pointer(site).read_text())
    pointer(site).write_text(json.dumps({**document, "loadInto": ["scheduler"]}))


def no_pointer(site: Site) -> None:
    pointer(site).unlink()


def damaged_pointer(site: Site) -> None:
    pointer(site).write_text("{")


def no_folder(site: Site) -> None:
    shutil.rmtree(site.share.instance_path(INSTANCE))


HANDS = {
    "the pointer is gone": no_pointer,
    "the pointer is damaged": damaged_pointer,
    "the pointer names build": old_pointer,
    "the pointer lets scheduler load it": other_components,
    "the whole folder": no_folder,
}


@pytest.mark.parametrize("words", HANDS)
def test_a_pointer_is_written_again_as_it_is_recorded(site: Site, words: str) -> None:
    """Found by a daemon that starts later; told once, with what was found and what was done."""
    wanted = pointer(site).read_text()
    HANDS[words](site)
    restarts = len(site.airflow.state.loaded)
    code, output = once(site)
    assert code == 0, output
    assert json.loads(pointer(site).read_text()) == json.loads(wanted)
    (drifted,) = history(site, "Drifted")
    expected = "the pointer is gone" if words == "the whole folder" else words
    assert drifted.message.startswith(expected)
    assert "pointer" in data_of(drifted)["kinds"]  # type: ignore[operator]
    (healed,) = history(site, "DriftHealed")
    assert f"the pointer names {record(site).current.build} again" in healed.message
    assert len(site.airflow.state.loaded) == restarts, "nothing that runs was touched"
    assert record(site).drift is None
    assert once(site)[0] == 0
    assert len(history(site, "Drifted")) == 1


@pytest.mark.parametrize("name", ["sitecustomize.py", "groundcrew_local.py"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_changed_loader_is_put_back(site: Site, name: str, gone: bool) -> None:
    """A file that is missing or changed by hand."""
    path = site.share.instance_path(INSTANCE) / "loader" / name
    text = path.read_text()
    if gone:
        path.unlink()
    else:
        path.write_text(f"{text}\nprint('debugging')\n")
    assert once(site)[0] == 0
    assert path.read_text() == text
    (drifted,) = history(site, "Drifted")
    assert drifted.message == f"the loader is not the one that was installed: {name}"
    assert [e.message for e in history(site, "DriftHealed")] == ["the loader was put back"]


def test_the_loader_of_another_release_is_no_drift(site: Site) -> None:
    """After an upgrade every instance gets the loader of this release, and nobody is told."""
    path = site.share.instance_path(INSTANCE) / "loader" / "sitecustomize.py"
    text = path.read_text()
    path.write_text("# an earlier release's\n")
    store = site.store()
    store.name("loader", "an earlier release's")
    store.close()
    assert once(site)[0] == 0
    assert path.read_text() == text
    assert history(site, "Drifted") == []


@pytest.mark.parametrize("what", ["build", "marks", "entry"])
def test_a_lost_build_that_is_active_is_made_again(site: Site, what: str) -> None:
    """Told, and built again from its lock; what runs is not touched."""
    current = record(site).current.build
    assert current is not None
    restarts = len(site.airflow.state.loaded)
    document = site.share.build(current)
    assert document is not None
    if what == "build":
        shutil.rmtree(site.share.build_path(current))
    elif what == "marks":
        shutil.rmtree(site.share.build_path(current) / "verified")
    else:
        shutil.rmtree(site.share.entry(document.entries[0]))
    code, output = once(site)
    assert code == 0, output
    assert site.share.build(current) == document
    assert record(site).current.build == current
    assert record(site).drift is None
    (drifted,) = history(site, "Drifted")
    assert drifted.message.startswith(f"build {current}, which is active, is not complete")
    assert len(site.airflow.state.loaded) == restarts


def test_a_lost_build_that_nobody_asks_for_any_more_is_told(site: Site) -> None:
    """It cannot be made again: the definition has moved on, to what does not work."""
    current = record(site).current.build
    assert current is not None
    site.commit("3.0", text="raise RuntimeError('{version}')\n")
    assert once(site)[0] == 1
    shutil.rmtree(site.share.build_path(current))
    assert once(site)[0] == 1
    (instance,) = site.status()["instances"]
    assert instance["health"] == "Missing"
    (stalled,) = (c for c in instance["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == (True, "Drifted")
    assert f"build {current}, which is active" in stalled["message"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kill_between_finding_and_healing_is_harmless(site: Site) -> None:
    """Wherever it is killed, the next start puts right what is left."""
    for point in (
        "daemon.outcome.before",
        "daemon.outcome.after",
        "daemon.heal.before-pointer",
        "share.point.after-rename",
        "daemon.heal.done",
    ):
        wanted = pointer(site).read_text()
        pointer(site).unlink()
        code, output = once(site, GROUNDCREW_FAILPOINT=point)
        assert code == -9 or code == 137, (point, code, output)
        assert once(site)[0] == 0
        assert json.loads(pointer(site).read_text()) == json.loads(wanted), point
        assert record(site).drift is None


# ------------------------------------------------------------------------------------- the share


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_an_empty_mount_point_is_never_taken_for_the_share(site: Site) -> None:
    """The daemon does not start, nothing is made, and with the share all is as it was."""
    away = site.share.root.rename(site.root / "away")
    site.share.root.mkdir()
    code, output = once(site)
    assert code != 0
    assert "ShareMissing" in output or "is probably not mounted" in output
    assert "groundcrew adopt-share" in output
    assert everything(site.share.root) == []
    site.share.root.rmdir()
    code, output = once(site)
    assert code != 0
    assert not site.share.root.exists(), "a folder that is not there is not made either"
    away.rename(site.share.root)
    assert once(site)[0] == 0
    assert history(site, "Drifted", "BuildQueued")[-1].kind == "BuildQueued", "nothing was lost"


def test_another_share_is_not_taken_for_it_until_somebody_says_so(site: Site) -> None:
    """Restored or moved: the words say what to do, and then all is built again."""
    marker_file = site.share.root / marker.FILE
    identity = json.loads(marker_file.read_text())
    marker_file.write_text(json.dumps({**identity, "id": "f" * 32}))
    code, output = once(site)
    assert code != 0
    assert "another share (ffffffff)" in output
    assert site.run("adopt-share")[0] == 0
    assert once(site)[0] == 0
    shutil.rmtree(site.share.root)
    site.share.root.mkdir()
    code, output = site.run("adopt-share")
    assert code != 0
    assert "add --empty" in output
    assert everything(site.share.root) == []
    assert site.run("adopt-share", "--empty")[0] == 0
    code, output = once(site)
    assert code == 0, output
    current = record(site).current.build
    assert current is not None
    assert site.share.build(current) is not None
    assert named(site) == {current}


def test_a_share_of_an_earlier_version_gets_its_marker(site: Site) -> None:
    """Neither the share nor the records know of one; an empty folder is refused all the same."""
    (site.share.root / marker.FILE).unlink()
    store = site.store()
    store.name("share", "")
    store.close()
    away = site.share.root.rename(site.root / "away")
    site.share.root.mkdir()
    code, output = once(site)
    assert code != 0
    assert "has nothing on it, though the records name builds" in output
    assert everything(site.share.root) == []
    site.share.root.rmdir()
    away.rename(site.share.root)
    assert once(site)[0] == 0
    assert marker.read(site.share.root)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_share_that_is_unmounted_under_a_running_daemon(site: Site) -> None:
    """A real mount that goes away lazily and comes back: told, nothing made, nothing built."""
    script = Path(__file__).parent.parent / "harness" / "unmount.py"
    kept = site.share.root.rename(site.root / "kept")
    site.share.root.mkdir()
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            sys.executable,
            str(script),
            str(kept),
            str(site.share.root),
        ],
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    told = [e.kind for e in history(site, "ShareMissing", "ShareBack", "Drifted", "BuildQueued")]
    assert told[-2:] == ["ShareMissing", "ShareBack"]
    assert everything(site.share.root) == []


@contextmanager
def falling_back(site: Site) -> Iterator[int]:
    """Run a component that started while its build was not to be read; yield its pid."""
    build = record(site).current.build
    assert build is not None
    manifest = site.share.build_path(build) / "build.json"
    hidden = manifest.rename(manifest.with_suffix(".away"))
    command = [site.python, "-c", LIVE, "airflow", "scheduler"]
    (temporary := site.root / "temporary").mkdir(exist_ok=True)
    variables = {
        "AIRFLOW_HOME": str(site.root / "home"),
        "TMPDIR": str(temporary),  # where the loader leaves its proof
        "PYTHONPATH": str(site.share.instance_path(INSTANCE) / "loader"),
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the loader has run
        hidden.rename(manifest)
        try:
            yield process.pid
        finally:
            process.kill()


def test_what_a_process_said_when_it_fell_back_is_told(site: Site) -> None:
    """A real process with the real loader: it is told why, and the component is started anew."""
    restarts = len(site.airflow.state.loaded)
    build = record(site).current.build
    with falling_back(site) as pid:
        code, output = once(site)
        (shown,) = site.status()["instances"]
    said = f"build {build} is not on the share; going on with the bare base"
    message = f"scheduler (pid {pid}) runs on the bare base instead of build {build}: {said}"
    told = history(site, "BuildNotLoaded")[0]
    assert (told.reason, told.message) == (Reason.LOADER_FELL_BACK, message)
    assert len(site.airflow.state.loaded) > restarts, "it was started anew"
    assert code == 1, output
    assert (shown["reason"], shown["message"]) == ("LoaderFellBack", message), "it still runs"
    assert once(site)[0] == 0
    (shown,) = site.status()["instances"]
    assert (shown["health"], shown["reason"]) == ("Healthy", "Active")


def test_components_are_all_of_the_site() -> None:
    """The test of other components leaves something out."""
    assert len(COMPONENTS) > 1
