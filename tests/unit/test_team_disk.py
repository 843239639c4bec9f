"""Limit on what one team's commands may take of the build disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.builder.executor import team_disk
from reconciler.builder.executor.team_disk import TeamDisk, size_of
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

LIMIT = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TeamDisk:
    monkeypatch.setattr(team_disk, "INTERVAL", 0.0)
    monkeypatch.setattr(team_disk, "SHARE", 0)
    (tmp_path / "trash").mkdir()
    return TeamDisk(LIMIT, tmp_path / "trash")


def folder(root: Path, name: str, size: int) -> Path:
    """Return a new folder in which files of this size together lie, one of them deeper."""
    path = root / name
    (path / "deeper").mkdir(parents=True)
    (path / "a").write_bytes(bytes(size // 2))
    (path / "deeper" / "b").write_bytes(bytes(size // 2))
    return path


def test_all_running_commands_of_a_team_count_together(disk: TeamDisk, tmp_path: Path) -> None:
    """Each of them is told, and those of other teams are not."""
    one, two = folder(tmp_path, "one", LIMIT * 2 // 3), folder(tmp_path, "two", LIMIT * 2 // 3)
    with disk.using("red", one, []) as first, disk.using("blue", two, []) as other:
        first()
        other()
        with disk.using("red", two, []) as second:
            for check in (first, second):
                with pytest.raises(Stalled, match="team red") as caught:
                    check()
                assert caught.value.reason is Reason.BUILD_DISK_QUOTA
            other()
        first()


def test_a_folder_within_another_counts_once(disk: TeamDisk, tmp_path: Path) -> None:
    """A command may work in a part of its build's folder."""
    whole = folder(tmp_path, "whole", LIMIT * 2 // 3)
    with disk.using("red", whole, []) as outer, disk.using("red", whole / "deeper", []) as inner:
        outer()
        inner()


def test_a_large_cache_is_emptied_unless_it_is_in_use(disk: TeamDisk, tmp_path: Path) -> None:
    """It only saves time; without that a team could never build again."""
    cache, work = folder(tmp_path, "cache", LIMIT * 2), tmp_path / "work"
    work.mkdir()
    with disk.using("red", work, [cache]) as check:
        assert not list(cache.iterdir())
        check()
        folder(cache, "new", LIMIT * 2)
        with disk.using("red", work, [cache]):
            assert list(cache.iterdir())
            with pytest.raises(Stalled):
                check()
    assert not list((tmp_path / "trash").iterdir())


def test_hard_links_and_symlinks_take_no_disk(tmp_path: Path) -> None:
    """Neither makes a small folder look large, nor leads out of it."""
    path = folder(tmp_path, "links", LIMIT)
    size = size_of(path)
    (path / "again").hardlink_to(path / "a")
    (path / "out").symlink_to("/usr")
    assert size_of(path) < size + LIMIT // 10


def test_no_limit_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 0 is none."""
    monkeypatch.setattr(team_disk, "INTERVAL", 0.0)
    with TeamDisk(0, tmp_path).using("red", folder(tmp_path, "one", LIMIT), []) as check:
        check()
