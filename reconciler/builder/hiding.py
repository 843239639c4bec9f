"""What of this machine a command in the sandbox sees: the system, and of the rest what it needs.

Temporary folders, homes and the daemon's own places are empty and cannot be written. Of two rules
for nested folders the inner one counts, so that an interpreter in a home is there without the home,
and secrets beside an interpreter are not.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

PRIVATE = (Path("/tmp"), Path("/var/tmp"), Path("/home"), Path("/root"))  # noqa: S108 - hidden
SOCKETS = (Path("/run"),)  # where services listen, and where Kubernetes puts its tokens
IN_HOME = (".ssh", ".config", ".netrc", ".kube", ".docker", ".aws", ".gnupg", ".git-credentials")
KERNEL = (Path("/proc"), Path("/dev"))  # a sandbox has its own
WHERE = """
import json, sys
print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]))
"""
LINKS_LIMIT = 40
WORDS = {"read": "--ro-bind", "write": "--bind"}
PATHS_LIMIT = 1 << 20  # bytes

_known: dict[str, tuple[list[Path], list[int]]] = {}
_lock = threading.Lock()


def _private() -> list[Path]:
    """Folders and files of people and services, as they are on this machine."""
    found = [*PRIVATE]
    home = Path(os.environ.get("HOME", "/"))
    if home.is_absolute() and not Path("/usr/bin").is_relative_to(home):
        found += [home, *(home / name for name in IN_HOME)]
    return found


def mounts(
    hidden: Iterable[Path],
    readable: Iterable[Path],
    writable: Iterable[Path],
    *,
    network: bool,
) -> list[str]:
    """Words for bubblewrap on top of a read-only `/`; what is not there is left out.

    `hidden` are the daemon's own places. What is readable or writable within a hidden folder is
    there. With the network there are sockets too: names are resolved by them.
    """
    private = _private() if network else [*_private(), *SOCKETS]
    rules: dict[Path, str] = {}
    for rule, paths in (
        ("hide", private),
        ("read", readable),
        ("hide", hidden),
        ("write", writable),
    ):
        for path in paths:
            *links, real = trail(path)
            if rule != "hide":
                rules |= dict.fromkeys(links, "link")
            rules[real] = rule
    words: list[str] = []
    empty: list[str] = []
    for path, rule in sorted(rules.items(), key=lambda item: (len(item[0].parts), item)):
        within = _around(path, rules)
        if rule == "link" and within == "hide":
            words += ["--symlink", str(path.readlink()), str(path)]
        elif rule in WORDS and path.exists():
            words += [WORDS[rule], str(path), str(path)]
        elif rule == "hide" and within != "hide" and path.is_dir():
            words += ["--tmpfs", str(path)]
            empty.append(str(path))
        elif rule == "hide" and within != "hide" and path.exists():
            words += ["--ro-bind", os.devnull, str(path)]
    for place in empty:
        words += ["--remount-ro", place]
    return words


def lays_bare(path: Path, hidden: Iterable[Path]) -> bool:
    """Would a folder that is readable show what is hidden: does it lie there, or is that in it.

    Within a home or a temporary folder it may lie: what is beside it is not shown.
    """
    real = trail(path)[-1]
    home = Path(os.environ.get("HOME", "/"))
    closed = [*hidden, *SOCKETS, *KERNEL, *(home / name for name in IN_HOME)]
    if any(real.is_relative_to(trail(place)[-1]) for place in closed):
        return True
    folders = [trail(place)[-1] for place in (*closed, *_private()) if place.is_dir()]
    return any(folder.is_relative_to(real) for folder in folders)


def _around(path: Path, rules: dict[Path, str]) -> str:
    """The rule of the nearest folder around a path that has one."""
    return next((rules[p] for p in path.parents if p in rules), "read")


def needed(command: Sequence[str]) -> list[Path]:
    """What a command's executables need: the first word, and what it is to use as `--python`.

    No other word is looked at: these two are the operator's, and an interpreter is run to ask it.
    """
    words = [command[0], *(b for a, b in itertools.pairwise(command) if a == "--python")]
    found: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_absolute() and path.is_file():
            found.append(path)
            if "python" in path.name:
                found += _places(word)
    return found


def own() -> list[Path]:
    """What this program's interpreter needs for the standard library."""
    return [Path(p) for p in (sys.executable, sys.prefix, sys.base_prefix)]


def trail(path: Path) -> list[Path]:
    """The links on the way to a path, each by its real folder, and then what is really there."""
    found: list[Path] = []
    todo = [*reversed(path.absolute().parts[1:])]
    place = Path("/")
    while todo:
        part = todo.pop()
        if part == "..":
            place = place.parent
        elif (place / part).is_symlink() and len(found) < LINKS_LIMIT:
            link = place / part
            found.append(link)
            target = link.readlink()
            place = Path("/") if target.is_absolute() else place
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        else:
            place /= part
    return [*found, place]


def _places(python: str) -> list[Path]:
    """Prefixes and import paths of an interpreter, asked anew when one of them has changed."""
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
