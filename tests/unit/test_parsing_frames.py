"""The wire to a parser's process: whole frames or a named failure, never a wait beyond the deadline."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from rag_service.parsing.frames import FrameTooLarge, WireBroken, WireTimeout, receive, send


@pytest.fixture
def wire() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def soon() -> float:
    return time.monotonic() + 0.1


def test_frames_of_any_size_arrive_whole_and_in_order(wire: tuple[int, int]) -> None:
    reader, writer = wire
    frames = [b"", b"x", os.urandom(3_000_000)]
    sender = threading.Thread(target=send, args=(writer, frames, time.monotonic() + 10))
    sender.start()
    assert [receive(reader, 3_000_000, time.monotonic() + 10) for _ in frames] == frames
    sender.join()


def test_silence_ends_at_the_deadline(wire: tuple[int, int]) -> None:
    with pytest.raises(WireTimeout):
        receive(wire[0], 100, soon())


def test_a_half_frame_ends_at_the_deadline(wire: tuple[int, int]) -> None:
    os.write(wire[1], struct.pack(">I", 10) + b"half")
    with pytest.raises(WireTimeout):
        receive(wire[0], 100, soon())


def test_a_reader_who_does_not_read_ends_at_the_deadline(wire: tuple[int, int]) -> None:
    with pytest.raises(WireTimeout):
        send(wire[1], [bytes(10_000_000)], soon())


def test_an_announcement_over_the_limit_is_not_waited_for(wire: tuple[int, int]) -> None:
    os.write(wire[1], struct.pack(">I", 101))
    with pytest.raises(FrameTooLarge):
        receive(wire[0], 100, soon())


def test_a_closed_end_is_noticed_by_both(wire: tuple[int, int]) -> None:
    reader, writer = wire
    os.write(writer, b"\0\0")
    os.close(writer)
    with pytest.raises(WireBroken):
        receive(reader, 100, soon())
    reader_two, writer_two = os.pipe()
    os.close(reader_two)
    with pytest.raises(WireBroken):
        send(writer_two, [b"x"], soon())
    os.close(writer_two)
