"""How a process that the service started ends with it, however the service ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys


def die_with_the_service(lifeline: int) -> None:
    """Have the kernel kill this process when the service, the only writer of `lifeline`, is gone.

    Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends. And a thread of ours that waits for the
    end of the pipe would not run while native code holds the interpreter's lock. SIGIO kills by default on Linux.
    """
    if sys.platform != "linux":
        signal.signal(signal.SIGIO, lambda *_: os._exit(1))
    with contextlib.suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
