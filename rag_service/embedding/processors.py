"""What this process may compute with."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

_CPU_FLAGS = Path("/proc/cpuinfo")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_WILLING = 10  # steps of niceness: others that want a processor get nine times as much of it

NumberFormat: TypeAlias = Literal["float32", "bfloat16", "int8"]
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


def usual_formats(cpu_flags: Path = _CPU_FLAGS) -> tuple[NumberFormat, ...]:
    """The number formats that a model is best computed in here, the fastest first, by the flags that Linux lists.

    The last one is of floating point and needs no preparation. Bytes are for CPUs that multiply them several at a time
    in vectors; those with units for whole matrices are as fast in bfloat16.
    """
    flags = set(cpu_flags.read_text(encoding="utf-8", errors="replace").split()) if cpu_flags.is_file() else set()
    floating: NumberFormat = "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32"
    return ("int8", floating) if "avx512_vnni" in flags and "amx_bf16" not in flags else (floating,)


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
