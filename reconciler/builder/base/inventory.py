"""Inventory of an instance's base, written as JSON. Runs in its interpreter.

Standard library only, Python 3.9+. `<answer>` is the output file: what the interpreter prints may
contain warnings. With `find <answer>` it first switches to the interpreter that the `airflow` on
PATH names.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any


def _tags() -> list[str]:
    for name in ("packaging.tags", "pip._vendor.packaging.tags"):
        try:
            module = __import__(name, fromlist=["sys_tags"])
        except ImportError:
            continue
        return [str(tag) for tag in module.sys_tags()]
    version = "".join(map(str, sys.version_info[:2]))
    return [f"cp{version}-abi3-linux_{platform.machine()}", "py3-none-any"]


def _inventory() -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {}
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if not name:
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        by_name.setdefault(
            key,
            {
                "name": key,
                "version": dist.version,
                "requires": dist.requires or [],
                "provides_extra": dist.metadata.get_all("Provides-Extra") or [],
                "requires_python": dist.metadata["Requires-Python"],
            },
        )
    return [by_name[key] for key in sorted(by_name)]


def _listing() -> str:
    """Return a fingerprint of the names in Airflow's folder, as the loader sees them at its start.

    "" if the loader would not see Airflow.
    """
    for folder in sys.path:
        if not folder.endswith("-packages"):
            continue
        try:
            names = sorted(path.name for path in Path(folder).glob("*.dist-info"))
        except OSError:
            continue
        if any(name.startswith(("apache_airflow-", "apache_airflow_core-")) for name in names):
            return f"{zlib.crc32(os.fsencode(chr(10).join(names))):08x}"
    return ""


def _airflows_own() -> str:
    """Return the interpreter that runs Airflow, from the first line of its command."""
    command = shutil.which("airflow")
    if command is None:
        return sys.executable
    with Path(command).open("rb") as file:
        shebang = file.readline(4096).decode(errors="replace").split()
    named = shebang[0][2:] if shebang and shebang[0].startswith("#!") else ""
    return named if Path(named).is_absolute() and os.access(named, os.X_OK) else sys.executable


def _main() -> None:
    *mode, answer = sys.argv[1:]
    if mode == ["find"]:
        own = _airflows_own()
        os.execv(own, [own, __file__, answer])  # noqa: S606 - the image's own interpreter
    system = os.uname()
    document = {
        "python": sys.executable,
        "python_version": platform.python_version(),
        "python_tag": "cp{}{}".format(*sys.version_info[:2]),
        "platform": f"{system.sysname.lower()}_{system.machine}",
        "tags": _tags(),
        "base": _inventory(),
        "listing": _listing(),
    }
    Path(answer).write_text(json.dumps(document))


_main()
