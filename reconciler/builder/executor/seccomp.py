"""System calls denied to sandboxed commands, as a seccomp filter compiled by libseccomp.

Everything else is allowed: compilers, interpreters and Airflow need a wide and changing set. The
denied calls change the machine, reach other processes, or have a record of sandbox escapes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

LIBRARY = "libseccomp.so.2"

DENIED = (
    # Mounts, namespaces and the root directory.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "setns",
    "unshare",
    # Other processes and their memory.
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_getfd",
    "kcmp",
    # Keyrings.
    "keyctl",
    "add_key",
    "request_key",
    # Interfaces of the kernel with a large attack surface.
    "bpf",
    "userfaultfd",
    "perf_event_open",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "fanotify_init",
    "open_by_handle_at",
    "name_to_handle_at",
    "lookup_dcookie",
    # The machine: its kernel, clock, name, disks, ports and log.
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "quotactl_fd",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "stime",
    "sethostname",
    "setdomainname",
    "iopl",
    "ioperm",
    "modify_ldt",
    "vm86",
    "vm86old",
    "uselib",
    "sysfs",
    "_sysctl",
    "nfsservctl",
    "syslog",
    "vhangup",
)
NEW_NAMESPACES = (  # flags of clone(2)
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX inject input into a terminal

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _GREATER, _MASKED = 4, 6, 7
_LOW_WORD = 0xFFFFFFFF


class FilterError(Exception):
    """libseccomp is missing, or cannot create the filter."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    """Filter under construction."""

    library: ctypes.CDLL
    context: ctypes.c_void_p

    def deny(self, name: str, error: int, *comparison: int) -> None:
        """Deny a call; with an argument's number, operator and values, only if they match.

        A name that this libseccomp does not know is skipped: so old a library belongs to a system
        whose kernel does not have the call either.
        """
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return
        comparisons = (_Comparison * 1)(_Comparison(*comparison)) if comparison else None
        result = self.library.seccomp_rule_add_array(
            self.context, _ERRNO | error, number, 1 if comparison else 0, comparisons
        )
        if result != 0:
            raise FilterError(f"libseccomp refuses a rule for {name}: {os.strerror(-result)}")


@functools.cache
def filter_program(*, unix_sockets: bool) -> bytes:
    """Return the filter as a BPF program for this machine. Raises FilterError."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise FilterError(f"{LIBRARY} is not installed") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    try:
        rules = _Rules(library, context)
        _add_rules(rules, unix_sockets=unix_sockets)
        with tempfile.TemporaryFile() as file:
            if library.seccomp_export_bpf(context, file.fileno()) != 0:
                raise FilterError("libseccomp does not export its filter")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _add_rules(rules: _Rules, *, unix_sockets: bool) -> None:
    for name in DENIED:
        rules.deny(name, errno.EPERM)
    rules.deny("clone3", errno.ENOSYS)  # its flags are in memory; the C library then uses clone
    for flag in NEW_NAMESPACES:
        rules.deny("clone", errno.EPERM, 0, _MASKED, flag, flag)
    for request in TERMINAL_INPUT:
        rules.deny("ioctl", errno.EPERM, 1, _MASKED, _LOW_WORD, request)
    allowed = {int(family) for family in FAMILIES} - (set() if unix_sockets else {socket.AF_UNIX})
    for family in range(max(allowed) + 1):
        if family not in allowed:
            rules.deny("socket", errno.EAFNOSUPPORT, 0, _EQUAL, family, 0)
    rules.deny("socket", errno.EAFNOSUPPORT, 0, _GREATER, max(allowed), 0)


@contextlib.contextmanager
def opened(program: bytes) -> Iterator[int]:
    """Yield a file descriptor from which a child process can read a program or a small file."""
    handle = os.memfd_create("groundcrew")
    try:
        os.write(handle, program)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)
