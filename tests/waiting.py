"""Waiting for what other threads and processes bring about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Given = TypeVar("_Given")


def until(holds: Callable[[], _Given], patience_s: float = 20.0) -> _Given:
    """What `holds` gives once that is something true; fail when it is not within `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not (given := holds()):
        assert time.monotonic() < deadline, f"it did not come about within {patience_s:g} s"
        time.sleep(0.005)
    return given
