"""What a parser's process gives up before it sees a document: memory, network, other programs, writing elsewhere.

Every measure is taken as far as the platform has it; a missing one leaves the others. Linux has them all:
rlimits, an own network namespace, Landlock. An audit hook refuses the same from within Python everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from pathlib import Path

MAX_FILE_BYTES = 256 * 1024 * 1024
_MAX_OPEN_FILES = 256
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

# Landlock has the same three system call numbers on every architecture (Linux 5.13, uapi/linux/landlock.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH, _VERSION_FLAG, _PR_SET_NO_NEW_PRIVS = 1, 1, 38
_FS_EXECUTE = 1 << 0
_FS_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 13))  # write, remove, make ...: all of version 1 but reads
_FS_REFER, _FS_TRUNCATE = 1 << 13, 1 << 14  # since versions 2 and 3
_NET_BIND_AND_CONNECT = 0b11  # TCP, since version 4

_REFUSED_EVENTS = frozenset([
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "subprocess.Popen", "os.system", "os.exec", "os.fork",
    "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn", "webbrowser.open",
])  # fmt: skip
_CHANGES_PATH = frozenset([
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown",
])  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine(folder: Path, memory_bytes: int) -> None:
    """Confine this process for good; it may write in `folder` only and use `memory_bytes` of address space."""
    limit(resource.RLIMIT_AS, memory_bytes)
    limit(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # Fails where user namespaces are switched off; Landlock and the audit hook remain.
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        _landlock(libc, folder)
    _refuse_from_within(folder.resolve())


def limit(kind: int, amount: int) -> None:
    """Lower a soft and hard limit to `amount`, or leave it where the platform has no such limit."""
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(kind)
        ceiling = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (ceiling, ceiling))


def allow_cpu(seconds: float) -> None:
    """Let this process use `seconds` (rounded up) of CPU time from now on, then be killed by SIGXCPU."""
    with contextlib.suppress(ValueError, OSError):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + seconds) + 1, hard))


def resident_bytes() -> int:
    """Memory this process holds now (Linux), or has held at most (elsewhere)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()


def _landlock(libc: ctypes.CDLL, folder: Path) -> None:
    """Kernel-enforced: no writing outside `folder`, no program started, no TCP. Silent where the kernel has none."""
    if platform.machine() not in ("x86_64", "aarch64"):
        return
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return
    writes = _FS_WRITES | (_FS_REFER if version >= 2 else 0) | (_FS_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("<QQ", writes | _FS_EXECUTE, _NET_BIND_AND_CONNECT)[: 16 if version >= 4 else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        return
    beneath = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", writes, beneath)
        libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(beneath)
        os.close(ruleset)


def _refuse_from_within(folder: Path) -> None:
    inside = f"{folder}{os.sep}"

    def may_write(path: object) -> bool:
        if isinstance(path, int):  # an open descriptor was allowed when it was opened
            return True
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return name == os.devnull or f"{os.path.realpath(name)}{os.sep}".startswith(inside)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _REFUSED_EVENTS:
            raise PermissionError(f"a parser may not do this: {event}")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            writes = True
        else:
            writes = event in _CHANGES_PATH
        if writes and not may_write(arguments[0]):
            raise PermissionError("a parser may write in its own folder only")

    sys.addaudithook(hook)
