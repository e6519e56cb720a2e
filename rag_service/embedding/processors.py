"""What this process may compute with."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_CPU_FLAGS = Path("/proc/cpuinfo")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_WILLING = 10  # steps of niceness: others that want a processor get nine times as much of it

_Made = TypeVar("_Made")


def available_cores() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def granted_cores(quota: Path = _CPU_QUOTA) -> int | None:
    """How many processors' time a container may use, rounded up; None where that is not limited.

    Threads for all processors of the machine would use it up in an instant, and all wait for the next period.
    """
    try:
        # https://docs.kernel.org/admin-guide/cgroup-v2.html: microseconds in each period of so many; "max": no limit.
        granted, period = map(int, quota.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    return max(1, -(-granted // period))


def has_fast_bfloat16(cpu_flags: Path = _CPU_FLAGS) -> bool:
    """True when the CPU multiplies bfloat16 in hardware, by the flags that Linux lists; False on other systems."""
    if not cpu_flags.is_file():
        return False
    flags = cpu_flags.read_text(encoding="utf-8", errors="replace").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def yielding(make: Callable[[], _Made]) -> _Made:
    """What `make` gives, of which all threads let the others of this process go first where they want a processor.

    A thread inherits its niceness from the one that starts it. Elsewhere than on Linux all threads have the same.
    """
    with ThreadPoolExecutor(1) as parent:
        if sys.platform == "linux":
            parent.submit(_yield).result()
        return parent.submit(make).result()


def _yield() -> None:
    me = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _WILLING)
