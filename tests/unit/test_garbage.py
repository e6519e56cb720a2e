"""A serving process looks for garbage seldom, and not among what it was started with."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_service.cli.serving import serving
from rag_service.garbage import seldom_collected
from rag_service.settings import Settings
from tests.waiting import until


class Knot:
    """Refers to itself: only the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_there_is_left_out_until_the_end() -> None:
    with seldom_collected():
        gc.freeze()
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def test_what_becomes_garbage_later_is_still_found() -> None:
    with seldom_collected():
        gc.freeze()
        gone = weakref.ref(Knot())
        until(lambda: gone() is None or not [Knot() for _ in range(1_000)], 30)


def test_everything_is_as_before_once_the_service_has_ended(tmp_path: Path) -> None:
    before = gc.get_threshold()
    with serving(Settings(data_dir=tmp_path, embedder="hashing"), "127.0.0.1", 0):
        until(lambda: gc.get_freeze_count() > 0)
        assert gc.get_threshold() > before
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
