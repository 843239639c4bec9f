"""Differences between the share and an instance's record, in words."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.drift import Deviation, lost
from reconciler.core.model import DriftKind, InstanceRecord
from reconciler.core.runtime import Runtime
from reconciler.share.share import BaseName, Pointer
from reconciler.share.view import Seen


def base_of(runtime: Runtime) -> BaseName:
    """Return a runtime's base as pointers name it."""
    abi = f"{runtime.python_tag}-{runtime.platform}"
    return BaseName(runtime.key, abi, runtime.airflow_version, runtime.listing)


def deviations(record: InstanceRecord, seen: Seen, *, has_build: bool) -> tuple[Deviation, ...]:
    """Return what is not as recorded; `has_build`: the active build is complete on the share."""
    return (*_of_pointer(record, seen), *_of_loader(record, seen), *_of_build(record, has_build))


def _of_pointer(record: InstanceRecord, seen: Seen) -> Iterator[Deviation]:
    assert record.runtime is not None, "compared once the runtime is known"
    pointer = seen.pointer or Pointer(record.name, ())
    loaded = pointer.loaded(base_of(record.runtime))
    wanted = (
        (record.current.build, record.current.runtime) if record.current.build is not None else None
    )
    if loaded == wanted:
        load_into = record.current.load_into
        if wanted is not None and load_into and tuple(pointer.load_into) != load_into:
            message = f"the pointer lets {_list(pointer.load_into)} load it, not {_list(load_into)}"
            yield Deviation(DriftKind.POINTER, message)
        return
    if not seen.is_there:
        message = f"the pointer is gone; it named {_build(record.current.build)}"
    elif seen.pointer is None:
        message = f"the pointer is damaged; it named {_build(record.current.build)}"
    elif loaded is not None and wanted is not None and loaded[0] == wanted[0]:
        message = f"the pointer names {_build(record.current.build)} for another base"
    else:
        message = (
            f"the pointer names {_build(loaded[0] if loaded else None)} instead of "
            f"{_build(record.current.build)}"
        )
    yield Deviation(DriftKind.POINTER, message)


def _of_loader(record: InstanceRecord, seen: Seen) -> Iterator[Deviation]:
    if seen.foreign and (record.current.build is not None or seen.has_loader):
        message = f"the loader is not the one that was installed: {', '.join(seen.foreign)}"
        yield Deviation(DriftKind.LOADER, message)


def _of_build(record: InstanceRecord, has_build: bool) -> Iterator[Deviation]:
    if record.current.build is not None and not has_build:
        yield lost(record.current.build)


def _build(build: str | None) -> str:
    return f"build {build}" if build is not None else "the bare base"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
