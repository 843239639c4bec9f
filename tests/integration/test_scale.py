"""The cost of a cycle, a start and a collection: it grows with the changes, not with the fleet."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from gitsource.parsers import IsolatedParser, Text
from gitsource.source import Source
from gitsource.typed import ReadFile
from reconciler.core import waits
from reconciler.core.errors import Stalled
from reconciler.core.model import BARE, Change, InstanceRecord
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.world import Draft, World
from reconciler.daemon.daemon import Daemon
from reconciler.daemon.effects import BuildEffects, BuildTask
from reconciler.daemon.garbage import PAUSED, collect
from reconciler.daemon.leadership import Leadership
from reconciler.share.gc import collect_garbage
from reconciler.share.share import Share
from reconciler.share.sizes import Sizes, check_quota
from reconciler.store.reader import Reader
from reconciler.store.store import Store
from tests.harness import large_repo

COUNT = 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    large_repo.settle(tmp_path, COUNT)
    return tmp_path


def _settle(daemon: Daemon, leadership: Leadership) -> None:
    """Run cycles until the pointers, which the herd does not have, were written and looked at."""
    deadline = time.monotonic() + 60
    active: list[InstanceRecord] = []
    while not active or not all(
        record.drift is None and daemon.wiring.share.pointer(record.name) for record in active
    ):
        assert time.monotonic() < deadline, active
        daemon._cycle(leadership)
        active = [r for r in daemon.records.instances.values() if r.current.build and r.runtime]
        time.sleep(0.05)
    for _ in range(3):
        daemon._cycle(leadership)


@pytest.fixture
def daemon(root: Path) -> Iterator[tuple[Daemon, Leadership]]:
    """Yield a daemon that leads and has read everything; tests run its loop step by step."""
    made = Daemon(large_repo.settings(root))
    made.wiring.prepare()
    with Leadership(made.wiring.store, made.settings, threading.Event()) as leadership:
        made.wiring.check = leadership.check
        made._next_poll = float("inf")
        made._learn(made._poll())
        _settle(made, leadership)
        yield made, leadership
        made._workers.stop(lambda _: True, 10.0)


def source(root: Path) -> Source:
    made = large_repo.settings(root)
    return Source(made.git, made.state_dir, made.secrets_dir)


class Counted:
    """A counter of the statements that a store's database receives."""

    def __init__(self, store: Store) -> None:
        self.statements: list[str] = []
        event.listen(store.engine, "before_cursor_execute", self._note)

    def _note(self, _c: object, _u: object, statement: str, *_rest: object) -> None:
        self.statements.append(statement)


# ------------------------------------------------------------------------------------- cycles


def test_a_cycle_without_change_reads_no_record_and_decides_nothing(
    daemon: tuple[Daemon, Leadership],
) -> None:
    one, leadership = daemon
    counted, records = Counted(one.wiring.store), one.records
    plan = one._cycle(leadership)
    assert one._cycle(leadership) is plan
    assert one.records is records
    assert len(counted.statements) == 4  # per cycle: the number of writes, and the open requests
    assert not [s for s in counted.statements if "builds" in s or "environments" in s]


def test_a_cycle_with_one_change_reads_back_nothing_and_writes_one_row(
    root: Path, daemon: tuple[Daemon, Leadership]
) -> None:
    one, leadership = daemon
    before = one.records
    large_repo.commit(root / "repo.git", {large_repo.path_of(3): large_repo.text_of(3, "2.9")})
    one._learn(one._poll())
    counted = Counted(one.wiring.store)
    one._cycle(leadership)
    changed = {n for n, e in one.records.environments.items() if before.environments[n] is not e}
    assert changed == {"env-00003"}
    assert one.records.builds is before.builds
    reading = [s for s in counted.statements if s.startswith("SELECT") and "document" in s]
    assert reading == []
    assert one.records == one.wiring.store.load()


def test_what_another_process_writes_is_seen(daemon: tuple[Daemon, Leadership]) -> None:
    one, leadership = daemon
    assert leadership.lease is not None
    record = one.records.environments["env-00003"]
    other = Store(one.settings.database_url)
    other.write(leadership.lease, Change(environments=(replace(record, suspended=True),)))
    other.close()
    one._cycle(leadership)
    assert one.records.environments["env-00003"].suspended


def test_a_build_that_the_share_lost_is_built_anew_before_it_is_activated(
    root: Path, daemon: tuple[Daemon, Leadership]
) -> None:
    one, leadership = daemon
    assert leadership.lease is not None
    instance = one.records.instances["instance-00010"]
    behind = replace(
        instance, current=replace(instance.previous, recipe="0" * 64), previous=BARE, suspended=True
    )
    build = one.wiring.share.build_path(large_repo.build_id(10, 0))
    (build / "build.json").unlink()
    one.wiring.store.write(leadership.lease, Change(instances=(behind,)))
    deadline = time.monotonic() + 60
    while "resolve" not in {e.kind for e in one._cycle(leadership).effects}:
        assert time.monotonic() < deadline  # the share is looked at meanwhile
        time.sleep(0.05)
    assert BuildPhase.RESOLVING in {b.phase for b in one.records.builds.values()}


# ------------------------------------------------------------------------------------ records


def test_a_reader_that_is_told_what_was_written_holds_what_a_fresh_one_reads(root: Path) -> None:
    store = Store(large_repo.settings(root).database_url)
    lease = store.acquire("test", 600.0)
    assert lease is not None
    reader = Reader(store)
    records = reader.load(whole=True)
    instance = records.instances["instance-00000"]
    change = Change(
        instances=(replace(instance, wait=waits.for_window(None)),),
        drop_environments=("env-00001",),
        repo=replace(records.repo, prune_confirmed="abc"),
    )
    count = store.write(lease, change)
    reader.wrote(change, count)
    counted = Counted(store)
    told = reader.load()
    assert len(counted.statements) == 1
    assert told == store.load() == Reader(store).load() == reader.load(whole=True)
    reader.wrote(change, count + 7)  # others wrote in between: nothing is taken over
    assert reader.load() == store.load()
    store.close()


def test_a_runtime_is_stored_and_held_once(root: Path) -> None:
    store = Store(large_repo.settings(root).database_url)
    instances = Reader(store).load().instances.values()
    assert len({id(i.runtime) for i in instances}) == 1
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runtimes").scalar() == 1
    assert store.load().instances["instance-00000"].runtime == large_repo.RUNTIME
    store.close()


# -------------------------------------------------------------------------------- definitions


@pytest.mark.slow
def test_after_any_commits_the_definitions_are_those_that_a_fresh_read_finds(
    root: Path, tmp_path: Path
) -> None:
    chance = random.Random(7)
    reading = source(root)
    reading.poll()
    repo = root / "repo.git"
    for turn in range(25):
        number = chance.randrange(COUNT)
        kept = {
            0: {large_repo.path_of(number): large_repo.text_of(number, f"2.{turn}")},
            1: {
                "shared/platform.yaml": "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: "
                f"{{name: platform}}\nspec:\n  requirements: [boto3>=1.{turn}]\n"
            },
            2: {"teams/team-000/constraints.txt": f"numpy<{turn}\n"},
            3: {large_repo.path_of(number): "kind: Environment\nno: such\n"},
            4: {
                f"instances/instance-{number:05d}.yaml": large_repo.instance(
                    f"instance-{number:05d}", chance.choice(["team-000", "team-009"])
                )
            },
            5: {f"teams/team-000/again-{number}.yaml": large_repo.text_of(number)},
            6: {
                f"teams/team-000/other-{number}.yaml": large_repo.environment(
                    f"other-{number}", "instance-00010"
                )
            },
            7: {"shared/platform.yaml": "kind: [\n"},
        }[chance.randrange(8)]
        large_repo.commit(repo, kept)
        definitions = reading.poll()
        fresh = Source(
            large_repo.settings(root).git, tmp_path / f"fresh-{turn}", root / "secrets"
        ).poll()
        again = source(root).poll()
        assert definitions == fresh == again, (turn, kept)


def test_a_restart_reads_no_file_that_was_read_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = source(root).poll()
    read: list[str] = []
    original = IsolatedParser.files

    def noted(parser: IsolatedParser, texts: Iterable[Text]) -> Iterator[ReadFile]:
        for read_file in original(parser, texts):
            read.append(read_file.path)
            yield read_file

    monkeypatch.setattr(IsolatedParser, "files", noted)
    assert source(root).poll() == first
    assert not [path for path in read if path.startswith("teams/")]
    large_repo.commit(root / "repo.git", {large_repo.path_of(3): large_repo.text_of(3, "2.9")})
    read.clear()
    again = source(root)
    again.poll()
    assert [path for path in read if path.startswith("teams/")] == [large_repo.path_of(3)]


def test_kept_definitions_that_are_damaged_are_read_from_git(root: Path) -> None:
    first = source(root).poll()
    (root / "state" / "definitions.db").write_bytes(b"no database" * 1000)
    assert source(root).poll() == first


def test_one_changed_file_makes_one_environment_anew(root: Path) -> None:
    reading = source(root)
    before = reading.poll()
    large_repo.commit(root / "repo.git", {large_repo.path_of(3): large_repo.text_of(3, "2.9")})
    after = reading.poll()
    assert before is not None
    assert after is not None
    same = {n for n, e in after.environments.items() if before.environments[n] is e}
    assert set(after.environments) - same == {"env-00003"}


# ------------------------------------------------------------------------------------ garbage


def share_of(path: Path, teams: dict[str, str]) -> Share:
    """Return a share with a build for each team: its own entry, and one shared by all."""
    share = Share(path)
    share.prepare()
    for number, (team, own) in enumerate(teams.items()):
        for digest in (own * 64, "f" * 64):
            folder = share.root / "store" / "sha256" / digest[:2] / digest
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "entry.json").write_text('{"schema": 1, "files": 1, "bytes": 1000}')
            os.utime(folder, (0.0, 0.0))
        build = large_repo.build_id(number, 0)
        large_repo.place_build(share, build, team, (own * 64, "f" * 64))
        os.utime(share.build_path(build), (0.0, 0.0))
    return share


def test_sizes_are_told_by_team_and_a_shared_entry_counts_for_each(tmp_path: Path) -> None:
    sizes = Sizes(share_of(tmp_path / "share", {"red": "a", "blue": "b"}))
    sizes.look()
    assert sizes.total == 3000
    assert sizes.teams == {"red": 2000, "blue": 2000}
    check_quota(sizes, "red", 0)
    check_quota(sizes, "red", 2001)
    with pytest.raises(Stalled, match=r"team red has 0\.00 GiB on the share") as caught:
        check_quota(sizes, "red", 2000)
    assert caught.value.reason == Reason.QUOTA_REACHED


def test_a_collection_that_is_stopped_says_so_and_the_next_one_ends_it(tmp_path: Path) -> None:
    share = share_of(tmp_path / "share", {"red": "a", "blue": "b", "green": "c"})
    turns = iter([True, False, False, False, False, False])
    common = {"roots": {large_repo.build_id(0, 0)}, "held": (), "now": 1e9, "grace": 1.0}
    first = collect_garbage(share, **common, dry_run=False, go_on=lambda: next(turns, False))  # type: ignore[arg-type]
    assert not first.complete
    assert len(first.builds) == 1
    assert first.entries == ()  # a build that still exists names its entry
    second = collect_garbage(share, **common, dry_run=False)  # type: ignore[arg-type]
    assert second.complete
    assert set(first.builds) | set(second.builds) == {
        large_repo.build_id(1, 0),
        large_repo.build_id(2, 0),
    }
    assert set(second.entries) == {"b" * 64, "c" * 64}
    assert share.build(large_repo.build_id(0, 0)) is not None


def test_a_paused_collection_removes_nothing(daemon: tuple[Daemon, Leadership]) -> None:
    one, _ = daemon
    records = replace(one.records, builds={})
    one.wiring.store.name(PAUSED, "yes")
    with pytest.raises(Stalled, match="gc --resume"):
        collect(one.wiring, records, 1e12, dry_run=False)
    assert collect(one.wiring, records, 1e12, dry_run=True).builds
    one.wiring.store.name(PAUSED, "no")
    assert collect(one.wiring, records, 1e12, dry_run=False).builds


def test_a_build_of_a_team_at_its_quota_fails_in_words_before_anything_is_built(
    daemon: tuple[Daemon, Leadership], tmp_path: Path
) -> None:
    one, _ = daemon
    sizes = Sizes(share_of(tmp_path / "other", {"team-000": "a"}))
    sizes.look()
    wiring, records = one.wiring, one.records
    effects = BuildEffects(
        wiring.builder_for,
        wiring.store,
        wiring.adoption,
        lambda team: check_quota(sizes, team, 1000),
    )
    ready = next(b for b in records.builds.values() if b.environment == "env-00010")
    build = replace(ready, phase=BuildPhase.BUILDING)
    environment = records.environments["env-00010"].definition
    instance = records.instances["instance-00010"].definition
    task = BuildTask(build, environment, instance, large_repo.RUNTIME, "", tmp_path / "log")
    draft = Draft(World(1.0, replace(records, builds={build.key: build})))
    effects.run("construct", task, threading.Event()).apply(draft)
    failed = draft.builds[build.key]
    assert failed.phase is BuildPhase.FAILED
    assert failed.problem is not None
    assert failed.problem.reason == Reason.QUOTA_REACHED
    assert "team team-000 has" in failed.problem.message
