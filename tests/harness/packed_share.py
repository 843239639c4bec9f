"""Share with builds that have packs, and an interpreter whose loader unpacks them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reconciler.share.hot import pack_path
from reconciler.share.share import BaseName, Share
from tests.harness.shares import DIGEST, RUNTIME, A, abi_of, publish

OTHER = "e" * 64
BIG = bytes(range(256)) * 3_600  # the third of these is in two blocks
HUGE = bytes(range(255)) * 20_000 + b"end"  # so large that it is read from its own file
LIBRARY = "lib/acme_pkg/library.bin"
TABLES = {f"lib/acme_pkg/{name}.bin" for name in ("first", "second", "table")}
HOT = {"lib/acme_mod.py", "lib/acme_pkg/__init__.py", LIBRARY, *TABLES}
FILES: dict[str, bytes] = {
    "lib/acme_mod.py": b"X = 1\n",
    "lib/acme_pkg/__init__.py": b"",
    **dict.fromkeys(TABLES, BIG),
    LIBRARY: HUGE,
    "lib/acme_pkg/rare.py": b"Y = 2\n",
    "lib/acme_pkg/data/one.txt": b"one",
    "lib/acme-1.0.dist-info/METADATA": b"Name: acme\nVersion: 1.0\n",
    "lib/acme-1.0.dist-info/RECORD": b"",
}
WHERE = "import acme_mod; print(acme_mod.__file__)"


class Site:
    """Share with a build that has packs, and an interpreter with an Airflow beside it."""

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root
        self.python = python
        self.share = Share(root / "share")
        self.share.root.mkdir()
        self.share.prepare()
        self.local = root / "local"
        self.base = root / "base" / "site-packages"
        (self.base / "apache_airflow-3.3.2.dist-info").mkdir(parents=True)
        self.add(A, DIGEST, FILES)
        self.share.put_packs(A, {DIGEST: HOT})
        self.loader = self.share.install_loader("dev")
        self.share.point("dev", BaseName(RUNTIME, abi_of(python), "3.3.2"), A, ["scheduler"])

    def add(self, build: str, digest: str, files: dict[str, bytes]) -> None:
        """Put an entry and a build that names it on the share."""
        staged = self.root / f"staged-{digest[:4]}"
        for name, data in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(data)
        entry = self.share.put(digest, staged).relative_to(self.share.root)
        publish(
            self.share,
            build,
            (digest,),
            abi=abi_of(self.python),
            airflow="3.3.2",
            runtime=RUNTIME,
            paths=[{"path": f"{entry}/lib", "pth": False}],
        )

    @property
    def pack(self) -> Path:
        """Return the pack of build A."""
        return pack_path(self.share.entry(DIGEST), self.share.packs(A)[DIGEST].sha256)

    def begin(self, code: str, **env: str) -> subprocess.Popen[str]:
        """Start the interpreter."""
        return subprocess.Popen(
            [self.python, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.defpath,
                "GROUNDCREW_COMPONENT": "scheduler",
                "GROUNDCREW_LOCAL": str(self.local),
                "PYTHONPATH": f"{self.loader}:{self.base}",
                **env,
            },
        )

    def run(self, code: str, **env: str) -> str:
        """Return what a process prints, which must end with 0."""
        process = self.begin(code, **env)
        out, self.said = process.communicate(timeout=60)
        assert process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said
        return out.strip()

    def data(self) -> list[str]:
        """Return the names of the unpacked packs."""
        return sorted(p.name for p in self.local.glob("*/*/.data/*"))
