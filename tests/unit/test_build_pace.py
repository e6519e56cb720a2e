"""What is left of a build is foretold from what it took so far, whatever the order of large and small documents."""

from __future__ import annotations

import random

import pytest

from rag_service.ingest.build_pace import Pace

EACH_S, PER_CHUNK_S = 0.02, 0.005


def seconds(chunks: int) -> float:
    return EACH_S + PER_CHUNK_S * chunks


def paced(sizes: list[int], at_a_time: float = 1.0) -> Pace:
    pace = Pace()
    for chunks in sizes:
        pace = pace.after(chunks, seconds(chunks)).during(seconds(chunks) / at_a_time)
    return pace


@pytest.mark.parametrize("at_a_time", [1.0, 3.0, 0.25])
def test_small_documents_foretell_large_ones(at_a_time: float) -> None:
    pace = paced([1, 2, 3, 2, 1, 4], at_a_time)
    expected = (10 * EACH_S + 400 * PER_CHUNK_S) / at_a_time
    assert pace.seconds_for(10, 400) == pytest.approx(expected)


def test_chunks_alone_would_be_far_off() -> None:
    sizes = [1, 2, 3, 2, 1, 4]
    pace = paced(sizes)
    by_chunks = 400 * pace.worked_s / sum(sizes)
    assert by_chunks > 2 * (pace.seconds_for(10, 400) or 0)


def test_it_is_right_within_a_tenth_where_times_scatter() -> None:
    dice = random.Random(5)
    sizes = [dice.randint(1, 40) for _ in range(200)]
    times = [seconds(chunks) * dice.uniform(0.5, 1.5) for chunks in sizes]
    pace = Pace()
    for chunks, took in zip(sizes[:50], times[:50], strict=True):
        pace = pace.after(chunks, took).during(took)
    left = pace.seconds_for(150, sum(sizes[50:]))
    assert left == pytest.approx(sum(times[50:]), rel=0.1)


def test_documents_of_one_size_say_nothing_of_the_part_of_each() -> None:
    pace = paced([5, 5, 5, 5])
    assert pace.seconds_for(2, 10) == pytest.approx(2 * seconds(5))


def test_documents_without_chunks_are_counted_by_themselves() -> None:
    pace = paced([0, 0, 0, 0])
    assert pace.seconds_for(3, 0) == pytest.approx(3 * EACH_S)


def test_large_documents_that_were_quicker_do_not_foretell_less_than_nothing() -> None:
    pace = Pace().after(1, 2.0).after(10, 1.0).after(20, 0.5).during(3.5)
    assert (pace.seconds_for(10, 1_000) or 0) == pytest.approx(10 * 3.5 / 3)


def test_too_little_is_said_to_be_too_little_and_nothing_left_takes_no_time() -> None:
    assert paced([1, 2]).seconds_for(5, 5) is None
    assert paced([1, 2]).rate is not None
    assert Pace().rate is None
    assert Pace().seconds_for(0, 0) == 0.0


def test_it_is_stored_and_read_back() -> None:
    pace = paced([3, 1, 7])
    again = Pace.of({**pace.stored(), "something": "else"})
    assert again.seconds_for(10, 30) == pytest.approx(pace.seconds_for(10, 30), rel=0.01)
