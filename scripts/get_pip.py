"""Install pip into the virtual environment that runs this, if Debian left out ensurepip.

The newest wheel comes from PyPI (or PIP_INDEX_URL), is checked against the index's SHA-256, and
installs itself. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

TIMEOUT = 60.0


def main() -> int:
    """Fetch and install pip; return its exit code."""
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/"
    page = urllib.parse.urljoin(index.rstrip("/") + "/", "pip/")
    wanted = {"Accept": "application/vnd.pypi.simple.v1+json"}
    request = urllib.request.Request(page, headers=wanted)  # noqa: S310 - the user's own index
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        files = json.load(answer)["files"]
    wheels = [f for f in files if f["filename"].endswith("-py3-none-any.whl")]
    wheel = [f for f in wheels if not f["yanked"]][-1]
    with urllib.request.urlopen(  # noqa: S310
        urllib.parse.urljoin(page, wheel["url"]), timeout=TIMEOUT
    ) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["hashes"]["sha256"]:
        sys.stderr.write(f"{wheel['filename']} does not have the digest that {page} names\n")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / wheel["filename"]
        path.write_bytes(content)
        return subprocess.run(
            [sys.executable, f"{path}/pip", "install", "--quiet", str(path)], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
