"""Files visible to a sandboxed command: the system's, its own and the folders that it needs.

Of two rules for nested folders the inner one applies, so that an interpreter in a home is visible
without the home, and secrets beside an interpreter are not.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PRIVATE = (Path("/tmp"), Path("/var/tmp"), Path("/home"), Path("/root"))  # noqa: S108 - hidden
SOCKETS = (Path("/run"),)  # sockets of services, and tokens of Kubernetes
IN_HOME = (".ssh", ".config", ".netrc", ".kube", ".docker", ".aws", ".gnupg", ".git-credentials")
KERNEL = (Path("/proc"), Path("/dev"), Path("/sys"))  # a sandbox has its own, or none
WHERE = """
import json, sys
print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]))
"""
LINKS_LIMIT = 40
BINDS = {"read": "--ro-bind", "write": "--bind"}
SYSTEM = (
    # Programs, libraries, headers.
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    # Configuration of library paths and alternatives.
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    # Certificate authorities; never private keys.
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies",
    # Names, times and types.
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/resolv.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/redhat-release",
    "/etc/lsb-release",
)
PATHS_LIMIT = 1 << 20  # bytes

_known: dict[str, tuple[list[Path], list[int]]] = {}
_lock = threading.Lock()


def _private() -> list[Path]:
    """Return folders and files of people and services, as they are on this machine."""
    paths = [*PRIVATE]
    home = Path(os.environ.get("HOME", "/"))
    if home.is_absolute() and not Path("/usr/bin").is_relative_to(home):
        paths += [home, *(home / name for name in IN_HOME)]
    return paths


def view(
    hidden: Iterable[Path],
    readable: Iterable[Path],
    writable: Iterable[Path],
) -> list[str]:
    """Return bubblewrap's arguments for a root directory that has these folders and the system.

    Nothing else of this machine is visible. `hidden` are the daemon's own folders: within readable
    folders they are empty, except for what is named inside them.
    """
    rules = _rules(hidden, readable, writable)
    arguments: list[str] = []
    empty: list[str] = []
    made: set[Path] = set()
    for path, rule in sorted(rules.items(), key=lambda item: (len(item[0].parts), item)):
        within = _around(path, rules)
        if rule == within or path in KERNEL or not os.path.lexists(path):
            continue
        if within == "hide":
            arguments += _folders(path, rules, made)
        arguments += _mount(path, rule, within)
        if rule == "hide" and path.is_dir():
            empty.append(str(path))
    for folder in empty:
        arguments += ["--remount-ro", folder]
    return arguments


def _rules(
    hidden: Iterable[Path], readable: Iterable[Path], writable: Iterable[Path]
) -> dict[Path, str]:
    """Return the rule for each named path; later kinds override earlier ones."""
    rules: dict[Path, str] = {}
    for rule, paths in (
        ("read", system()),
        ("hide", [*_private(), *SOCKETS]),
        ("read", readable),
        ("hide", hidden),
        ("write", writable),
    ):
        for path in paths:
            *links, real = trail(path)
            if rule != "hide":
                rules |= dict.fromkeys(links, "link")
            rules[real] = rule
    return rules


def _mount(path: Path, rule: str, within: str) -> list[str]:
    """Return the arguments for one path, given the rule of the folder around it."""
    if rule in BINDS:
        return [BINDS[rule], str(path), str(path)]
    if rule == "hide":
        if path.is_dir():
            return ["--tmpfs", str(path)]
        return ["--ro-bind", os.devnull, str(path)]
    return ["--symlink", str(path.readlink()), str(path)] if within == "hide" else []


def _folders(path: Path, rules: Mapping[Path, str], made: set[Path]) -> list[str]:
    """Return arguments that create a path's parents: bubblewrap would make them private.

    Parents that are bound, or are in one that is, exist already.
    """
    missing = [
        folder
        for folder in reversed(path.parents[:-1])
        if folder not in made and rules.get(folder, _around(folder, rules)) == "hide"
    ]
    made.update(missing)
    return [argument for folder in missing for argument in ("--dir", str(folder))]


def system() -> list[Path]:
    """Return what every command may read of this machine: programs, libraries, certificates."""
    paths = [Path(path) for path in SYSTEM]
    return [*paths, *Path("/etc").glob("java-*")]


def lays_bare(path: Path, hidden: Iterable[Path]) -> bool:
    """Return True if a readable folder is in a hidden folder, or contains one.

    It may be within a home or a temporary folder: what is beside it is not visible.
    """
    real = trail(path)[-1]
    home = Path(os.environ.get("HOME", "/"))
    closed = [*hidden, *SOCKETS, *KERNEL, Path("/etc"), *(home / name for name in IN_HOME)]
    if any(real.is_relative_to(trail(other)[-1]) for other in closed):
        return True
    folders = [trail(other)[-1] for other in (*closed, *_private()) if other.is_dir()]
    return any(folder.is_relative_to(real) for folder in folders)


def _around(path: Path, rules: Mapping[Path, str]) -> str:
    """Return the rule of the nearest folder around a path; without one, nothing is visible."""
    return next((rules[p] for p in path.parents if rules.get(p, "link") != "link"), "hide")


def needed(command: Sequence[str]) -> list[Path]:
    """Return what a command's executables need: the first word, and the argument of `--python`.

    No other word is considered: these two come from the operator, and an interpreter is run to
    query it.
    """
    executables = [command[0], *(b for a, b in itertools.pairwise(command) if a == "--python")]
    paths: list[Path] = []
    for word in executables:
        path = Path(word)
        if path.is_absolute() and path.is_file():
            paths.append(path)
            if "python" in path.name:
                paths += _places(word)
    return paths


def own() -> list[Path]:
    """Return what this program's own interpreter needs for the standard library."""
    return [Path(p) for p in (sys.executable, sys.prefix, sys.base_prefix)]


def trail(path: Path) -> list[Path]:
    """Return the links on the way to a path, each by its real folder, and then the real path."""
    links: list[Path] = []
    todo = [*reversed(path.absolute().parts[1:])]
    current = Path("/")
    while todo:
        part = todo.pop()
        if part == "..":
            current = current.parent
        elif (current / part).is_symlink() and len(links) < LINKS_LIMIT:
            link = current / part
            links.append(link)
            target = link.readlink()
            current = Path("/") if target.is_absolute() else current
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        else:
            current /= part
    return [*links, current]


def _places(python: str) -> list[Path]:
    """Return prefixes and import paths of an interpreter, queried again if one has changed."""
    with _lock:
        paths, marks = _known.get(python, ([], []))
        if not paths or marks != _marks(paths):
            paths = _ask(python)
            _known[python] = paths, _marks(paths)
        return paths


def _marks(paths: list[Path]) -> list[int]:
    return [p.stat().st_mtime_ns if p.exists() else 0 for p in paths]


def _ask(python: str) -> list[Path]:
    try:
        done = subprocess.run(
            [python, "-I", "-c", WHERE],
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd="/",
        )
        told: list[str] = json.loads(done.stdout[:PATHS_LIMIT])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return [Path(python).parent.parent]
    return [Path(p) for p in told if p and p != "/"]
