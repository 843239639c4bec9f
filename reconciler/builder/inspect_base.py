"""Runs in an instance's interpreter: prints its inventory as JSON. Standard library only, 3.9+."""

import importlib.metadata
import json
import os
import platform
import re
import sys
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
    found: dict[str, dict[str, Any]] = {}
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if not name:
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        found.setdefault(
            key,
            {
                "name": key,
                "version": dist.version,
                "requires": dist.requires or [],
                "provides_extra": dist.metadata.get_all("Provides-Extra") or [],
                "requires_python": dist.metadata["Requires-Python"],
            },
        )
    return [found[key] for key in sorted(found)]


def _main() -> None:
    system = os.uname()
    document = {
        "python_version": platform.python_version(),
        "python_tag": "cp{}{}".format(*sys.version_info[:2]),
        "platform": f"{system.sysname.lower()}_{system.machine}",
        "tags": _tags(),
        "base": _inventory(),
    }
    sys.stdout.write(json.dumps(document))


_main()
