"""Types of the values in definitions; each rejects an invalid value with a helpful message."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from gitsource.requirement_lines import Kind, advice, shown
from gitsource.requirements_files import is_requirements_file

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_LIMIT = 1000  # characters
DURATION = re.compile(r"(?:[0-9]+[smhd])+")
SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
SIZE = re.compile(r"([1-9][0-9]{0,8})(Ki|Mi|Gi)")
LONGEST = 366 * UNITS["d"]  # seconds
MOST = 1_000_000_000  # of anything that is counted
NAME_LIMIT = 255  # bytes of a file's name, on any file system
LOGIN = re.compile(r"//[^/@\s]*@")  # the credentials in a URL
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
FILE_OPTIONS = frozenset({"-c", "--constraint", "-r", "--requirement"})  # of pip
# Variables that decide where the base's interpreter finds code, and Airflow's own: its home (HOME
# if no other is set) and its configuration. The loader refuses the same ones. Proxies, certificates
# and variables of other programs are up to the team, like its code.
ENV_REFUSED = ("PATH", "HOME", "AIRFLOW_HOME", "AIRFLOW_CONFIG")
ENV_REFUSED_PREFIXES = ("PYTHON", "LD_", "DYLD_", "GROUNDCREW_", "AIRFLOW__")

ENV_INSTEAD = (
    ("AIRFLOW", "the platform team sets it in the configuration of Airflow"),
    ("PYTHONPATH", "commit the modules as an in-repo package: acme @ ./packages/acme"),
    ("PYTHON", "the platform team sets it where Airflow is started"),
    ("LD_", "the platform team sets it where Airflow is started, and brings the libraries there"),
    ("DYLD_", "the platform team sets it where Airflow is started"),
    ("PATH", "programs that `files` puts below bin/ are found without it"),
    ("HOME", "the platform team sets it where Airflow is started"),
    ("GROUNDCREW_", "remove it: these names belong to Groundcrew"),
)
"""Alternatives to setting a refused variable, by the prefix of its name."""
BUILD_VARIABLES = (
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "FFLAGS",
    "LDFLAGS",
    "RUSTFLAGS",
    "CC",
    "CXX",
    "FC",
    "*_CFLAGS",
    "*_CXXFLAGS",
    "*_LDFLAGS",
    "*_LIBS",
    "CMAKE_ARGS",
    "CMAKE_BUILD_*",
    "CMAKE_PREFIX_PATH",
    "SKBUILD_*",
    "NPY_*",
    "CYTHON_*",
    "MATURIN_*",
    "MAX_JOBS",
    "PKG_CONFIG_PATH",
    "JAVA_HOME",
    "SETUPTOOLS_SCM_PRETEND_VERSION*",
    "VCS_VERSIONING_PRETEND_VERSION*",
    "PDM_BUILD_*",
    "PBR_VERSION",
    "HATCH_BUILD_*",
    "POETRY_DYNAMIC_VERSIONING_*",
    "UV_DYNAMIC_VERSIONING_BYPASS",
    "*_NO_EXTENSIONS",
    "GRPC_PYTHON_BUILD_*",
    "BUILD_*",
    "WITH_*",
    "USE_*",
    "ENABLE_*",
    "DISABLE_*",
)
"""Globs of the variables that `build.env` may set: what compilers and build backends read. None of
them changes what uv, Python or the sandbox do."""
PACKAGINGS = ("jar", "bundle", "pom", "war", "zip", "maven-plugin")  # as in Maven's coordinates


def _duration(value: object) -> float:
    if not isinstance(value, str) or not DURATION.fullmatch(value[: DURATION_LIMIT + 1]):
        raise ValueError("write a duration such as 30s, 10m or 1h30m")
    seconds, number = 0.0, ""
    for character in value:
        if character in UNITS:
            seconds += float(number) * UNITS[character]
            number = ""
        else:
            number += character
    if seconds > LONGEST:
        raise ValueError(f"write a shorter duration, of at most {LONGEST / UNITS['d']:.0f}d")
    return seconds


def _size(value: object) -> int:
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size such as 500Ki, 200Mi or 1Gi")
    return int(match[1]) * SIZES[match[2]]


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
        return value
    raise ValueError(f"write a whole number from 1 to {MOST}")


def _inside(value: str) -> str:
    path = value.removeprefix("./")
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(
            "write the path of a file below this folder, such as bin/tool: without .., without a "
            "leading, trailing or double /"
        )
    if any(len(part.encode()) > NAME_LIMIT for part in parts):
        raise ValueError(f"write shorter names; each has at most {NAME_LIMIT} bytes")
    return path


def _cron(value: str) -> str:
    from datetime import UTC, datetime

    try:
        CronSim(value, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"write five cron fields such as 0 2 * * * ({error})") from error
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("write a timezone such as Europe/Berlin or UTC") from error
    return value


def _split(value: str) -> SplitResult:
    """Return the parts of a URL. Raises ValueError for one that no client accepts."""
    try:
        parts = urlsplit(value)
        sound = parts.port != 0 and value.isprintable() and " " not in value
    except ValueError:  # because of its brackets, or its port
        sound = False
    if not sound:
        raise ValueError("write an address such as https://host.example/simple/")
    return parts


def _https(value: str) -> str:
    parts = _split(value)
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("write an https:// address")
    return _address(value)


def _address(value: str) -> str:
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not HOST.fullmatch(parts.hostname or ""):
        raise ValueError("write an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("no credentials in an address; name a secret with `credentials`")
    return value


def _requirement(value: str) -> str:
    if is_requirements_file(value):
        return _inside(value)
    answer = advice(value, Kind.REQUIREMENT)
    if answer:
        raise ValueError(f"{shown(LOGIN.sub('//', value))}: {answer}")
    return value


def _environment_name(value: str) -> str:
    if not ENV_NAME.fullmatch(value):
        raise ValueError("write a name of letters, digits and _")
    if value in ENV_REFUSED or value.startswith(ENV_REFUSED_PREFIXES):
        instead = next((answer for prefix, answer in ENV_INSTEAD if value.startswith(prefix)), "")
        raise ValueError(
            f"{value} may not be set here, as it would change Python or Airflow itself; "
            f"{instead or 'remove it'}"
        )
    return value


def _jar(value: object) -> object:
    """Reject coordinates in the order of other tools with advice; the pattern checks the rest."""
    if not isinstance(value, str):
        return value
    parts = value.split("@")[0].split(":")
    if len(parts) in (4, 5) and parts[2] in PACKAGINGS:  # Maven's own order
        right = [*parts[:2], parts[-1], *parts[3:-1]]
        raise ValueError(f"write {WRITE[JAR]}: here {shown(':'.join(right))}")
    if "@" in value and len(parts) in (3, 4):  # Gradle's order
        raise ValueError(f"write it without the @: {shown(':'.join(parts))}")
    if "/" in value or value.endswith(".jar"):
        raise ValueError(
            f"write {WRITE[JAR]}, not an address or a file's name; a jar that is in no Maven "
            f"repository has `url` and `path` instead"
        )
    return value


def _target(value: str) -> str:
    """Return the path of a file below the build's files."""
    if value.startswith("/"):
        raise ValueError(
            f"write a path below the build's own folder, such as "
            f"{shown(posixpath.normpath(value).strip('/') or 'opt/tool')}: a build changes nothing "
            f"elsewhere on a machine"
        )
    return _inside(value)


def _build_variable(value: str) -> str:
    if not ENV_NAME.fullmatch(value):
        raise ValueError("write a name of letters, digits and _")
    if not any(fnmatch.fnmatchcase(value, glob) for glob in BUILD_VARIABLES):
        allowed = ", ".join(BUILD_VARIABLES)
        raise ValueError(f"{value} may not be set for builds; write one of {allowed}")
    return value


def _build_constraint(value: str) -> str:
    if not any(sign in value for sign in "<>=~!@; "):
        return _inside(value)
    parts = value.replace("=", " ", 1).split()
    if len(parts) == 2 and parts[0] in FILE_OPTIONS and "://" not in parts[1]:
        name = shown(posixpath.basename(parts[1])) or "build-constraints.txt"
        raise ValueError(
            f"{shown(value)}: name a file of the team's folder, without the option: "
            f"build: {{constraints: [{name}]}}"
        )
    answer = advice(value, Kind.CONSTRAINT)
    if answer:
        raise ValueError(f"{shown(LOGIN.sub('//', value))}: {answer}")
    return value


def _mode(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"0[0-7]{3}", value):
        return value
    raise ValueError('write the mode in quotes, such as "0755"')


NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
JAR = r"^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.+-]+(:[A-Za-z0-9_.-]+)?$"
PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
SHA256 = r"^[0-9a-f]{64}$"
GLOB = r"^[A-Za-z0-9._*?-]+$"
MODULE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
MODULE_GLOB = r"^[A-Za-z_*?][A-Za-z0-9_.*?]{0,199}$"
COMPONENT = "^(scheduler|dag-processor|triggerer|worker|api-server|webserver)$"
ABSOLUTE = "^/"
WRITE = {
    NAME: "a name of at most 63 lower-case letters, digits and -",
    JAR: "group:artifact:version or group:artifact:version:classifier, such as "
    "org.postgresql:postgresql:42.7.4",
    PACKAGE: "a package's name such as zope.interface",
    SHA256: "the SHA-256 of the content, 64 digits of 0-9 and a-f",
    GLOB: "names of packages such as acme-*",
    MODULE: "a module's name such as acme.operators",
    MODULE_GLOB: "a module's name or a pattern for several, such as acme.tests.*",
    COMPONENT: "one of scheduler, dag-processor, triggerer, worker, api-server, webserver",
    ABSOLUTE: "a path that begins with /",
}
"""Advice for values that do not match one of these patterns."""

Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=str)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str)]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=63)]
RepoPath = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_inside)]
Cron = Annotated[str, AfterValidator(_cron)]
Timezone = Annotated[str, AfterValidator(_timezone)]
IndexUrl = Annotated[str, AfterValidator(_https)]
ApiUrl = Annotated[str, AfterValidator(_address)]
RequirementText = Annotated[
    str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_requirement)
]
EnvName = Annotated[str, AfterValidator(_environment_name)]
BuildVariable = Annotated[str, AfterValidator(_build_variable)]
BuildConstraint = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(_build_constraint)
]
Count = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(_count)]
Mode = Annotated[str, BeforeValidator(_mode)]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]
Jar = Annotated[str, BeforeValidator(_jar), StringConstraints(pattern=JAR, max_length=200)]
PackageName = Annotated[str, StringConstraints(pattern=PACKAGE, max_length=200)]
FileTarget = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(_target)
]
Glob = Annotated[str, StringConstraints(pattern=GLOB, max_length=200)]
ModuleName = Annotated[str, StringConstraints(pattern=MODULE)]
ModuleGlob = Annotated[str, StringConstraints(pattern=MODULE_GLOB)]
ComponentName = Annotated[str, Field(pattern=COMPONENT)]
AbsolutePath = Annotated[str, Field(pattern=ABSOLUTE)]
