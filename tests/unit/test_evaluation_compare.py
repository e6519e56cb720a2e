"""Two lists of answers to the same questions: what is said of them, and what a gate makes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest
from rag_service.evaluation.compare import Comparison, compared
from rag_service.evaluation.gate import Gate, judge
from rag_service.evaluation.report import report
from rag_service.evaluation.scoring import Answered, Found, Latency, checked_measure, latency, scores
from rag_service.types import Expected, LabelledQuery


def question(name: str, **expected: int) -> LabelledQuery:
    wanted = tuple(Expected(grade, external_id=document) for document, grade in expected.items())
    return LabelledQuery(id=name, query=f"{name}?", expected=wanted)


def answer(found: str, ms: float = 10.0, *, degraded: bool = False) -> Answered:
    """An answer whose documents have the letters of `found` for external ids."""
    return Answered(tuple(Found(f"doc_{one}", one) for one in found), ms, degraded)


def comparison(*rows: tuple[LabelledQuery, str, str], **more: Any) -> Comparison:
    """Rows of a question, what the candidate found for it, and what the active version found."""
    asked = [row[0] for row in rows]
    candidate = [answer(row[1], **more) for row in rows]
    active = [answer(row[2]) for row in rows]
    return compared("handbook", ("idx_new", candidate), ("idx_old", active), asked)


NOTHING = LabelledQuery(id="nothing", query="nothing?", expect_nothing=True)
UNJUDGED = LabelledQuery(id="unjudged", query="unjudged?")


class TestScores:
    def test_are_of_documents_by_either_id_each_expected_once(self) -> None:
        wanted = (Expected(3, document_id="doc_a"), Expected(1, external_id="b"))
        query = LabelledQuery(id="q", query="?", expected=wanted)
        found = Answered((Found("doc_x", "b"), Found("doc_y", "b"), Found("doc_a", "other")), 1.0)
        measured = scores(query, found, ("recall@1", "recall@2", "recall@3", "mrr"))
        assert measured == {"recall@1": 0.5, "recall@2": 0.5, "recall@3": 1.0, "mrr": 1.0}

    def test_of_a_question_that_expects_nothing_say_whether_it_got_nothing(self) -> None:
        assert scores(NOTHING, answer("")) == {"abstention": 1.0}
        assert scores(NOTHING, answer("a")) == {"abstention": 0.0}
        assert scores(UNJUDGED, answer("a")) == {}

    def test_count_a_grade_for_what_it_is(self) -> None:
        best, second = question("q", a=3, b=1), ("ndcg@10",)
        assert scores(best, answer("ab"), second) == {"ndcg@10": 1.0}
        assert scores(best, answer("ba"), second)["ndcg@10"] < 0.85

    @pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@21", "recall@", "precision@5", "mrr@x", "recall@\u0661"])
    def test_have_names_that_are_known(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match="no measure"):
            checked_measure(name)

    def test_may_be_of_any_depth_down_to_what_is_asked_for(self) -> None:
        for name in ("ndcg@3", "recall@20", "mrr@5", "mrr", "abstention"):
            assert checked_measure(name) == name

    def test_take_latencies_by_nearest_rank(self) -> None:
        assert latency([float(ms) for ms in range(1, 101)]) == Latency(p50=50.0, p95=95.0)
        assert latency([7.0]) == Latency(7.0, 7.0)
        assert latency([]) == Latency(0.0, 0.0)


def test_a_report_has_means_over_the_questions_that_have_them_and_the_worst_first() -> None:
    asked = [question("good", a=1), question("bad", a=1), NOTHING, UNJUDGED]
    found = report(asked, [answer("a"), answer("xyz"), answer("a"), answer("b", 30.0, degraded=True)])
    assert (found.queries, found.labelled, found.degraded) == (4, 3, 1)
    assert found.metrics["ndcg@10"] == 0.5
    assert (found.metrics["abstention"], found.measured) == (
        0.0,
        {**dict.fromkeys(("ndcg@10", "recall@5", "recall@10", "recall@20", "mrr"), 2), "abstention": 1},
    )
    assert [one.id for one in found.results] == ["bad", "nothing", "good", "unjudged"]


class TestComparison:
    def test_says_who_is_better_by_how_much_and_where(self) -> None:
        made = comparison(
            (question("better", a=1), "a", "xa"), (question("same", a=1), "a", "a"), (question("worse", a=1), "x", "a")
        )
        change = made.metrics["mrr"]
        assert change.candidate == pytest.approx(2 / 3)
        assert change.active == pytest.approx(2.5 / 3)
        assert change.delta == pytest.approx(-0.5 / 3)
        assert (change.better, change.worse, change.queries) == (1, 1, 3)
        assert change.low <= change.delta <= change.high
        assert change.p_value == 1.0
        assert (made.better, made.worse) == (1, 1)
        assert [one.id for one in made.changes] == ["worse", "same", "better"]
        worst = made.changes[0]
        assert (worst.delta, worst.candidate_found, worst.active_found) == (-1.0, ("doc_x",), ("doc_a",))
        assert made.shortened(1).changes == (worst,)

    def test_says_how_alike_answers_are_that_nobody_judged(self) -> None:
        made = comparison((UNJUDGED, "abc", "abc"), (replace(UNJUDGED, id="other"), "xyz", "abc"))
        assert made.metrics == {}
        assert (made.labelled, made.overlap_at_10) == (0, 0.5)
        assert made.rbo == pytest.approx(0.5)
        assert [(one.id, one.delta, one.overlap_at_10) for one in made.changes] == [
            ("other", None, 0.0),
            ("unjudged", None, 1.0),
        ]

    def test_counts_abstention_beside_ranking(self) -> None:
        made = comparison((NOTHING, "a", ""), (question("q", a=1), "a", "a"))
        assert made.metrics["abstention"].delta == -1.0
        assert made.metrics["ndcg@10"].queries == 1
        assert made.worse == 1

    def test_has_the_latency_of_both(self) -> None:
        made = comparison((UNJUDGED, "a", "a"), ms=25.0)
        assert (made.candidate_latency.p95, made.active_latency.p95) == (25.0, 10.0)

    def test_of_the_same_answers_is_the_same_and_is_plain_json(self) -> None:
        rows = [(question(f"q{n}", a=1, b=2), "xab"[n % 3 :], "abx"[n % 2 :]) for n in range(40)]
        assert comparison(*rows) == comparison(*rows)
        told = json.loads(json.dumps(asdict(comparison(*rows)), allow_nan=False))
        assert told["metrics"]["ndcg@10"]["queries"] == 40

    def test_of_no_questions_finds_no_difference(self) -> None:
        made = comparison()
        assert (made.queries, made.overlap_at_10, made.metrics) == (0, 1.0, {})

    @given(st.lists(st.tuples(st.text("abcde", max_size=5), st.text("abcde", max_size=5)), min_size=1, max_size=8))
    def test_turned_round_has_its_differences_turned_round(self, found: list[tuple[str, str]]) -> None:
        rows = [
            (question(f"q{n}", a=3, b=1), "".join(dict.fromkeys(one)), "".join(dict.fromkeys(other)))
            for n, (one, other) in enumerate(found)
        ]
        there = comparison(*rows)
        back = comparison(*((query, other, one) for query, one, other in rows))
        for name, change in there.metrics.items():
            assert back.metrics[name].delta == pytest.approx(-change.delta)
            assert back.metrics[name].p_value == pytest.approx(change.p_value)
            assert (back.metrics[name].better, back.metrics[name].worse) == (change.worse, change.better)
        assert back.overlap_at_10 == pytest.approx(there.overlap_at_10)
        assert back.rbo == pytest.approx(there.rbo)


class TestGate:
    MIXED = (
        (question("a", a=1), "a", "xa"),
        (question("b", a=1), "a", "xa"),
        (question("c", a=1), "xa", "a"),
    )

    def test_lets_what_is_better_pass_and_tells_the_numbers(self) -> None:
        verdict = judge(comparison(*self.MIXED), Gate(metric="mrr", min_delta=0.1, max_worse_queries=1))
        assert verdict.passed
        assert "mrr is 0.8333, of the active version 0.6667" in verdict.reasons[0]
        assert "+0.1667" in verdict.reasons[0]
        assert "1 of 3 questions got worse" in verdict.reasons[1]

    @pytest.mark.parametrize(
        ("gate", "said"),
        [
            (Gate(metric="mrr", min_delta=0.2), "at least +0.2000 is asked"),
            (Gate(metric="mrr", max_worse_queries=0), "where 0 are allowed"),
            (Gate(metric="abstention"), "abstention was not measured"),
            (Gate(metric="nonsense"), "nonsense was not measured"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_refuses_with_the_reason(self, gate: Gate, said: str) -> None:
        verdict = judge(comparison(*self.MIXED), gate)
        assert not verdict.passed
        assert [reason for reason in verdict.reasons if said in reason]

    def test_tells_only_what_failed_where_something_did(self) -> None:
        verdict = judge(comparison(*self.MIXED), Gate(metric="mrr", min_delta=0.1, max_worse_queries=0))
        assert len(verdict.reasons) == 1

    def test_lets_equal_answers_pass_where_no_gain_is_asked(self) -> None:
        same = comparison(*((query, one, one) for query, one, _ in self.MIXED))
        assert judge(same, Gate(max_worse_queries=0)).passed
        assert not judge(same, Gate(min_delta=0.001)).passed

    def test_refuses_answers_that_had_to_do_without_a_part_of_the_service(self) -> None:
        crippled = comparison(*self.MIXED, degraded=True)
        verdict = judge(crippled, Gate(metric="mrr"))
        assert (verdict.passed, "3 answers had to do without" in verdict.reasons[0]) == (False, True)

    def test_refuses_what_was_compared_by_no_question(self) -> None:
        for metric in ("ndcg@10", "overlap@10", "rbo"):
            assert not judge(comparison(), Gate(metric=metric, min_delta=-1.0)).passed

    def test_judges_unlabelled_questions_by_likeness(self) -> None:
        made = comparison((UNJUDGED, "abcd", "abcx"), (replace(UNJUDGED, id="other"), "ab", "ab"))
        assert judge(made, Gate(metric="overlap@10", min_delta=-0.2)).passed
        assert not judge(made, Gate(metric="overlap@10", min_delta=-0.1)).passed
        assert not judge(made, Gate(metric="overlap@10", min_delta=-1, max_worse_queries=0)).passed
        assert judge(made, Gate(metric="rbo", min_delta=-0.3, max_worse_queries=1)).passed
