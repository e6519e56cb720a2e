"""Waiting for what other threads and processes bring about."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], object], patience_s: float = 20.0) -> None:
    """Return once `holds` gives something true; fail when it has not within `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"it did not come about within {patience_s:g} s"
        time.sleep(0.005)
