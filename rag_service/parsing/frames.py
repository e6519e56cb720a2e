"""The wire between the service and a parser's process: frames of a 4-byte big-endian length and that many bytes."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterable

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 2**32 - 1
READY = b"ready"  # the child's first frame
_CHUNK = 256 * 1024


class WireBroken(Exception):
    """The other end is gone."""


class WireTimeout(Exception):
    """The other end did not answer by the deadline."""


class FrameTooLarge(Exception):
    """The other end announced more than is accepted."""


def send(descriptor: int, frames: Iterable[bytes], deadline: float | None = None) -> None:
    """Write whole frames. `deadline` (time.monotonic) needs a non-blocking descriptor.

    Raises WireBroken, WireTimeout.
    """
    for frame in frames:
        for part in (_LENGTH.pack(len(frame)), frame):
            view = memoryview(part)
            while view:
                _wait(descriptor, select.POLLOUT, deadline)
                try:
                    view = view[os.write(descriptor, view[:_CHUNK]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise WireBroken from error


def receive(descriptor: int, limit: int, deadline: float | None = None) -> bytes:
    """Read one frame of at most `limit` bytes. Raises WireBroken, WireTimeout, FrameTooLarge."""
    (length,) = _LENGTH.unpack(_read(descriptor, _LENGTH.size, deadline))
    if length > limit:
        raise FrameTooLarge
    return _read(descriptor, length, deadline)


def _read(descriptor: int, length: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        _wait(descriptor, select.POLLIN, deadline)
        try:
            part = os.read(descriptor, min(_CHUNK, length - len(parts)))
        except BlockingIOError:
            continue
        except OSError as error:
            raise WireBroken from error
        if not part:
            raise WireBroken
        parts += part
    return bytes(parts)


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    if deadline is None:
        return
    left = deadline - time.monotonic()
    poll = select.poll()
    poll.register(descriptor, event)
    if left <= 0 or not poll.poll(left * 1000):
        raise WireTimeout
