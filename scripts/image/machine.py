"""What building needs of this machine's configuration: package indexes, mirrors, a CA bundle.

The image is built with them and keeps none of them: they go into the build as its secrets
(`pip`, `apt`, `sources`, `ca`; see the Dockerfile), each of which is optional.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
INSIDE = Path("/run/secrets")  # where the Dockerfile finds them
PIP_LINE = re.compile(r"^(?P<section>[^.]+)\.(?P<key>[\w-]+)=(?P<value>['\"].*)$")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "find-links", "proxy")
APT_LINE = re.compile(r"^Acquire::(http|https)::.*(Proxy|Verify-Peer|Verify-Host)", re.IGNORECASE)
TIMEOUT = 120.0  # seconds of one question


def secrets(directory: Path) -> list[tuple[str, Path]]:
    """Write what the build needs below `directory`; the secrets' names and files."""
    bundle = ca_bundle()
    wanted = {"pip": pip_conf(bundle), "apt": apt_conf(bundle), "sources": sources()}
    found = [("ca", bundle)] if bundle else []
    for name, text in wanted.items():
        if text:
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(text)
            found.append((name, path))
    return found


def ca_bundle() -> Path | None:
    """The bundle of certificates that this environment names."""
    named = (Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name))
    return next((path for path in named if path.is_file()), None)


# ---------------------------------------------------------------------------------------------- pip


def pip_conf(bundle: Path | None) -> str:
    """A pip.conf with this machine's indexes; empty when it has none of its own."""
    found = _pip_settings()
    index = next((os.environ[name] for name in INDEXES if os.environ.get(name)), None)
    if index:
        found["index-url"] = index
    found["find-links"] = " ".join(
        place for place in found.get("find-links", "").split() if "://" in place
    )
    lines = [f"{key} = {' '.join(value.split())}" for key, value in found.items() if value]
    if bundle:
        lines.append(f"cert = {INSIDE / 'ca'}")
    return "\n".join(["[global]", "timeout = 60", *lines, ""]) if lines else ""


def _pip_settings() -> dict[str, str]:
    """What `pip config list` says of PIP_KEYS: variables, then `install`, then `global`."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in _say([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        match = PIP_LINE.match(line)
        if match is None or match["key"] not in PIP_KEYS or match["section"] not in ranks:
            continue
        value = str(ast.literal_eval(match["value"]))
        rank = ranks[match["section"]]
        if rank >= found.get(match["key"], (0, ""))[0]:
            found[match["key"]] = (rank, value)
    return {key: value for key, (_, value) in found.items()}


# ---------------------------------------------------------------------------------------------- apt


def mirror() -> str:
    """Where this machine reads Debian bookworm itself; empty: it does not say."""
    return next((uri for uri, suite, _ in _targets() if suite == SUITES[0]), "")


def sources() -> str:
    """A sources.list with this machine's mirrors of bookworm; empty: it has none."""
    rows = _targets()
    if not any(suite == SUITES[0] for _, suite, _ in rows):
        return ""
    return "".join(f"deb [signed-by={KEYRING}] {' '.join(row)}\n" for row in rows)


def apt_conf(bundle: Path | None) -> str:
    """An apt.conf with this machine's mirrors, proxies and certificates; empty: nothing of it."""
    lines = [row for row in _say(["apt-config", "dump"]).splitlines() if APT_LINE.match(row)]
    if bundle:
        lines.append(f'Acquire::https::CaInfo "{INSIDE / "ca"}";')
    if sources():
        lines += [f'Dir::Etc::SourceList "{INSIDE / "sources"}";', 'Dir::Etc::SourceParts "-";']
    return "\n".join([*lines, ""]) if lines else ""


def _targets() -> list[tuple[str, str, str]]:
    """(address, suite, component) of Debian bookworm in apt's sources.

    apt tells them only once it has read the lists; where they were cleaned away, it does so here.
    """
    found = _indexed([])
    if found or os.geteuid() != 0:
        return found
    with tempfile.TemporaryDirectory() as lists:
        elsewhere = ["-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User=root"]
        _say(["apt-get", *elsewhere, "update", "-qq"])
        return _indexed(elsewhere)


def _indexed(options: list[str]) -> list[tuple[str, str, str]]:
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    said = _say(
        ["apt-get", *options, "indextargets", "--format", form, "Created-By: Packages"],
    )
    rows = [line.split() for line in said.splitlines()]
    return [
        (row[0], row[1], row[2])
        for row in rows
        if len(row) == 4 and row[1] in SUITES and row[3] == "Debian"
    ]


def _say(command: list[str]) -> str:
    """What a command answers; nothing when it is not there or fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout
    return ""
