"""Locks for other tools: what pip, uv or an IDE needs to have what an instance has.

A lock of Groundcrew holds only what a build adds; the others hold the base's packages too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from reconciler.builder.resolve.lock import Lock
from reconciler.cli.checkout.bases import pins
from reconciler.cli.checkout.formats import LockFormat
from reconciler.core.definitions import Environment, SourcePackage
from reconciler.core.runtime import Runtime


def lock_text(form: LockFormat, environment: Environment, runtime: Runtime, lock: Lock) -> str:
    """Return the text of a file; paths in it are relative to the root of the checkout."""
    match form:
        case LockFormat.PYLOCK:
            return lock.text
        case LockFormat.REQUIREMENTS:
            return "".join(f"{line}\n" for line in _requirements(environment, runtime, lock))
        case LockFormat.UV:
            return "".join(f"{line}\n" for line in _project(environment, runtime, lock))


def _requirements(environment: Environment, runtime: Runtime, lock: Lock) -> Iterator[str]:
    own = _own(environment)
    yield f"# environment {environment.name} on {runtime.key}"
    yield f"# Python {runtime.python_version}, Airflow {runtime.airflow_version}"
    for index in environment.recipe.indexes:
        yield f"# from {index.url}: {', '.join(index.packages)}"
    yield "# what the environment adds"
    for name, version in lock.packages:
        yield f"./{own[name].path}" if name in own else f"{name}=={version}"
    yield "# the base's own packages"
    yield from pins(runtime)


def _project(environment: Environment, runtime: Runtime, lock: Lock) -> Iterator[str]:
    """Yield a project for `uv sync`, which uv reads as pyproject.toml."""
    own = _own(environment)
    yield "[project]"
    yield f'name = "{environment.name}-on-airflow"'
    yield 'version = "0"'
    minor = ".".join(runtime.python_version.split(".")[:2])
    yield f'requires-python = "=={minor}.*"'
    yield "dependencies = ["
    for name, version in lock.packages:
        yield f"  {_quoted(name if name in own else f'{name}=={version}')},"
    for pin in pins(runtime):
        yield f"  {_quoted(pin)},"
    yield "]"
    if own:
        yield ""
        yield "[tool.uv.sources]"
        for name, package in own.items():
            yield f"{name} = {{ path = {_quoted(package.path)} }}"
    for index in environment.recipe.indexes:
        yield ""
        yield "[[tool.uv.index]]"
        yield f"name = {_quoted(index.name)}"
        yield f"url = {_quoted(index.url)}"


def _own(environment: Environment) -> dict[str, SourcePackage]:
    return {package.name: package for package in environment.recipe.packages}


def _quoted(text: str) -> str:
    """Return a string of TOML: one of JSON is one too."""
    return json.dumps(text, ensure_ascii=False)
