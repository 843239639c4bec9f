"""The mirror of the environments repo: damaged in every way, and after many revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gitsource import mirror as mirrors
from gitsource.source import Source
from gitsource.tree import Most
from reconciler.core.definitions import Broken
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import GitSettings
from tests.harness.git_repo import ENVIRONMENT, NOWHERE, Repo, source

TWO = NOWHERE.replace("name: one", "name: two")


def emptied(mirror: Path, *patterns: str) -> None:
    """Empty the files that match, as a power loss does to files that were written last."""
    files = [file for pattern in patterns for file in mirror.glob(pattern) if file.is_file()]
    assert files, patterns
    for file in files:
        file.chmod(0o644)
        file.write_bytes(b"")


def locked(mirror: Path) -> None:
    """Leave the lock of a git process that was killed."""
    lock = mirror / "refs/heads/main.lock"
    lock.touch()
    os.utime(lock, (1.0, 1.0))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "packs": lambda mirror: emptied(mirror, "objects/pack/*"),
    "a pack's index": lambda mirror: emptied(mirror, "objects/pack/*.idx"),
    "the branch": lambda mirror: emptied(mirror, "packed-refs"),
    "HEAD": lambda mirror: emptied(mirror, "HEAD"),
    "a lock": locked,
}


@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "running"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_mirror_is_fetched_anew(
    damage: str, restarted: bool, repo: Repo, tmp_path: Path
) -> None:
    """It happens at the next start or the next revision; the remote is not blamed."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    mirror = tmp_path / "state" / "mirror.git"
    subprocess.run(["git", "-C", str(mirror), "gc", "-q"], check=True)
    DAMAGES[damage](mirror)
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
    if not restarted or damage == "a lock":  # it only stands in the way of new objects
        repo.commit()
    if restarted:
        (tmp_path / "state" / "definitions.db").unlink()
        one = source(tmp_path, str(repo.path))
    definitions = one.poll()
    assert definitions is not None
    assert definitions.commit.revision == repo.git("rev-parse", "HEAD")
    assert definitions.environments
    assert one.poll() is None


def test_a_package_that_the_mirror_lost_is_there_after_the_next_poll(
    repo: Repo, tmp_path: Path
) -> None:
    """It is there even if nothing was pushed: the export finds the damage."""
    repo.write("teams/red/packages/x/x.py", "X = 1\n")
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    emptied(tmp_path / "state" / "mirror.git", "objects/*/*")
    tree = repo.git("rev-parse", "HEAD:teams/red/packages/x")
    with pytest.raises(Retryable) as caught:
        one.export(tree, tmp_path / "x")
    assert caught.value.reason == Reason.MIRROR_DAMAGED
    assert one.poll() is not None
    one.export(tree, tmp_path / "x")
    assert (tmp_path / "x" / "x.py").read_text() == "X = 1\n"


def test_a_sound_mirror_outlives_a_remote_that_fails(repo: Repo, tmp_path: Path) -> None:
    """A fetch that the remote breaks off loses nothing that was fetched before."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
    repo.commit()
    blob = repo.git("rev-parse", "HEAD:teams/red/one.yaml")
    (repo.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(Retryable) as caught:
        one.poll()
    assert caught.value.reason == Reason.SOURCE_UNREACHABLE
    assert (tmp_path / "state/mirror.git/refs/heads/main").is_file()


def test_a_mirror_that_could_not_be_fetched_anew_is_fetched_at_the_next_poll(
    repo: Repo, tmp_path: Path
) -> None:
    """If the remote fails just then, and has nothing new later, the mirror is still made again."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    mirror = tmp_path / "state" / "mirror.git"
    emptied(mirror, "objects/*/*")
    with pytest.raises(Retryable):
        one.export(repo.git("rev-parse", "HEAD:teams/red"), tmp_path / "x")
    blob = repo.git("rev-parse", "HEAD:teams/red/one.yaml")
    file = repo.path / ".git/objects" / blob[:2] / blob[2:]
    file.rename(tmp_path / "kept")
    with pytest.raises(Retryable):
        one.poll()
    (tmp_path / "kept").rename(file)
    assert one.poll() is not None
    one.export(repo.git("rev-parse", "HEAD:teams/red"), tmp_path / "x")


def test_a_check_that_takes_too_long_is_no_damage(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large mirror on a slow disk is not deleted because git fsck took too long."""
    repo.commit()
    one = source(tmp_path, str(repo.path), timeout=3.0)
    one.poll()
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    git = shutil.which("git")
    slow.write_text(f'#!/bin/sh\ncase "$*" in *fsck*) sleep 60;; esac\nexec {git} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(Retryable) as caught:
        one.export("0" * 40, tmp_path / "x")
    assert caught.value.reason == Reason.SOURCE_UNREACHABLE
    assert one.poll() is None


def mktree(repo: Repo, rows: str) -> str:
    """Write a tree object of these rows; return its name."""
    return subprocess.run(
        ["git", "mktree"], cwd=repo.path, input=rows, text=True, check=True, capture_output=True
    ).stdout.strip()


def bomb(repo: Repo, folder: str) -> None:
    """Commit a folder of ten objects, which represent a billion files."""
    blob = repo.git("rev-parse", "HEAD:instances/dev.yaml")
    rows = "".join(f"100644 blob {blob}\tf{number}\n" for number in range(10))
    for _ in range(9):
        tree = mktree(repo, rows)
        rows = "".join(f"040000 tree {tree}\td{number}\n" for number in range(10))
    listed = repo.git("ls-tree", "HEAD") + f"\n040000 tree {tree}\t{folder}\n"
    top = mktree(repo, listed)
    repo.git("reset", "-q", "--soft", repo.git("commit-tree", "-p", "HEAD", "-m", "bomb", top))


@pytest.mark.parametrize("known", [False, True], ids=["at a start", "while it runs"])
def test_endless_files_are_refused_and_what_comes_after_is_read(
    known: bool, repo: Repo, tmp_path: Path
) -> None:
    """A few objects that represent more files than fit into memory are refused with a message."""
    before = repo.commit()
    one = source(tmp_path, str(repo.path))
    if known:
        one.poll()
    bomb(repo, "shared")
    for _ in range(2):
        with pytest.raises(Stalled, match="more than 200000 files") as caught:
            one.poll()
        assert caught.value.reason == Reason.SOURCE_TOO_LARGE
    repo.git("reset", "-q", "--soft", before)
    after = repo.commit()
    definitions = one.poll()
    assert definitions is not None
    assert definitions.commit.revision == after
    assert definitions.environments


def test_endless_files_of_one_team_stop_no_other(repo: Repo, tmp_path: Path) -> None:
    """Its environments stay as they are, and every other team's commits count."""
    repo.write("teams/zoo/two.yaml", TWO)
    repo.commit()
    one = source(tmp_path, str(repo.path))
    known = one.poll()
    assert known is not None
    assert set(known.environments) == {"one", "two"}
    listed = repo.git("ls-tree", "HEAD:teams/red")
    bomb(repo, "bomb")
    tree = repo.git("rev-parse", "HEAD:bomb")
    red = mktree(repo, f"{listed}\n040000 tree {tree}\tdata\n")
    zoo = repo.git("rev-parse", "HEAD:teams/zoo")
    teams = mktree(repo, f"040000 tree {red}\tred\n040000 tree {zoo}\tzoo\n")
    instances = repo.git("rev-parse", "HEAD:instances")
    top = mktree(repo, f"040000 tree {instances}\tinstances\n040000 tree {teams}\tteams\n")
    repo.git("reset", "-q", "--soft", repo.git("commit-tree", "-p", "HEAD~1", "-m", "bomb", top))
    (tmp_path / "new" / "secrets").mkdir(parents=True)
    for start in (one, source(tmp_path / "new", str(repo.path))):
        definitions = start.poll()
        assert definitions is not None
        assert set(definitions.environments) == {"two"}
        (finding,) = definitions.findings
        assert (finding.place.file, finding.reason) == ("teams/red/", Reason.TOO_LARGE)
        broken = Broken(definitions, known.environments.values())
        assert broken.by(known.environments["one"]), "it stays as it is"


@pytest.mark.parametrize("team", ["a", "red-x", "red.x", "redx", "zoo"])
def test_every_other_folder_is_listed(
    team: str, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git sorts `red-x` and `red.x` before `red/`, and `redx` after it."""
    monkeypatch.setattr(mirrors, "TEAM_LISTING", Most(files=5))
    for number in range(6):
        repo.write(f"teams/red/{number}.txt", "")
    repo.write(f"teams/{team}/two.yaml", TWO)
    repo.write(f"teams/{team}/constraints.txt", "")
    repo.commit()
    definitions = source(tmp_path, str(repo.path)).poll()
    assert definitions is not None
    files = {finding.place.file for finding in definitions.findings}
    if team == "red.x":  # no name for a team
        assert files == {"teams/red/", "teams/red.x/two.yaml"}
    else:
        assert files == {"teams/red/"}
        assert set(definitions.environments) == {"two"}


def test_folders_inside_of_folders_have_an_end(repo: Repo, tmp_path: Path) -> None:
    """Git fails for all teams where they are nested too deep for it."""
    repo.write(f"teams/red/{'a/' * 300}x.txt", "")
    repo.write("teams/zoo/two.yaml", TWO)
    repo.commit()
    definitions = source(tmp_path, str(repo.path)).poll()
    assert definitions is not None
    assert set(definitions.environments) == {"two"}


def test_files_that_are_not_read_are_no_matter(repo: Repo, tmp_path: Path) -> None:
    """Any number of them is allowed; and a commit without definitions is not an empty one."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    bomb(repo, "docs")
    definitions = one.poll()
    assert definitions is not None
    assert definitions.environments
    repo.git("reset", "-q", "--soft", "HEAD~1")
    repo.git("rm", "-rq", "instances", "teams")
    repo.write("README.md", "bare")
    repo.commit()
    definitions = one.poll()
    assert definitions is not None
    assert not definitions.environments


def test_the_mirror_stays_small_and_keeps_what_records_name(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old revisions are removed after a while, except one that was rewritten but is in use."""
    monkeypatch.setattr("gitsource.source.TIDY_AFTER", 8)
    monkeypatch.setattr("gitsource.source.KEPT", 3)
    named = repo.commit()
    tree = repo.git("rev-parse", "HEAD:teams")
    state = tmp_path / "state"
    one = Source(GitSettings(url=str(repo.path)), state, tmp_path / "secrets", lambda: [named])
    one.poll()
    repo.git("checkout", "-q", "--orphan", "other")
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
    for _ in range(18):
        repo.commit()
        repo.git("branch", "-f", "main", "other")
        one.poll()
    refs = subprocess.run(
        ["git", "-C", str(state / "mirror.git"), "for-each-ref", "refs/groundcrew"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert named in refs
    assert len(refs.splitlines()) <= 3 + 1 + 8
    loose = [p for p in (state / "mirror.git/objects").glob("??/*") if p.is_file()]
    assert len(loose) < 3 * 8
    one.export(tree, tmp_path / "teams")


@pytest.mark.parametrize("damage", [None, "HEAD", "a lock"])
def test_who_only_reads_leaves_the_daemons_mirror_as_it_is(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    """`groundcrew plan` removes no ref of the daemon, and deletes no damaged mirror."""
    monkeypatch.setattr("gitsource.source.TIDY_AFTER", 2)
    monkeypatch.setattr("gitsource.source.KEPT", 1)
    one = source(tmp_path, str(repo.path))
    monkeypatch.setattr(one, "_tidy", lambda: None)  # it must find as many refs as there are
    for _ in range(3):
        repo.commit()
        one.poll()
    mirror = tmp_path / "state" / "mirror.git"
    if damage is not None:
        subprocess.run(["git", "-C", str(mirror), "gc", "-q"], check=True)
        DAMAGES[damage](mirror)
        repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
        repo.commit()
        (tmp_path / "state" / "definitions.db").unlink()
    before = mirror.stat().st_ino
    refs = sorted(mirror.glob("refs/groundcrew/*"))
    reader = Source(GitSettings(url=str(repo.path)), tmp_path / "state", tmp_path / "secrets")
    if damage is None:
        assert reader.poll() is not None
    else:
        with pytest.raises(Retryable) as caught:
            reader.poll()
        assert caught.value.reason == Reason.MIRROR_DAMAGED
    assert mirror.stat().st_ino == before
    assert set(refs) <= set(mirror.glob("refs/groundcrew/*"))
    assert one.poll() is not None or damage is None


def raw_commit(repo: Repo, author: str) -> str:
    """Write a commit object as given, which git would refuse, and make it the branch's newest."""
    tree, parent = repo.git("rev-parse", "HEAD^{tree}"), repo.git("rev-parse", "HEAD")
    text = f"tree {tree}\nparent {parent}\nauthor {author}\ncommitter {author}\n\nodd\n"
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--literally", "--stdin"],
        cwd=repo.path,
        input=text,
        check=True,
        capture_output=True,
        text=True,
    )
    repo.git("update-ref", "refs/heads/main", made.stdout.strip())
    return made.stdout.strip()


ODD_AUTHORS = {
    "a time zone that there is none of": "A <a@example.com> 1700000000 +99999",
    "no time zone": "A <a@example.com> 1700000000",
    "a date beyond all calendars": "A <a@example.com> 99999999999999999999 +0000",
    "a padded date": "A <a@example.com> 0001700000000 +0000",
    "no email": "A 1700000000 +0000",
    "no name": "<a@example.com> 1700000000 +0000",
}


@pytest.mark.parametrize("author", ODD_AUTHORS.values(), ids=ODD_AUTHORS.keys())
def test_an_odd_commit_stops_nobody(author: str, repo: Repo, tmp_path: Path) -> None:
    """History cannot be changed: one odd commit would block the repository for all teams."""
    repo.commit()
    odd = raw_commit(repo, author)
    one = source(tmp_path, str(repo.path))
    definitions = one.poll()
    assert definitions is not None
    assert definitions.commit.revision == odd
    assert 0.0 <= definitions.commit.at <= 253_402_300_799
    assert one._is_sound(), "the mirror is not thrown away for it either"


def test_a_harmful_object_is_refused_in_words(repo: Repo, tmp_path: Path) -> None:
    """The message explains a tree with a .git folder, and what to do."""
    repo.commit()
    blob = repo.git("rev-parse", "HEAD:instances/dev.yaml")
    rows = f"040000 tree {repo.git('rev-parse', 'HEAD:instances')}\tinstances\n"
    rows += f"100644 blob {blob}\t.git\n"
    made = subprocess.run(
        ["git", "mktree"], cwd=repo.path, input=rows, capture_output=True, text=True, check=True
    )
    parent = repo.git("rev-parse", "HEAD")
    commit = repo.git("commit-tree", made.stdout.strip(), "-p", parent, "-m", "harm")
    repo.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(Stalled) as refused:
        source(tmp_path, str(repo.path)).poll()
    assert refused.value.reason == Reason.SOURCE_UNSAFE
    assert "hasDotgit" in refused.value.message
    assert "git rebase" in refused.value.message
