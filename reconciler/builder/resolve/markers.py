"""Environment in which markers of requirements are evaluated for a runtime."""

from __future__ import annotations

from reconciler.core.runtime import Runtime


def environment_of(runtime: Runtime) -> dict[str, str]:
    """Return a runtime's values of the variables that markers know (PEP 508)."""
    short = ".".join(runtime.python_version.split(".")[:2])
    return {
        "implementation_name": "cpython",
        "implementation_version": runtime.python_version,
        "os_name": "posix",
        "platform_machine": runtime.platform.removeprefix("linux_"),
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": runtime.python_version,
        "python_version": short,
        "sys_platform": "linux",
    }
