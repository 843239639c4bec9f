"""Bases to build for where no daemon runs: interpreters here, or copies of the instances' own."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.builder.base.inspection import inspect_base
from reconciler.builder.uv import uv_path
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.preview.resolution import interpreter
from reconciler.cli.preview.revisions import Side
from reconciler.cli.preview.runtimes import Runtimes
from reconciler.core.definitions import Environment
from reconciler.core.runtime import Runtime


class Unavailable(Exception):
    """Error for a base that cannot be had on this machine; the message says why."""


INSTALL_TIMEOUT = 1800.0  # seconds for all packages of a base
OUTPUT_LINES = 8  # of uv's, in an error


@dataclass(frozen=True, slots=True)
class Base:
    """Runtime whose interpreter is on this machine, and the instances that have it.

    `unknown` says why there is none; `runtime` then has no interpreter.
    """

    runtime: Runtime
    instances: tuple[str, ...] = ()
    unknown: str = ""


class Bases:
    """Bases of environments, each inspected or made once.

    `pythons` are interpreters of Airflow installations on this machine; without any, a copy of the
    base of each instance is made from what is `known` of it, below `cache`.
    """

    def __init__(
        self, side: Side, pythons: Sequence[str], known: Runtimes, cache: Path, index: str
    ) -> None:
        self._side = side
        self._known = known
        self._cache = cache
        self._index = index
        self._here = [inspect_base(_absolute(python)) for python in pythons]
        self._made: dict[str, Base] = {}

    def of(self, environment: Environment) -> list[Base]:
        """Return the bases of an environment. Raises Misuse if nothing says what they are."""
        names = [name for wave in environment.rollout for name in wave.instances]
        if self._here:
            return [Base(runtime, tuple(names)) for runtime in self._here]
        bases: dict[str, Base] = {}
        for name, runtime in self._runtimes(names):
            if runtime.key not in self._made:
                self._made[runtime.key] = self._made_of(runtime)
            base = bases.get(runtime.key, self._made[runtime.key])
            bases[runtime.key] = replace(base, instances=(*base.instances, name))
        if not bases:
            raise Misuse(
                f"nothing says what the bases of environment {environment.name} have installed: "
                f"give the interpreter of an Airflow with --python, or the daemon's address (or "
                f"what `groundcrew runtimes` prints there) with --runtimes"
            )
        return list(bases.values())

    def _runtimes(self, names: Sequence[str]) -> Iterator[tuple[str, Runtime]]:
        for name in names:
            known = self._known.of(name)
            defined = self._side.definitions.instances.get(name)
            local = defined.local if defined is not None else None
            if known is not None:
                yield name, known
            elif local is not None and Path(local.python).exists():
                yield name, inspect_base(local.python)

    def _made_of(self, runtime: Runtime) -> Base:
        if runtime.python and Path(runtime.python).exists():
            return Base(runtime)
        try:
            return Base(inspect_base(copy_of(runtime, self._cache, self._index)))
        except Unavailable as error:
            return Base(runtime, unknown=f"its base cannot be copied to this machine: {error}")


def copy_of(runtime: Runtime, cache: Path, index: str) -> str:
    """Return the interpreter of a virtual environment with the packages of a runtime's base.

    It is made once, from the index, and kept below `cache`. Raises Unavailable if it cannot be made
    here: another platform, no such Python, or packages that the index does not have.
    """
    here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if runtime.platform != here:
        raise Unavailable(f"its base is for {runtime.platform}, and this machine is {here}")
    short = ".".join(runtime.python_version.split(".")[:2])
    python = interpreter(short)
    if python is None:
        raise Unavailable(
            f"there is no Python {short} here; install one, such as with "
            f"`uv python install {short}`"
        )
    kept = cache / "bases" / runtime.key
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=kept.parent) as folder:
            fresh = Path(folder, "base")
            make_venv(fresh, python)
            install(fresh, pins(runtime), index)
            if not kept.is_dir():  # another command may have made it meanwhile
                fresh.rename(kept)
    return str(kept / "bin" / "python")


def pins(runtime: Runtime) -> list[str]:
    """Return the packages of a base, each with its version."""
    return [f"{one.name}=={one.version}" for one in runtime.base]


def make_venv(folder: Path, python: str) -> None:
    """Make a virtual environment that may be moved. Raises Unavailable."""
    _uv("venv", "--relocatable", "--python", python, "--no-project", str(folder))


def install(venv: Path, wanted: Sequence[str], index: str | None) -> None:
    """Install exactly `wanted`: pins from an index ("" is uv's default), or files of wheels (None).

    Raises Unavailable.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(wanted))
        file.flush()
        source = ["--default-index", index] if index else [] if index == "" else ["--no-index"]
        python = str(venv / "bin" / "python")
        _uv("pip", "install", "--no-deps", "--python", python, *source, "--requirements", file.name)


def _uv(*arguments: str) -> None:
    try:
        done = subprocess.run(
            [uv_path(), "--no-config", *arguments],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"uv {arguments[0]} took more than {INSTALL_TIMEOUT:.0f} s") from error
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-OUTPUT_LINES:])
        raise Unavailable(f"uv {arguments[0]} failed: {said}")


def _absolute(python: str) -> str:
    """Return the path of an interpreter given as a path or a command. Raises Misuse."""
    program = shutil.which(python)
    if program is None:
        raise Misuse(f"--python {python} is not an interpreter; give the python of an Airflow")
    return str(Path(program).absolute())
