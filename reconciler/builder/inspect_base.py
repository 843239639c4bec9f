"""Runs in an instance's interpreter: prints its inventory as JSON. Standard library only, 3.9+."""

import importlib.metadata
import json
import os
import platform
import re
import sys


def _tags():
    for name in ("packaging.tags", "pip._vendor.packaging.tags"):
        try:
            module = __import__(name, fromlist=["sys_tags"])
        except ImportError:
            continue
        return [str(tag) for tag in module.sys_tags()]
    version = "".join(map(str, sys.version_info[:2]))
    return ["cp%s-abi3-linux_%s" % (version, platform.machine()), "py3-none-any"]


def _inventory():
    found = {}
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
                "requires_python": dist.metadata.get("Requires-Python"),
            },
        )
    return [found[key] for key in sorted(found)]


def _main():
    system = os.uname()
    document = {
        "python_version": platform.python_version(),
        "python_tag": "cp%d%d" % sys.version_info[:2],
        "platform": "%s_%s" % (system.sysname.lower(), system.machine),
        "tags": _tags(),
        "base": _inventory(),
    }
    sys.stdout.write(json.dumps(document))


_main()
