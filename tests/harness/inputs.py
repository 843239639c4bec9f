"""Inputs that people meet when they move to Groundcrew, each with the state that must come out.

Each is a team with one environment. Packages called `acme-*` come from a small index on loopback;
everything else, such as build backends, from the public one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.harness.wheels import make_sdist, make_wheel

SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
HATCH = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
TOOL = b'#!/bin/sh\necho "acme tool"\n'
JAR = b"a jar that nothing looks into"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'7' * 64}\nsize 104857600\n"
COMPILING = (
    "print('cc -c acme.c')\n"
    "print('acme.c:3:10: fatal error: acme/client.h: No such file or directory')\n"
    "raise SystemExit(1)\n"
)


def project(name: str, *needs: str, more: str = "") -> str:
    """Return a pyproject.toml that hatchling builds."""
    return (
        f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = {list(needs)}\n{more}{HATCH}'
    )


@dataclass(frozen=True, slots=True)
class Input:
    """Definition of one team, and what `run --once` makes of it.

    `phase` is that of its build; where there is none, the definition is refused with findings.
    `says` are parts of the message or of the build's log, `installs` are packages of the build.
    """

    name: str
    spec: Mapping[str, Any]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    phase: str = "Ready"
    reason: str = ""
    says: tuple[str, ...] = ()
    installs: tuple[tuple[str, str], ...] = ()
    has_index: bool = True  # False: nothing is described for `acme-*`
    raw: bytes = b""  # the definition's file, if it is not made of `spec`

    def content(self, index: str) -> bytes:
        """Return the file of the definition."""
        if self.raw:
            return self.raw
        corp = {"name": "corp", "url": index, "packages": ["acme-*"]}
        spec = {**self.spec, "rollout": [{"instances": [f"{self.name}-dev"]}]}
        if self.has_index:
            spec["indexes"] = [*self.spec.get("indexes", ()), corp]
        head = {"apiVersion": "groundcrew/v1", "kind": "Environment"}
        document = {**head, "metadata": {"name": self.name}, "spec": spec}
        return yaml.safe_dump(document, sort_keys=False).encode()


def sha256(data: bytes) -> str:
    """Return the digest that a definition states."""
    return hashlib.sha256(data).hexdigest()


def own(name: str, folder: str, modules: Mapping[str, str], *needs: str) -> dict[str, str | bytes]:
    """Return the files of an in-repo package."""
    base = f"packages/{folder}"
    files: dict[str, str | bytes] = {f"{base}/pyproject.toml": project(name, *needs)}
    module = name.replace("-", "_")
    return files | {f"{base}/src/{module}/{path}": text for path, text in modules.items()}


def fill(folder: Path) -> None:
    """Write the packages of the index."""
    make_wheel(folder, "acme-metrics", "4.1")
    make_wheel(folder, "acme-metrics", "4.2")
    make_wheel(folder, "acme-cli", "3.8", bad_record=True)
    reading = (
        "from pathlib import Path\nTABLE = (Path(__file__).parents[4] / 'share/acme').read_text()\n"
    )
    data = {f"acme_fast-1.0.data/data/{SITE}/acme_fast/__init__.py": reading}
    make_wheel(folder, "acme-fast", files={**data, "acme_fast-1.0.data/data/share/acme": "table"})
    make_wheel(folder, "acme-templates", files={"jinja2/__init__.py": "# another one\n"})
    make_wheel(folder, "acme-adapter", "2.0", requires=("packaging<21",))
    make_wheel(folder, "acme-models", requires=("acme-adapter>=2",))
    make_wheel(folder, "acme-io")
    make_wheel(folder, "acme-belt", requires=("requests",))
    make_sdist(folder, "acme-zope-thing")
    make_sdist(folder, "acme-client", preamble=COMPILING)


PASTED = (
    "-r requirements.txt",
    "-c https://constraints.example.com/constraints-3.12.txt",
    "--extra-index-url https://pypi.acme.example/simple",
    "-e ./packages/acme",
    "./wheels/acme.whl",
    "acme @ ./wheels/acme-2.0-py3-none-any.whl",
    "git+https://git.acme.example/acme.git@v2",
    "acme @ git+https://git.acme.example/acme.git",
    "requests = '^2.31'",
    "requests=2.31",
    "boto3==1.34.0 --hash=sha256:11",
    "polars > latest",
    "${ACME}==2",
)
OPTIONAL = {
    "__init__.py": "",
    "flow.py": "import acme_never_installed\n",
    "migrations/env.py": "from alembic import context\ncontext.config.get_main_option('url')\n",
    "templates/dag.py": "schedule={{ schedule }}\n",
    "tests/test_flow.py": "import acme_test_tools\n",
}
UTF16 = "apiVersion: groundcrew/v1\nkind: Environment\nmetadata: {name: wide}\n".encode("utf-16")


def inputs(files: str) -> Sequence[Input]:
    """Return all inputs; `files` is the address below which programs and archives are served."""
    tool = {"url": f"{files}/acme-tool", "sha256": sha256(TOOL), "path": "bin/acme-tool"}
    jar = {"jar": "com.acme:driver:2.1:shaded", "sha256": sha256(JAR)}
    odd = {"name": "odd", "url": f"{files}/odd/simple/", "packages": ["acme-metrics"]}
    etl = own("acme-etl", "etl", OPTIONAL)
    etl["packages/etl/pyproject.toml"] = project(
        "acme-etl", more="[project.optional-dependencies]\nflow = ['acme-never-installed']\n"
    )
    extra = own("acme-extra", "extra", {"__init__.py": "", "io.py": "import acme_io\n"})
    extra["packages/extra/pyproject.toml"] = project(
        "acme-extra", more="[project.optional-dependencies]\nio = ['acme-io']\n"
    )
    jobs = own("acme-jobs", "jobs", {"__init__.py": "import acme_base\n"}, "acme-base")
    base = own("acme-base", "base", {"__init__.py": ""})
    scm: dict[str, str | bytes] = {
        "packages/scm/pyproject.toml": "[project]\nname = 'acme-scm'\ndynamic = ['version']\n"
        "[build-system]\nrequires = ['setuptools>=77', 'setuptools-scm>=8']\n"
        "build-backend = 'setuptools.build_meta'\n[tool.setuptools_scm]\n"
        "search_parent_directories = true\n",
        "packages/scm/src/acme_scm/__init__.py": "",
    }
    return (
        Input(
            "newest-of-page",
            {"requirements": ["acme-metrics>=4"], "indexes": [odd]},
            installs=(("acme-metrics", "4.2"),),
        ),
        Input("wrong-record", {"requirements": ["acme-cli"]}, says=("RECORD",)),
        Input("data-scheme", {"requirements": ["acme-fast"], "checks": {"imports": ["acme_fast"]}}),
        Input(
            "optional-modules",
            {"requirements": ["acme-etl @ ./packages/etl"]},
            etl,
            says=("acme_etl.flow",),
        ),
        Input(
            "archive-as-program",
            {"files": [{**tool, "url": f"{files}/acme-tool.tar.gz"}]},
            phase="",
            reason="NotAProgram",
            says=("is an archive",),
        ),
        Input("program-without-mode", {"requirements": ["acme-io"], "files": [tool]}),
        Input(
            "module-of-the-base",
            {"requirements": ["acme-templates"], "checks": {"imports": ["jinja2"]}},
            phase="Failed",
            reason="VerificationFailed",
            says=("the module jinja2 would be loaded from Jinja2", "not from acme-templates"),
        ),
        Input(
            "lfs-pointer",
            {"requirements": ["acme-base @ ./packages/base"]},
            {**base, "packages/base/src/acme_base/model.bin": POINTER},
            phase="",
            reason="LfsPointerRefused",
            says=("Git LFS",),
        ),
        Input(
            "deep-conflict",
            {"requirements": ["acme-io", "acme-models"]},
            phase="Failed",
            reason="ResolutionConflict",
            says=("has packaging ", "needs packaging", "acme-adapter 2.0 needs another version"),
        ),
        Input(
            "unlisted-sibling",
            {"requirements": ["acme-jobs @ ./packages/jobs"]},
            {**jobs, **base},
            phase="",
            reason="NotListed",
            has_index=False,
            says=("`acme-base @ ./packages/base`",),
        ),
        Input(
            "listed-sibling",
            {"requirements": ["acme-jobs @ ./packages/jobs", "acme-base @ ./packages/base"]},
            {**jobs, **base},
            installs=(("acme-base", "1.0"), ("acme-jobs", "1.0")),
        ),
        Input(
            "version-from-git",
            {"requirements": ["acme-scm @ ./packages/scm"]},
            scm,
            says=("may take its version from git",),
        ),
        Input(
            "pasted-lines",
            {"requirements": list(PASTED)},
            phase="",
            reason="InvalidValue",
            says=("write",) * len(PASTED),
        ),
        Input(
            "spelt-names",
            {
                "requirements": ["Acme.Zope_Thing"],
                "files": [jar],
                "sourceBuilds": ["Acme.Zope_Thing"],
            },
            installs=(("acme-zope-thing", "1.0"),),
        ),
        Input(
            "refused-variable",
            {"requirements": ["acme-io"], "env": {"LD_PRELOAD": "/x.so"}},
            phase="",
            reason="InvalidValue",
            says=("LD_PRELOAD may not be set here",),
        ),
        Input(
            "marked-text",
            {"requirements": ["acme-io"], "constraints": ["c.txt"]},
            {"c.txt": b"\xef\xbb\xbfacme-io<2\r\n# none\r\nnumpy<3\r\n"},
            installs=(("acme-io", "1.0"),),
        ),
        Input("wide-text", {}, phase="", reason="InvalidYaml", says=("UTF-16",), raw=UTF16),
        Input(
            "frozen-pins",
            {"requirements": ["acme-io", "jinja2==2.11.3", "packaging==20.0", "requests==2.20.0"]},
            phase="Failed",
            reason="ResolutionConflict",
            says=("`jinja2==2.11.3`", "`packaging==20.0`", "`requests==2.20.0`", "needs jinja2>="),
        ),
        Input(
            "frozen-constraints",
            {"requirements": ["acme-belt"], "constraints": ["frozen.txt"]},
            {"frozen.txt": "apache-airflow==3.0.6\nrequests==2.20.0\n"},
            phase="Failed",
            reason="ResolutionConflict",
            says=("frozen.txt excludes versions", "`requests==2.20.0`"),
        ),
        Input(
            "own-extra",
            {
                "requirements": ["acme-extra[io] @ ./packages/extra"],
                "checks": {"imports": ["acme_extra.io"]},
            },
            extra,
            installs=(("acme-extra", "1.0"), ("acme-io", "1.0")),
        ),
        Input(
            "no-headers",
            {"requirements": ["acme-client"], "sourceBuilds": ["acme-client"]},
            phase="Failed",
            reason="PackageBuildFailed",
            says=("fatal error: acme/client.h: No such file or directory",),
        ),
    )
