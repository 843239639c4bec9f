"""The share: publishing, faults of the disk, garbage collection."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.share import locks
from reconciler.share.atomic import sweep
from reconciler.share.gc import Held, collect_garbage
from reconciler.share.share import BaseName, Share
from tests.harness.disk import small_disk
from tests.harness.shares import DIGEST, RUNTIME, A, B, C, point, publish

LOAD_INTO = ("scheduler",)


def named(key: str, listing: str = "") -> BaseName:
    return BaseName(key, "cp311-x", "3.3.2", listing)


def stage(tmp_path: Path, name: str = "staged", text: str = "X = 1\n") -> Path:
    folder = tmp_path / name
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "acme_mod.py").write_text(text)
    return folder


# ------------------------------------------------------------------------------------- publishing


def test_an_entry_is_published_once_and_world_readable(share: Share, tmp_path: Path) -> None:
    """The second writer of a digest changes nothing."""
    path = share.put(DIGEST, stage(tmp_path))
    assert share.put(DIGEST, stage(tmp_path, "other", "X = 2\n")) == path
    assert (path / "lib" / "acme_mod.py").read_text() == "X = 1\n"
    assert all(p.stat().st_mode & 0o004 for p in path.rglob("*"))


def test_a_link_in_an_entry_is_refused(share: Share, tmp_path: Path) -> None:
    """No link on the share may lead out of it."""
    staged = stage(tmp_path)
    (staged / "lib" / "link").symlink_to("/etc/passwd")
    with pytest.raises(Stalled):
        share.put(DIGEST, staged)
    assert not share.has(DIGEST)


def test_sweeping_passes_over_what_another_writer_has_published_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are placed in parallel: a listed name may be gone a moment later."""
    (tmp_path / ".tmp-gone").write_text("")
    (tmp_path / ".tmp-left").write_text("")
    listed = list(os.scandir(tmp_path))
    (tmp_path / ".tmp-gone").unlink()
    monkeypatch.setattr(os, "scandir", lambda _: listed)
    assert sweep(tmp_path, now=time.time() + 7200.0) == 1
    assert not (tmp_path / ".tmp-left").exists()


def test_a_build_is_there_only_with_its_last_file(share: Share) -> None:
    """Without build.json a build does not exist; without the mark it does not count as verified."""
    with pytest.raises((GroundcrewError, AssertionError, KeyError)):
        share.put_build(A, {"pylock.toml": b"x"})
    assert share.build(A) is None
    publish(share, A)
    assert share.complete_builds() == [A]
    assert not share.verified(A, RUNTIME)
    share.mark_verified(A, RUNTIME, {"modules": 3})
    assert share.verified(A, RUNTIME)
    assert not share.verified(A, "another-runtime")


def test_a_pointer_without_a_listing_is_written_anew(share: Share) -> None:
    """A switch to the build that an earlier version pointed at adds the listing."""
    share.point("dev", named(RUNTIME), A, LOAD_INTO)
    assert share.points("dev", named(RUNTIME), A, LOAD_INTO)
    assert not share.points("dev", named(RUNTIME, "0a1b2c3d"), A, LOAD_INTO)
    share.point("dev", named(RUNTIME, "0a1b2c3d"), A, LOAD_INTO)
    assert share.points("dev", named(RUNTIME, "0a1b2c3d"), A, LOAD_INTO)


def test_a_pointer_names_builds_of_the_newest_bases_only(share: Share) -> None:
    """It would otherwise grow with each week's image; it lists the builds that it dropped."""
    names = [f"{number:016x}" for number in range(6)]
    for name in names:
        publish(share, name)
    for number in (0, 1, 2, 3, 0):
        share.point("dev", named(f"base-{number}"), names[number], LOAD_INTO)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert ([*pointer.builds], pointer.dropped) == (["base-1", "base-2", "base-3", "base-0"], ())
    for number, gone in ((4, 1), (5, 2)):
        share.point("dev", named(f"base-{number}"), names[number], LOAD_INTO)
        assert share.points("dev", named(f"base-{number}"), names[number], LOAD_INTO)
        pointer = share.pointer("dev")
        assert pointer is not None
        assert pointer.dropped == (names[gone],)
    assert [*pointer.builds] == ["base-3", "base-0", "base-4", "base-5"]
    assert garbage(share, time.time() + 1000, roots=set()) == (names[1],), "not what went just now"


def test_a_pointer_keeps_what_it_says_of_other_runtimes(share: Share) -> None:
    """A switch for one runtime keeps the entries of others; None removes the entry."""
    share.point("dev", BaseName("old", "cp310-x", "2.11.2"), A, ["worker"])
    point(share, B)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert {k: n.build for k, n in pointer.builds.items()} == {"old": A, RUNTIME: B}
    point(share, None)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert list(pointer.builds) == ["old"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Yield a real file system of one mebibyte."""
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def test_a_disk_that_fills_while_publishing_leaves_the_state_before(
    small: Path, tmp_path: Path
) -> None:
    """The error says that the share is full; no entry, build or pointer is incomplete."""
    share = Share(small)
    share.prepare()
    publish(share, A)
    point(share, A)
    staged = stage(tmp_path)
    (staged / "lib" / "big").write_bytes(os.urandom(2 << 20))
    with pytest.raises(Retryable) as caught:
        share.put(DIGEST, staged)
    assert caught.value.reason == Reason.SHARE_FULL
    assert not share.has(DIGEST)
    (small / "fill").write_bytes(b"x" * ((1 << 20) - 90_000))
    with pytest.raises(Retryable):
        share.put_build(B, {"pylock.toml": os.urandom(200_000), "build.json": b"{}"})
    assert share.build(B) is None
    pointer = share.pointer("dev")
    assert pointer is not None
    assert pointer.builds[RUNTIME].build == A
    (small / "fill").unlink()
    assert share.put(DIGEST, stage(tmp_path, "again"))


def test_a_read_only_share_says_so(small: Path) -> None:
    """The daemon does not start with a share that it cannot write."""
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(Stalled) as caught:
        Share(small).prepare()
    assert caught.value.reason == Reason.SHARE_UNWRITABLE
    assert str(small) in caught.value.message


# ---------------------------------------------------------------------------------------- garbage


def garbage(share: Share, now: float, *held: Held, roots: set[str]) -> tuple[str, ...]:
    done = collect_garbage(share, roots=roots, held=held, now=now, grace=10.0, dry_run=False)
    return done.builds


def test_what_may_still_be_loaded_stays(share: Share) -> None:
    """Roots, pointed builds, and all that was current since the oldest process started."""
    now = time.time() + 1000
    for build in (A, B, C):
        publish(share, build)
    point(share, A)
    alive = Held(((B, now - 100),), oldest_process=now - 200)
    assert garbage(share, now, alive, roots=set()) == (C,)
    unknown = Held(((B, now - 100),), oldest_process=None)
    assert garbage(share, now, unknown, roots=set()) == ()
    ended = Held(((B, now - 100),), oldest_process=now - 50)
    assert garbage(share, now, ended, roots=set()) == (B,)
    assert share.complete_builds() == [A]


def test_entries_go_with_the_last_build_that_names_them(share: Share, tmp_path: Path) -> None:
    """A shared entry stays as long as one build needs it."""
    share.put(DIGEST, stage(tmp_path))
    publish(share, A, (DIGEST,))
    publish(share, B, (DIGEST,))
    now = time.time() + 1000
    assert garbage(share, now, roots={A}) == (B,)
    assert share.has(DIGEST)
    assert garbage(share, now, roots=set()) == (A,)
    assert not share.has(DIGEST)


def test_nothing_is_collected_while_a_build_is_placed(share: Share) -> None:
    """The collector waits, and the builder does not start in the middle of a collection."""
    with share.making(), pytest.raises(Retryable) as caught:
        garbage(share, time.time(), roots=set())
    assert caught.value.reason == Reason.BUILDS_RUNNING
    with locks.collecting(share.root), pytest.raises(Retryable), locks.collecting(share.root):
        raise AssertionError("two collectors at once")


def test_a_lock_that_the_share_refuses_is_the_shares_trouble(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither a bug nor a build's fault: the daemon waits."""

    def refuse(_handle: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(Retryable, match="locking the share") as caught, share.making():
        raise AssertionError("nobody holds a lock")
    assert caught.value.reason == Reason.SHARE_UNREACHABLE
