"""How separation is judged, by hand-made scores."""

from __future__ import annotations

import pytest

from benchmarks.abstention import at_threshold, auc


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [([0.9, 0.8], [0.1, 0.2], 1.0), ([0.1], [0.9], 0.0), ([0.5, 0.5], [0.5], 0.5), ([0.9, 0.3], [0.5, 0.1], 0.75)],
)
def test_auc_is_the_share_of_pairs_in_the_right_order(
    positive: list[float], negative: list[float], expected: float
) -> None:
    assert auc(positive, negative) == expected


def test_a_threshold_answers_what_reaches_it() -> None:
    result = at_threshold([0.5, 0.9, 0.2, 0.8], [0.5, 0.1], 0.5)
    assert result == {"threshold": 0.5, "precision": 0.75, "recall": 0.75, "refused": 0.5}


def test_who_answers_nothing_makes_no_mistake() -> None:
    assert at_threshold([0.5], [0.5], 0.6) == {"threshold": 0.6, "precision": 1.0, "recall": 0.0, "refused": 1.0}


def test_a_question_that_found_nothing_is_refused_at_any_threshold() -> None:
    assert at_threshold([0.5], [float("-inf")], -1e9)["refused"] == 1
