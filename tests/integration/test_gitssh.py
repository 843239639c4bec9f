"""The environments repo over ssh: a real OpenSSH server on loopback, with keys from files."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from tests.harness.git_repo import Repo, source

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {root}/host
AuthorizedKeysFile {root}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""

pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None,
    reason="no sshd or ssh here: install openssh-server and openssh-client",
)


@dataclass
class Server:
    """A server that admits `key`, for the repo at `url`; `known` is its line of known_hosts."""

    repo: Repo
    url: str
    key: Path
    known: str


def make_key(path: Path) -> Path:
    """Create a new pair of keys."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a real sshd as a process of this user."""
    repo = Repo(tmp_path / "environments")
    repo.commit()
    root = tmp_path / "sshd"
    root.mkdir()
    host, key = make_key(root / "host"), make_key(root / "key")
    shutil.copy(key.with_suffix(".pub"), root / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "config").write_text(CONFIG.format(port=port, root=root))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the directory for root's privilege separation
    log = root / "log"
    with log.open("wb") as out:
        command = [str(SSHD), "-D", "-e", "-f", str(root / "config")]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while "Server listening" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        user = pwd.getpwuid(os.getuid()).pw_name
        kind, public, *_ = host.with_suffix(".pub").read_text().split()
        known = f"[127.0.0.1]:{port} {kind} {public}\n"
        yield Server(repo, f"ssh://{user}@127.0.0.1:{port}{repo.path}", key, known)
    finally:
        process.terminate()
        process.wait(timeout=20)


def secrets(tmp_path: Path, key: Path, known: str) -> Path:
    """Create the secret files of the environments repo."""
    folder = tmp_path / "secrets" / "git"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(key, folder / "ssh-privatekey")
    (folder / "ssh-privatekey").chmod(0o600)
    (folder / "known_hosts").write_text(known)
    return folder


def test_the_right_key_opens_the_repo_and_is_kept_nowhere(server: Server, tmp_path: Path) -> None:
    """The repo, and a later revision, is fetched by git's own program over ssh."""
    secrets(tmp_path, server.key, server.known)
    one = source(tmp_path, server.url)
    definitions = one.poll()
    assert definitions is not None
    assert definitions.environments
    assert one.poll() is None
    server.repo.commit()
    assert one.poll() is not None
    secret = server.key.read_bytes().splitlines()[1]
    kept = [p for p in (tmp_path / "state").rglob("*") if p.is_file()]
    assert kept
    assert not [p for p in kept if secret in p.read_bytes()]


def test_a_key_that_is_not_let_in_is_refused_credentials(server: Server, tmp_path: Path) -> None:
    """The message says where the key is; the right one in that place is used at once."""
    folder = secrets(tmp_path, make_key(tmp_path / "wrong"), server.known)
    one = source(tmp_path, server.url)
    with pytest.raises(Retryable) as caught:
        one.poll()
    assert caught.value.reason == Reason.SOURCE_DENIED
    assert "<secrets_dir>/git/" in caught.value.message
    assert "Permission denied (publickey)" in caught.value.message
    shutil.copy(server.key, folder / "ssh-privatekey")
    assert one.poll() is not None


@pytest.mark.parametrize("known", ["unknown", "another"])
def test_a_host_key_that_is_not_known_is_not_trusted(
    known: str, server: Server, tmp_path: Path
) -> None:
    """An unknown host is refused, as is another key; no prompt appears, no key is stored."""
    where = server.known.split()[0]
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    line = "" if known == "unknown" else f"{where} {other}"
    folder = secrets(tmp_path, server.key, line)
    with pytest.raises(Retryable) as caught:
        source(tmp_path, server.url).poll()
    assert caught.value.reason == Reason.SOURCE_CERTIFICATE
    assert "known_hosts" in caught.value.message
    assert (folder / "known_hosts").read_text() == line


def test_a_key_that_others_may_read_is_told(server: Server, tmp_path: Path) -> None:
    """The program ignores such a key; the message has what ssh says about its mode."""
    folder = secrets(tmp_path, server.key, server.known)
    (folder / "ssh-privatekey").chmod(0o644)
    with pytest.raises(Retryable) as caught:
        source(tmp_path, server.url).poll()
    assert caught.value.reason == Reason.SOURCE_DENIED
    assert "bad permissions" in caught.value.message
