"""Base that takes a second to create: an interpreter with a package that mimics Airflow.

It replaces a real Airflow where hundreds of builds and verifications are made in a row. It knows
the three commands that verification uses; `tests/e2e` runs the same on real ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "3.3.2"

MAIN = '''
"""db migrate, dags list-import-errors, and components that report which build they loaded."""
import importlib.util, json, os, sys, traceback, urllib.request

def errors(folder):
    found = []
    for here, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            if not name.endswith(".py"):
                continue
            path = os.path.join(here, name)
            spec = importlib.util.spec_from_file_location("dag_" + name[:-3], path)
            try:
                spec.loader.exec_module(importlib.util.module_from_spec(spec))
            except Exception:
                found.append({"filepath": path, "error": traceback.format_exc()})
    return found

def component(name, url):
    document = {"component": name, "build": os.environ.get("GROUNDCREW_BUILD", "")}
    try:
        import acme
        document["acme"] = acme.__version__
        acme.live(name)
    except ImportError:
        document["acme"] = ""
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, data=body, method="POST")
    urllib.request.urlopen(request, timeout=20).close()

words = sys.argv[1:]
if words[:2] == ["db", "migrate"]:
    open(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///"), "w").close()
elif words[:2] == ["dags", "list-import-errors"]:
    print(json.dumps(errors(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])))
elif len(words) == 2:
    component(*words)
else:
    sys.exit(f"unknown: {words}")
'''


LIBRARY = {
    "configuration.py": """
import os

class conf:
    @staticmethod
    def getboolean(section, key):
        return True

    @staticmethod
    def getfloat(section, key):
        return float(os.environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}", "30"))
""",
    "utils/file.py": """
import os

def list_py_file_paths(directory, safe_mode=True):
    found = []
    for here, _, names in os.walk(directory, followlinks=True):
        found += [os.path.join(here, name) for name in sorted(names) if name.endswith(".py")]
    return found
""",
    "models/dagbag.py": """
import importlib.util, traceback

class DagBag:
    def __init__(self, dag_folder=None, collect_dags=True):
        self.import_errors = {}

    def process_file(self, path, only_if_updated=True, safe_mode=True):
        if not path.endswith(".py"):
            return
        spec = importlib.util.spec_from_file_location("dag", path)
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception:
            self.import_errors[path] = traceback.format_exc()
""",
}
"""What of Airflow the program that parses DAGs in a pod imports."""


def make_base(directory: Path, others: dict[str, str] | None = None) -> str:
    """Create a base below `directory`; return the path of its interpreter.

    `others` are further distributions (name → version), which its Airflow requires.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(directory)],
        check=True,
        timeout=60,
    )
    (site,) = directory.glob("lib/python3*/site-packages")
    package = site / "airflow"
    package.mkdir()
    (package / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    (package / "__main__.py").write_text(MAIN)
    for name, text in LIBRARY.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
    needs = "".join(
        f"Requires-Dist: {name}>={version.partition('+')[0]}\n"
        for name, version in (others or {}).items()
    )
    for name, version in {"apache-airflow": VERSION, **(others or {})}.items():
        stem = name.replace("-", "_")
        info = site / f"{stem}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + (needs if name == "apache-airflow" else "")
        )
        if name != "apache-airflow":
            (site / f"{stem}.py").write_text(f'__version__ = "{version}"\n')
            (info / "RECORD").write_text(f"{stem}.py,,\n{info.name}/METADATA,,\n")
    return str(directory / "bin" / "python")


BACKEND = '''
"""A build backend of its own, so that building needs no package index."""
import base64, hashlib, pathlib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name, version = "{dist}", "{version}"
    stem = name.replace("-", "_")
    info = f"{{stem}}-{{version}}.dist-info"
    found = [p for p in sorted(pathlib.Path("{package}").rglob("*")) if p.is_file()]
    files = {{str(p): p.read_bytes() for p in found}}
    files[f"{{info}}/METADATA"] = (
        f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n{requires}"
    ).encode()
    files[f"{{info}}/WHEEL"] = (
        b"Wheel-Version: 1.0\\nGenerator: acme\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    )
    record = []
    wheel = f"{{stem}}-{{version}}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / wheel, "w") as out:
        for path, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{{path}},sha256={{digest}},{{len(data)}}")
            out.writestr(zipfile.ZipInfo(path), data)
        record.append(f"{{info}}/RECORD,,")
        out.writestr(zipfile.ZipInfo(f"{{info}}/RECORD"), "\\n".join(record) + "\\n")
    return wheel
'''


def write_package(
    directory: Path,
    dist: str,
    version: str,
    modules: dict[str, str],
    requires: tuple[str, ...] = (),
) -> None:
    """Write an in-repo source package; `modules` maps paths below it to their text."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pyproject.toml").write_text(
        f'[project]\nname = "{dist}"\nversion = "{version}"\ndependencies = {list(requires)!r}\n'
        f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    needs = "".join(f"Requires-Dist: {r}\\n" for r in requires)
    package = next(iter(modules)).split("/")[0]
    (directory / "backend.py").write_text(
        BACKEND.format(dist=dist, version=version, package=package, requires=needs)
    )
    for path, text in modules.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
