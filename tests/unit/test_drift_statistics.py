"""What is called a drift: what chance seldom gives, and what somebody would want to know of."""

from __future__ import annotations

import numpy as np
import pytest

from rag_service.db.answers import BINS, EMPTY, UNSCORED, Counts
from rag_service.retrieval.probing.drift import Thresholds, compared
from rag_service.retrieval.probing.statistics import stability_index, standard_difference
from rag_service.types import ProbeState

TRIALS = 2_000
RANDOM = np.random.default_rng(7)


def histogram(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    return [int(count) for count in np.histogram(scores.clip(0, 0.999), bins=BINS, range=(0, 1))[0]]


def answers(count: int, *, empty: int = 0, mean: float = 0.6, unscored: int = 0) -> Counts:
    scored = histogram(RANDOM.normal(mean, 0.12, count - empty - unscored))
    return Counts({EMPTY: empty, UNSCORED: unscored, **dict(enumerate(scored))})


def states(newest: Counts, reference: Counts, thresholds: Thresholds | None = None) -> dict[str, str]:
    seen = compared(newest, reference, thresholds or Thresholds())
    return {verdict.subject: verdict.state for verdict in seen.verdicts}


class TestScores:
    def test_of_the_same_kind_seldom_look_like_a_drift_however_few_they_are(self) -> None:
        index_alone, alarms = 0, 0
        for _ in range(TRIALS):
            reference, newest = (histogram(RANDOM.normal(0.6, 0.12, count)) for count in (400, 200))
            index, chance = stability_index(reference, newest)
            alarms += index >= max(0.25, chance)
            small_index, _ = stability_index(histogram(RANDOM.normal(0.6, 0.12, 60)), newest)
            index_alone += small_index >= 0.25
        assert alarms <= 1
        # The usual bound alone, without what chance gives, would call sixty answers a drift again and again.
        assert index_alone > TRIALS / 50

    def test_that_chance_alone_gives_are_at_most_as_far_apart_as_is_said(self) -> None:
        beyond = 0
        for _ in range(TRIALS):
            index, chance = stability_index(*(histogram(RANDOM.normal(0.6, 0.12, count)) for count in (2_000, 300)))
            beyond += index > chance
        assert beyond <= 5

    @pytest.mark.parametrize("mean", [0.45, 0.75])
    def test_that_have_moved_by_more_than_a_deviation_are_a_drift_whichever_way(self, mean: float) -> None:
        assert states(answers(300, mean=mean), answers(2_000))["scores"] == ProbeState.FAILING

    def test_that_never_came_before_are_a_drift(self) -> None:
        reference = Counts({20: 500, 21: 500})
        assert states(Counts({20: 150, 39: 150}), reference)["scores"] == ProbeState.FAILING
        assert states(Counts({20: 150, 2: 150}), reference)["scores"] == ProbeState.FAILING

    def test_on_no_common_scale_say_nothing(self) -> None:
        assert states(answers(400, unscored=250), answers(2_000))["scores"] == ProbeState.UNKNOWN

    def test_that_are_all_the_same_are_no_drift(self) -> None:
        assert stability_index([500], [300]) == (0.0, 0.0)
        assert states(Counts({20: 300}), Counts({20: 900}))["scores"] == ProbeState.OK


class TestEmptyAnswers:
    def test_are_a_drift_where_their_share_has_changed_either_way_by_more_than_chance(self) -> None:
        usual = answers(2_000, empty=100)
        assert states(answers(300, empty=45), usual)["empty_rate"] == ProbeState.FAILING
        assert states(answers(300, empty=15), usual)["empty_rate"] == ProbeState.OK
        assert states(answers(300, empty=0), answers(2_000, empty=400))["empty_rate"] == ProbeState.FAILING

    def test_are_none_where_few_answers_make_the_difference(self) -> None:
        # 12 of 200 against 2 in 100: four points more, and nothing that chance does not give.
        assert states(answers(200, empty=12), answers(1_000, empty=20))["empty_rate"] == ProbeState.OK

    def test_are_none_where_the_difference_is_certain_and_small(self) -> None:
        assert states(answers(100_000, empty=3_000), answers(100_000, empty=1_000))["empty_rate"] == ProbeState.OK

    def test_say_nothing_of_too_few(self) -> None:
        assert states(answers(199, empty=199), answers(2_000))["empty_rate"] == ProbeState.UNKNOWN
        assert states(answers(2_000, empty=2_000), answers(199))["empty_rate"] == ProbeState.UNKNOWN

    def test_are_counted_with_answers_whose_scores_are_not(self) -> None:
        assert answers(300, empty=45, unscored=200).answers == 300

    def test_seldom_look_like_a_drift_by_chance(self) -> None:
        alarms = 0
        for _ in range(TRIALS):
            newest, reference = RANDOM.binomial(200, 0.1), RANDOM.binomial(800, 0.1)
            alarms += abs(standard_difference(int(newest), 200, int(reference), 800)) >= 4
        assert alarms <= 2


def test_two_shares_that_are_both_nothing_or_all_do_not_differ() -> None:
    assert standard_difference(0, 10, 0, 20) == standard_difference(10, 10, 20, 20) == 0
    assert standard_difference(9, 10, 2, 20) > 3 > -3 > standard_difference(1, 10, 19, 20)
