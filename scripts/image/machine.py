"""Configuration of this machine for the image build: package indexes, mirrors, a CA bundle.

The build uses them without keeping them in the image: they are passed as build secrets (`pip`,
`apt`, `sources`, `ca`; see the Dockerfile), each of which is optional.
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
INSIDE = Path("/run/secrets")  # directory in which the Dockerfile finds them
PIP_LINE = re.compile(r"^(?P<section>[^.]+)\.(?P<key>[\w-]+)=(?P<value>['\"].*)$")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "find-links", "proxy")
APT_LINE = re.compile(r"^Acquire::(http|https)::.*(Proxy|Verify-Peer|Verify-Host)", re.IGNORECASE)
TIMEOUT = 120.0  # seconds per command


def secrets(directory: Path) -> list[tuple[str, Path]]:
    """Write the build's secrets below `directory`; return their names and files."""
    bundle = ca_bundle()
    wanted = {"pip": pip_conf(bundle), "apt": apt_conf(bundle), "sources": sources()}
    files = [("ca", bundle)] if bundle else []
    for name, text in wanted.items():
        if text:
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(text)
            files.append((name, path))
    return files


def ca_bundle() -> Path | None:
    """Return the certificate bundle named by the environment, or None."""
    named = (Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name))
    return next((path for path in named if path.is_file()), None)


# ---------------------------------------------------------------------------------------------- pip


def pip_conf(bundle: Path | None) -> str:
    """Return a pip.conf with this machine's indexes, or "" if it has none of its own."""
    settings = _pip_settings()
    index = next((os.environ[name] for name in INDEXES if os.environ.get(name)), None)
    if index:
        settings["index-url"] = index
    settings["find-links"] = " ".join(
        location for location in settings.get("find-links", "").split() if "://" in location
    )
    lines = [f"{key} = {' '.join(value.split())}" for key, value in settings.items() if value]
    if bundle:
        lines.append(f"cert = {INSIDE / 'ca'}")
    return "\n".join(["[global]", "timeout = 60", *lines, ""]) if lines else ""


def _pip_settings() -> dict[str, str]:
    """Return pip's settings for PIP_KEYS; variables override `install`, then `global`."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    ranked: dict[str, tuple[int, str]] = {}
    for line in _say([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        match = PIP_LINE.match(line)
        if match is None or match["key"] not in PIP_KEYS or match["section"] not in ranks:
            continue
        value = str(ast.literal_eval(match["value"]))
        rank = ranks[match["section"]]
        if rank >= ranked.get(match["key"], (0, ""))[0]:
            ranked[match["key"]] = (rank, value)
    return {key: value for key, (_, value) in ranked.items()}


# ---------------------------------------------------------------------------------------------- apt


def mirror() -> str:
    """Return the mirror from which this machine reads Debian bookworm, or "" if unknown."""
    return next((uri for uri, suite, _ in _targets() if suite == SUITES[0]), "")


def sources() -> str:
    """Return a sources.list with this machine's mirrors of bookworm, or "" if it has none."""
    rows = _targets()
    if not any(suite == SUITES[0] for _, suite, _ in rows):
        return ""
    return "".join(f"deb [signed-by={KEYRING}] {' '.join(row)}\n" for row in rows)


def apt_conf(bundle: Path | None) -> str:
    """Return an apt.conf with this machine's mirrors, proxies and certificates, or ""."""
    lines = [row for row in _say(["apt-config", "dump"]).splitlines() if APT_LINE.match(row)]
    if bundle:
        lines.append(f'Acquire::https::CaInfo "{INSIDE / "ca"}";')
    if sources():
        lines += [f'Dir::Etc::SourceList "{INSIDE / "sources"}";', 'Dir::Etc::SourceParts "-";']
    return "\n".join([*lines, ""]) if lines else ""


def _targets() -> list[tuple[str, str, str]]:
    """Return (address, suite, component) of Debian bookworm in apt's sources.

    apt lists them only after it has read the package lists; if those were removed, they are read
    here into a temporary directory.
    """
    targets = _indexed([])
    if targets or os.geteuid() != 0:
        return targets
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
    """Return a command's output, or "" if it is missing or fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout
    return ""
