"""Measures of rankings against values worked out by hand, against other implementations, and by their properties."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rag_service.evaluation.metrics import ndcg, overlap, rank_biased_overlap, recall, reciprocal_rank
from rag_service.evaluation.significance import paired

rankings = st.lists(st.sampled_from("abcdefghijklmnop"), unique=True, max_size=16)
graded = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=8)


class TestNdcg:
    def test_of_an_answer_worked_out_by_hand(self) -> None:
        # Gains 3, 0, 2 at ranks 1 to 3; the ideal order is 3, 2, 1.
        got = 3 / math.log2(2) + 2 / math.log2(4)
        ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
        assert ndcg(["a", "x", "b"], {"a": 3, "b": 2, "c": 1}) == pytest.approx(got / ideal)
        assert got / ideal == pytest.approx(0.8400, abs=1e-4)

    def test_looks_no_deeper_than_k(self) -> None:
        assert ndcg(["x", "a"], {"a": 1}, k=1) == 0.0
        assert ndcg(["a"], {"a": 1, "b": 1}, k=1) == 1.0

    def test_is_0_where_nothing_is_relevant_or_found(self) -> None:
        assert ndcg(["a"], {}) == ndcg(["a"], {"a": 0}) == ndcg([], {"a": 1}) == 0.0

    @given(rankings, graded)
    def test_agrees_with_the_formula_in_matrix_form(self, ranking: list[str], grades: dict[str, int]) -> None:
        discount = 1 / np.log2(np.arange(2, 12))
        gains = np.array([grades.get(one, 0) for one in ranking[:10]] + [0] * (10 - len(ranking[:10])))
        best = np.array((sorted(grades.values(), reverse=True) + [0] * 10)[:10])
        expected = gains @ discount / (best @ discount) if best.any() else 0.0
        assert ndcg(ranking, grades) == pytest.approx(expected)

    @given(graded)
    def test_is_1_for_the_ideal_order_and_for_no_other_of_those_grades(self, grades: dict[str, int]) -> None:
        ideal = sorted(grades, key=lambda one: -grades[one])
        if any(grades.values()):
            assert ndcg(ideal, grades) == pytest.approx(1.0)
            worst = ideal[::-1]
            same = [grades[one] for one in worst] == [grades[one] for one in ideal]
            assert same or ndcg(worst, grades) < 1.0


def test_recall_counts_the_relevant_among_the_first_k() -> None:
    grades = {"a": 1, "b": 3, "c": 0}
    assert recall(["a", "x", "b"], grades, 2) == 0.5
    assert recall(["a", "x", "b"], grades, 3) == 1.0
    assert recall(["c"], grades) == recall(["c"], {"c": 0}) == 0.0


def test_the_reciprocal_rank_is_that_of_the_first_relevant_one() -> None:
    assert reciprocal_rank(["x", "y", "a", "b"], {"a": 1, "b": 3}) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x"] * 3, {"a": 1}) == 0.0
    assert reciprocal_rank([*"mnopqrstuv", "a"], {"a": 1}) == 0.0


def test_overlap_is_of_the_longer_ranking() -> None:
    assert overlap("abcd", "dcba") == 1.0
    assert overlap("ab", "bxyz") == 0.25
    assert overlap("abc", "abz", k=2) == 1.0
    assert (overlap("", ""), overlap("a", "")) == (1.0, 0.0)


def brute_force_rbo(one: str, other: str, p: float = 0.9) -> float:
    """Equation 32 of Webber et al. with every agreement counted anew, by sets."""
    short, long = sorted((one, other), key=len)
    s, length = len(short), len(long)
    x = {d: len(set(short[:d]) & set(long[:d])) for d in range(1, length + 1)}
    first = sum(x[d] / d * p**d for d in range(1, length + 1))
    second = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, length + 1))
    return (1 - p) / p * (first + second) + ((x[length] - x[s]) / length + x[s] / s) * p**length


class TestRankBiasedOverlap:
    def test_of_two_pairs_worked_out_by_hand(self) -> None:
        # Agreements at depths 1, 2: 0, 1. (0.1/0.9)(0 + 1 * 0.81) + 1 * 0.81
        assert rank_biased_overlap("ab", "ba") == pytest.approx(0.09 + 0.81)
        # 1 of 1, then 1 of 2, extrapolated at 1/2: (0.1/0.9)(0.9 + 0.405) + 0.5 * 0.81
        assert rank_biased_overlap("ab", "ac") == pytest.approx(0.145 + 0.405)

    def test_goes_on_as_the_rankings_end(self) -> None:
        assert rank_biased_overlap("a", "ab") == pytest.approx(1.0)
        assert rank_biased_overlap("abc", "xyz") == 0.0
        assert (rank_biased_overlap("", ""), rank_biased_overlap("", "a")) == (1.0, 0.0)

    def test_weighs_the_top_more_than_the_bottom(self) -> None:
        top, bottom = rank_biased_overlap("abcdef", "bacdef"), rank_biased_overlap("abcdef", "abcdfe")
        assert top < bottom < 1.0

    @given(rankings.filter(bool), rankings.filter(bool))
    def test_agrees_with_the_formula_counted_anew(self, one: list[str], other: list[str]) -> None:
        expected = brute_force_rbo("".join(one), "".join(other))
        assert rank_biased_overlap(one, other) == pytest.approx(expected)

    @given(rankings, rankings)
    def test_is_symmetric_and_between_0_and_1(self, one: list[str], other: list[str]) -> None:
        assert rank_biased_overlap(one, other) == pytest.approx(rank_biased_overlap(other, one))
        assert -1e-9 <= rank_biased_overlap(one, other) <= 1 + 1e-9

    @given(rankings)
    def test_is_1_for_equal_rankings(self, one: list[str]) -> None:
        assert rank_biased_overlap(one, one) == pytest.approx(1.0)


def _mean(one: Any, other: Any, axis: int) -> Any:
    return (one - other).mean(axis=axis)


class TestThePairedTest:
    def test_tries_all_signs_of_a_few_differences(self) -> None:
        # Of the 8 ways to set the signs of 1, 2, 3, only two have a sum as large as 6.
        assert paired([1, 2, 3]).p_value == 0.25
        signs = list(product((-1, 1), repeat=5))
        differences = [0.1, -0.4, 0.3, 0.2, 0.6]
        extreme = [abs(np.dot(one, differences)) >= 0.8 - 1e-9 for one in signs]
        assert paired(differences).p_value == pytest.approx(np.mean(extreme))

    def test_leaves_out_what_did_not_change(self) -> None:
        assert paired([1, 2, 3, *[0.0] * 50]).p_value == 0.25
        assert paired([0.0] * 20).p_value == 1.0

    @pytest.mark.parametrize("shift", [0.0, 0.05, 0.12])
    def test_agrees_with_scipy(self, shift: float) -> None:
        differences = np.random.default_rng(1).normal(shift, 0.3, 60)
        options = {"permutation_type": "samples", "n_resamples": 20_000, "rng": np.random.default_rng(2)}
        expected = stats.permutation_test(
            (differences, np.zeros(60)), lambda a, b, axis: (a - b).mean(axis=axis), **options
        )
        ours = paired(list(differences))
        assert ours.p_value == pytest.approx(expected.pvalue, abs=0.02)
        interval = stats.bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(3))
        assert ours.low == pytest.approx(interval.confidence_interval.low, abs=0.01)
        assert ours.high == pytest.approx(interval.confidence_interval.high, abs=0.01)
        assert ours.mean == pytest.approx(differences.mean())

    def test_gives_the_same_numbers_for_the_same_differences(self) -> None:
        differences = list(np.random.default_rng(4).normal(0.1, 1, 300))
        assert paired(differences) == paired(differences)

    def test_calls_chance_significant_one_time_in_twenty(self) -> None:
        random = np.random.default_rng(5)
        found = [paired(list(random.normal(0, 1, 25))).p_value < 0.05 for _ in range(60)]
        assert 0 < sum(found) < 9

    def test_of_many_queries_takes_portions_that_fit_in_memory(self) -> None:
        tested = paired(list(np.random.default_rng(6).normal(0.05, 0.3, 1_500)))
        assert tested.low < tested.mean < tested.high
        # The least that can be said of so few resamples.
        assert tested.p_value == pytest.approx(1 / 6_667)

    def test_needs_a_difference(self) -> None:
        with pytest.raises(ValueError, match="no differences"):
            paired([])
