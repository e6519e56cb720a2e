"""Planning: what a request becomes before any store is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rag_service.errors import InvalidRequest
from rag_service.retrieval.plan import MAX_DRAW, FusionSpec, Mode, RetrievalRequest, plan

REQUEST = RetrievalRequest("how long is annual leave?")


def test_a_plain_question_is_hybrid_weighted_and_asks_the_default_collection() -> None:
    made = plan(REQUEST, candidates=100)
    assert made.collections == ("default",)
    assert made.legs == ("dense", "lexical")
    assert made.limit == 100
    assert made.fusion == FusionSpec("weighted", None, None, 60)
    assert made.fusion.weights == (0.7, 0.3)


def test_named_collections_are_asked_once_each_in_order() -> None:
    made = plan(replace(REQUEST, collections=("b", "a", "b")), candidates=100)
    assert made.collections == ("b", "a")


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_one_leg_alone_needs_no_fusion(mode: Mode) -> None:
    made = plan(replace(REQUEST, mode=mode), candidates=100)
    assert made.legs == (mode,)
    assert made.fusion is None


@pytest.mark.parametrize(("top_k", "candidates"), [(1, 10), (10, 10), (100, 10), (100, 1000)])
def test_more_is_drawn_and_confirmed_than_asked_for_so_that_drops_are_refilled(top_k: int, candidates: int) -> None:
    made = plan(replace(REQUEST, top_k=top_k), candidates)
    assert made.limit >= max(candidates, 2 * top_k)
    assert made.window >= top_k + 10


def test_a_deeper_plan_draws_four_times_as_many_up_to_a_bound() -> None:
    limits = [100]
    deeper = plan(REQUEST, candidates=100).deeper()
    while deeper is not None:
        limits.append(deeper.limit)
        deeper = deeper.deeper()
    assert limits == [100, 400, 1_600, MAX_DRAW]


def test_without_its_dense_leg_a_plan_gives_the_lexical_leg_the_whole_weight() -> None:
    assert plan(REQUEST, 100).lexical_only().legs == ("lexical",)
    weighted = plan(REQUEST, 100).lexical_only().fusion
    assert weighted is not None
    assert weighted.weights == pytest.approx((0.0, 1.0))
    ranked = plan(replace(REQUEST, fusion=FusionSpec("rrf", k=10)), 100).lexical_only().fusion
    assert ranked is not None
    assert (ranked.method, ranked.weights, ranked.k) == ("rrf", (0.0, 2.0), 10)


def test_reciprocal_rank_fusion_weighs_both_legs_alike_by_default() -> None:
    assert FusionSpec("rrf").weights == (1.0, 1.0)
    assert FusionSpec("rrf", dense_weight=0.5).weights == (0.5, 1.0)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("query", "", "query is empty"),
        ("query", " \n", "query is empty"),
        ("query", "x" * 8_193, "longer than 8,192"),
        ("query", "a\x00b", "valid Unicode"),
        ("query", "\ud800", "valid Unicode"),
        ("top_k", 0, "between 1 and 100"),
        ("top_k", 101, "between 1 and 100"),
        ("max_chunks_per_document", 0, "at least 1"),
        ("min_score", float("nan"), "finite"),
    ],
)
def test_a_request_outside_its_bounds_is_refused(field: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        replace(REQUEST, **{field: value})


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0)])
@pytest.mark.parametrize("method", ["weighted", "rrf"])
def test_weights_that_cannot_order_are_refused(method: Any, weights: tuple[float, float]) -> None:
    with pytest.raises(InvalidRequest, match="fusion weights"):
        FusionSpec(method, *weights)


def test_k_must_be_positive() -> None:
    with pytest.raises(InvalidRequest, match="k must be"):
        FusionSpec("rrf", k=0)
