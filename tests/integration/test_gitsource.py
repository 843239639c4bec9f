"""The environments repo on real git: access, and the handling of every fault."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gitsource import blame
from gitsource.access import check_url
from gitsource.triggers import watch
from gitsource.validate import validate
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from tests.harness.git_repo import ENVIRONMENT, INSTANCE, Repo, read, source

TOKEN = "t0ken-of-the-test"


def test_an_unchanged_repo_is_read_once(repo: Repo, tmp_path: Path) -> None:
    """A second poll finds nothing, and leaves no process behind."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    assert one.poll() is not None
    assert one.poll() is None


def test_a_package_of_the_repo_that_is_not_listed_is_named(repo: Repo, tmp_path: Path) -> None:
    """The daemon reads project files from git, and says what `validate` says of a checkout."""
    project = "[project]\nname = 'acme-{}'\ndependencies = [{}]\n"
    repo.write("teams/red/packages/app/pyproject.toml", project.format("app", "'acme-lib'"))
    repo.write("teams/red/packages/lib/pyproject.toml", project.format("lib", ""))
    own = "requirements: ['acme-app @ ./packages/app']"
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("requirements: [humanize]", own))
    repo.commit()
    daemon = source(tmp_path, str(repo.path))
    definitions = daemon.poll()
    assert definitions is not None
    assert definitions.findings == tuple(validate(repo.path)[1])
    assert [finding.reason for finding in definitions.findings] == ["NotListed"]
    repo.write("teams/red/packages/app/pyproject.toml", project.format("app", ""))
    repo.commit()
    definitions = daemon.poll()
    assert definitions is not None
    assert definitions.findings == ()
    assert definitions.environments["one"].recipe.internal == (
        ("acme-lib", "teams/red/packages/lib"),
    )


def two(repo: Repo) -> None:
    """Write a second environment with a package of its own, and a fragment that both use."""
    repo.write("instances/two.yaml", INSTANCE.replace("name: dev", "name: two"))
    extended = ENVIRONMENT.replace("spec:\n", "spec:\n  extends: [common]\n")
    repo.write("teams/red/one.yaml", extended)
    text = extended.replace("name: one", "name: two").replace(
        "instances: [dev]", "instances: [two]"
    )
    text = text.replace("[humanize]", "['acme-app @ ./packages/app']")
    repo.write("teams/red/two.yaml", text)
    project = "[project]\nname = 'acme-app'\nversion = '1.0'\n"
    repo.write("teams/red/packages/app/pyproject.toml", project)
    repo.write(
        "shared/common.yaml",
        "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: common}\nspec: {}\n",
    )
    repo.commit()


def test_each_environment_has_the_commit_that_touched_it(repo: Repo, tmp_path: Path) -> None:
    """Several commits come between two polls; a merge counts as one."""
    two(repo)
    daemon = source(tmp_path, str(repo.path))
    assert daemon.poll() is not None
    one = (repo.path / "teams/red/one.yaml").read_text()
    repo.write("teams/red/one.yaml", one.replace("humanize", "humanize>4"))
    first = repo.commit()
    repo.git("checkout", "-q", "-b", "branch")
    repo.write("teams/red/packages/app/app.py", "x = 1\n")
    repo.commit()
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "--no-ff", "-m", "merged", "branch")
    merge = repo.git("rev-parse", "HEAD")
    repo.write("instances/two.yaml", (repo.path / "instances/two.yaml").read_text() + "#\n")
    repo.write("README.md", "words\n")
    newest = repo.commit()
    definitions = daemon.poll()
    assert definitions is not None
    assert definitions.commit.revision == newest
    assert {n: c.revision for n, c in definitions.commits.items()} == {"one": first, "two": merge}
    assert definitions.commits["two"].subject == "merged"


def test_a_fragment_is_blamed_in_all_that_use_it(repo: Repo, tmp_path: Path) -> None:
    """A commit after it that touches neither is not."""
    two(repo)
    daemon = source(tmp_path, str(repo.path))
    daemon.poll()
    fragment = (repo.path / "shared/common.yaml").read_text()
    repo.write("shared/common.yaml", fragment.replace("spec: {}", "spec: {env: {A: b}}"))
    shared = repo.commit()
    repo.write("README.md", "words\n")
    repo.commit()
    definitions = daemon.poll()
    assert definitions is not None
    assert {n: c.revision for n, c in definitions.commits.items()} == {"one": shared, "two": shared}


def test_a_requirements_file_is_read_again_when_it_changes(repo: Repo, tmp_path: Path) -> None:
    """As a bot commits it: the definition stays as it is, and a file that it includes is added."""
    named = ENVIRONMENT.replace("[humanize]", "[requirements.txt]")
    repo.write("teams/red/one.yaml", named)
    repo.write("teams/red/requirements.txt", "humanize==4.8\n-r base.txt\n")
    repo.commit()
    daemon = source(tmp_path, str(repo.path))
    before = daemon.poll()
    assert before is not None
    assert ["base.txt is not in the repo" in f.message for f in before.findings] == [True]
    repo.write("teams/red/base.txt", "tabulate\n")
    bot = repo.commit()
    repo.write("README.md", "words\n")
    repo.commit()
    after = daemon.poll()
    assert after is not None
    assert after.findings == ()
    recipe = after.environments["one"].recipe
    assert [r.text for r in recipe.requirements] == ["humanize==4.8", "tabulate"]
    assert recipe == validate(repo.path)[0].environments["one"].recipe
    assert {name: commit.revision for name, commit in after.commits.items()} == {"one": bot}


def test_one_commit_and_very_many_are_not_told_apart(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest commit counts for all."""
    monkeypatch.setattr(blame, "COMMITS", 2)
    repo.commit()
    daemon = source(tmp_path, str(repo.path))
    daemon.poll()
    for commits in (1, 3):
        for number in range(commits):
            text = ENVIRONMENT.replace("humanize", f"humanize>{commits}.{number}")
            repo.write("teams/red/one.yaml", text)
            repo.commit()
        definitions = daemon.poll()
        assert definitions is not None
        assert definitions.commits == {}


def test_rewritten_history_is_followed(repo: Repo, tmp_path: Path) -> None:
    """After a force-push the branch's newest commit counts."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    repo.git("checkout", "-q", "--orphan", "other")
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
    revision = repo.commit()
    repo.git("branch", "-f", "main", "other")
    definitions = one.poll()
    assert definitions is not None
    assert definitions.commit.revision == revision
    assert definitions.environments["one"].recipe.requirements[0].text == "attrs"


def test_a_deleted_branch_and_an_empty_repo_say_so(repo: Repo, tmp_path: Path) -> None:
    """Neither is taken for a revision without definitions."""
    with pytest.raises(Retryable) as caught:
        source(tmp_path, str(repo.path)).poll()
    assert caught.value.reason == Reason.SOURCE_EMPTY
    repo.commit()
    repo.git("branch", "-m", "main", "other")
    with pytest.raises(Retryable) as caught:
        source(tmp_path, str(repo.path)).poll()
    assert caught.value.reason == Reason.BRANCH_MISSING


def test_a_scheme_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    """Commands in an address never reach git."""
    for url in ("ext::sh -c id", "http://h.example/x.git", "--upload-pack=id"):
        with pytest.raises(GroundcrewError) as caught:
            source(tmp_path, url).poll()
        assert isinstance(caught.value, Stalled), url


@pytest.mark.parametrize(
    ("url", "file"),
    [
        (f"https://{TOKEN}@h.example/x.git", "git/token"),
        (f"https://me:{TOKEN}@h.example/x.git", "git/token"),
        (f"https://me:pass/{TOKEN}@h.example/x.git", "git@host:path"),
        (f"ssh://git:{TOKEN}@h.example/x.git", "git/ssh-privatekey"),
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_shown(
    url: str, file: str, tmp_path: Path
) -> None:
    """The message names the file to use instead; no log of git's has the token."""
    with pytest.raises(Stalled) as caught:
        source(tmp_path, url).poll()
    assert caught.value.reason == Reason.SOURCE_UNKNOWN
    assert file in caught.value.message
    assert TOKEN not in caught.value.message
    with pytest.raises(Stalled) as caught:
        watch(url, lambda: None)
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize(
    "words",
    ["https://h.example:8443/a@b.git", "ssh://git@h.example/x", "git@h.example:x", "file:///a@b"],
)
def test_an_address_without_a_secret_is_taken(words: str) -> None:
    """An ssh user is no secret, nor is a path that only looks like user info."""
    check_url(words, ("https", "ssh", "file"))


def test_a_remote_that_is_down_or_hangs_ends_in_time(tmp_path: Path) -> None:
    """After a closed port, or a server that never answers, a later try makes sense."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(Retryable) as caught:
        source(tmp_path, f"https://127.0.0.1:{port}/x.git").poll()
    assert caught.value.reason == Reason.SOURCE_UNREACHABLE
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with pytest.raises(Retryable) as caught:
            source(tmp_path, url, timeout=1.0).poll()
    assert "within 1 s" in caught.value.message


def test_hooks_and_the_users_configuration_are_ignored(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a global setting nor a hook of the machine runs anything."""
    home = tmp_path / "home"
    home.mkdir()
    marker = tmp_path / "ran"
    (home / ".gitconfig").write_text(
        f'[core]\n  sshCommand = touch {marker}\n[alias]\n  fetch = "!touch {marker}"\n'
        f'[url "/nowhere"]\n  insteadOf = {repo.path}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    assert read(repo, tmp_path).environments
    assert not marker.exists()


def test_a_commit_in_a_local_repo_wakes_at_once(repo: Repo) -> None:
    """The watcher calls back when a ref changes."""
    repo.commit()
    woken = threading.Event()
    watcher = watch(str(repo.path), woken.set)
    assert watcher is not None
    try:
        repo.commit()
        assert woken.wait(timeout=10)
    finally:
        watcher.close()


# ------------------------------------------------------------------------------------ credentials


@pytest.fixture
def served(repo: Repo) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Serve the repo by `git http-backend` with basic auth; yield its URL and the users seen."""
    repo.commit()
    wanted = "Basic " + b64encode(f"git:{TOKEN}".encode()).decode()
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def _serve(self) -> None:
            given = self.headers.get("Authorization", "")
            seen.append(given)
            if given != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                env={
                    **os.environ,
                    "GIT_PROJECT_ROOT": str(repo.path.parent),
                    "PATH_INFO": path,
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
                check=False,
            )
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            self.send_response(200)
            for line in head.decode().splitlines():
                name, _, value = line.partition(": ")
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(rest)

        do_GET = do_POST = _serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/environments/.git", lambda: seen
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_a_token_opens_the_repo_and_is_kept_nowhere(
    served: tuple[str, Callable[[], list[str]]], tmp_path: Path
) -> None:
    """The token comes from its file; neither the mirror nor a message has it."""
    url, _ = served
    secret = tmp_path / "secrets" / "git"
    secret.mkdir(parents=True)
    (secret / "token").write_text(TOKEN + "\n")
    allowed = ("http",)
    assert source(tmp_path, url, allow_schemes=allowed).poll() is not None
    kept = [p for p in (tmp_path / "state").rglob("*") if p.is_file()]
    assert kept
    assert not [p for p in kept if TOKEN.encode() in p.read_bytes()]
    (secret / "token").write_text("wr0ng-one")
    with pytest.raises(Retryable) as caught:
        source(tmp_path, url, allow_schemes=allowed).poll()
    assert caught.value.reason == Reason.SOURCE_DENIED
    assert "wr0ng-one" not in caught.value.message
