"""Start inputs of the fuzzing: one of each kind that the product accepts, and some it refuses."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reconciler.share.packs import write_pack
from tests.fuzz.targets import BUILD, HOOK_SECRET
from tests.harness.git_repo import ENVIRONMENT, INSTANCE
from tests.harness.wheels import make_wheel

FULL = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {name: one}
spec:
  extends: [base]
  requirements: ["pandas>=2,<3", acme @ ./packages/acme]
  requirementsFiles: [requirements.txt]
  indexes: [{name: ours, url: "https://index.example/simple", credentials: index}]
  sourceBuilds: [old]
  env: {ACME_MODE: "on"}
  checks: {imports: [acme], dags: [dags/one.py]}
  rollout:
    - {instances: [dev], soak: 5m}
"""
FRAGMENT = """\
apiVersion: groundcrew/v1
kind: Fragment
metadata: {name: base}
spec: {requirements: [humanize]}
"""
HTML = """\
<!DOCTYPE html><html><head><base href="https://files.example/"></head><body>
<a href="acme-1.0-py3-none-any.whl#sha256=abc" data-requires-python="&gt;=3.9">acme-1.0</a>
<a href=../acme-1.1.tar.gz data-yanked="broken">acme-1.1.tar.gz</a></body></html>
"""
PAGE = {
    "meta": {"api-version": "1.0"},
    "name": "acme",
    "files": [
        {
            "filename": "acme-1.0-py3-none-any.whl",
            "url": "acme-1.0-py3-none-any.whl",
            "hashes": {"sha256": "abc"},
            "requires-python": ">=3.9",
            "yanked": False,
        }
    ],
}
PROBLEM = {
    "kind": "import",
    "what": "acme",
    "distribution": "acme",
    "error": "ImportError: no",
    "file": "",
    "line": 0,
    "traceback": "",
}
REPORT = {
    "fatal": [PROBLEM],
    "warnings": [{**PROBLEM, "kind": "slow"}],
    "modules": 1,
    "seconds": 0.5,
    "opens": 2,
    "files": 2,
    "hot": [["d" * 64, ["lib/acme.py"]]],
}


def seeds() -> dict[str, list[bytes]]:
    """Return the seeds of each target."""
    github = hmac.new(HOOK_SECRET, b"{}", hashlib.sha256).hexdigest().encode()
    return {
        "definitions": [
            b"\0" + ENVIRONMENT.encode(),
            b"\0" + FULL.encode(),
            b"\1" + INSTANCE.encode(),
            b"\2" + FRAGMENT.encode(),
        ],
        "constraints": [b"pandas<3\nnumpy==2.0.1 ; python_version < '3.12'  # why\n-r other\n"],
        "requirements": [
            b"# why\npandas<3 ; python_version < '3.12'\n-r base.txt\n-c limits.txt\n-e ./acme\n",
            b"acme==1 \\\n    --hash=sha256:" + b"0" * 64 + b"\n    # via -r base.in\n",
        ],
        "index_page": [b"\0" + HTML.encode(), b"\xff" + json.dumps(PAGE).encode()],
        "wheel": [_made(_wheel)],
        "pack": [_made(partial(_pack, hot)) for hot in (None, {"lib/acme.py"})],
        "loader": [_loader()],
        "webhook": [b"\0sha256=" + github + b"\n{}", b"\xff" + HOOK_SECRET + b"\n{}", b"\0\n{}"],
        "report": [
            json.dumps(REPORT).encode(),
            json.dumps([{"filepath": "/dags/one.py", "error": "no"}]).encode(),
        ],
    }


def _made(make: Callable[[Path], Path]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="groundcrew-fuzz-") as folder:
        return make(Path(folder)).read_bytes()


def _wheel(folder: Path) -> Path:
    return make_wheel(folder, "acme", files={"acme/__init__.py": "x = 1\n"})


def _pack(hot: set[str] | None, folder: Path) -> Path:
    source = folder / "entry"
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "acme.py").write_text("x = 1\n" * 100)
    path = folder / "entry.pack"
    write_pack(source, {"lib/acme.py": (600, 0o644)}, hot, path)
    return path


def _loader() -> bytes:
    system = os.uname()
    abi = "cp{}{}-{}_{}".format(*sys.version_info[:2], system.sysname.lower(), system.machine)
    named = {"build": BUILD, "abi": abi, "airflow": "3.3.2", "listing": ""}
    pointer = {"schema": 1, "loadInto": ["scheduler"], "builds": {"runtime": named}}
    entry = f"store/sha256/dd/{'d' * 64}"
    manifest = {
        "build": BUILD,
        "abi": abi,
        "entries": ["d" * 64],
        "paths": [{"path": f"{entry}/lib", "pth": False}],
        "env": {"ACME_MODE": "on"},
        "bin": [f"{entry}/bin"],
        "jars": [],
    }
    return json.dumps(pointer).encode() + b"\0" + json.dumps(manifest).encode()
