"""Base of an instance: everything installed before Groundcrew adds anything, and its runtime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """Installed distribution of a base."""

    name: str  # normalised (PEP 503)
    version: str
    requires: tuple[str, ...] = ()
    provides_extra: tuple[str, ...] = ()
    requires_python: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """Image of an instance's pods, as a Job needs it.

    `reference` names it by digest if that can be pulled, `id` is what the nodes report.
    """

    context: str | None  # of the cluster; None: the daemon's own
    reference: str
    id: str
    user: int | None = None  # runAsUser and runAsGroup of the pods; None: those of the image
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """Location of an instance's base: a local interpreter, or an image."""

    python: str = ""
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Contents of an instance's base. `key` identifies it everywhere.

    `python_tag` is like "cp311", `platform` like "linux_x86_64", `tags` are the wheel tags that the
    interpreter accepts, best first.
    """

    key: str  # "<python_tag>-<platform>-airflow<version>-<12 digits of the inventory digest>"
    python: str  # path of the interpreter
    python_version: str  # "3.11.7"
    python_tag: str
    platform: str
    airflow_version: str
    tags: tuple[str, ...]
    base: tuple[Distribution, ...]
    image: Image | None = None  # None: an interpreter of this machine
    listing: str = ""  # fingerprint of the packages that the loader can compute; "" if unknown
