"""Spans are scored as Chroma's chunking evaluation scores them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.spans import Passage, score


def a(start: int, end: int) -> Passage:
    return Passage("a", start, end)


def spans() -> st.SearchStrategy[Passage]:
    limits = st.tuples(st.integers(0, 40), st.integers(1, 20))
    return st.builds(lambda corpus, place: Passage(corpus, place[0], sum(place)), st.sampled_from("ab"), limits)


def test_a_passage_that_is_exactly_the_relevant_text_scores_one_everywhere() -> None:
    scores = score([a(10, 20)], [a(10, 20)])
    assert (scores.recall, scores.precision, scores.iou) == (1, 1, 1)


def test_half_found_in_a_passage_twice_as_long() -> None:
    scores = score([a(15, 25)], [a(10, 20)])
    assert scores.recall == 0.5
    assert scores.precision == 0.5
    assert scores.iou == pytest.approx(5 / (10 + 5))


def test_text_that_two_passages_share_is_found_once_and_returned_twice() -> None:
    scores = score([a(0, 10), a(5, 15)], [a(5, 10)])
    assert scores.recall == 1
    assert scores.precision == pytest.approx(5 / 20)


def test_a_passage_of_another_text_only_costs() -> None:
    scores = score([a(0, 10), Passage("b", 0, 10)], [a(0, 10)])
    assert scores.recall == 1
    assert scores.precision == 0.5


def test_nothing_retrieved_is_nothing_found() -> None:
    scores = score([], [a(0, 10)])
    assert (scores.recall, scores.precision, scores.iou) == (0, 0, 0)


def test_a_question_without_relevant_text_has_no_scores() -> None:
    with pytest.raises(ValueError, match="relevant"):
        score([a(0, 10)], [])


@given(st.lists(spans(), min_size=1, max_size=6), spans())
def test_ranges_give_what_counting_characters_gives(retrieved: list[Passage], relevant: Passage) -> None:
    wanted = {(relevant.corpus, place) for place in range(relevant.start, relevant.end)}
    found = {(each.corpus, place) for each in retrieved for place in range(each.start, each.end)} & wanted
    returned = sum(each.length for each in retrieved)
    scores = score(retrieved, [relevant])
    assert scores.recall == pytest.approx(len(found) / len(wanted))
    assert scores.precision == pytest.approx(len(found) / returned)
    assert scores.iou == pytest.approx(len(found) / (returned + len(wanted - found)))
