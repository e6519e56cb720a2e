from __future__ import annotations

import threading
import time

import pytest

from rag_service.errors import RetryableError
from rag_service.runtime.readiness import Readiness


def test_each_part_says_what_is_wrong_with_it() -> None:
    def away() -> None:
        raise RetryableError("It is away.")

    assert Readiness({"good": lambda: 1, "bad": away}).parts() == {"good": None, "bad": "It is away."}


def test_a_part_that_hangs_hides_no_other_and_is_looked_at_once(caplog: pytest.LogCaptureFixture) -> None:
    release, looks = threading.Event(), []

    def hang() -> None:
        looks.append(1)
        release.wait(20)

    def broken() -> None:
        raise KeyError("what")

    readiness = Readiness({"hanging": hang, "broken": broken, "good": lambda: 1}, patience_s=0.3)
    began = time.monotonic()
    first = readiness.parts()
    assert time.monotonic() - began < 5
    assert first["good"] is None
    assert "has not answered" in str(first["hanging"])
    assert "KeyError" in str(first["broken"])
    assert "what" not in str(first["broken"])
    readiness.parts()
    assert len(looks) == 1
    release.set()
    deadline = time.monotonic() + 10
    while readiness.parts()["hanging"] is not None:
        assert time.monotonic() < deadline
    assert "broken" in caplog.text
