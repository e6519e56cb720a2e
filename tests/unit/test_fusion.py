"""Fusion: how two legs become one ranking."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.retrieval.fusion import Fused, fuse, is_all, may_reach, merge
from rag_service.retrieval.plan import FusionSpec
from rag_service.vectors.base import Candidate

WEIGHTED = FusionSpec()
RRF = FusionSpec("rrf")


def candidate(
    name: str,
    dense: float | None = None,
    lexical: float | None = None,
    *,
    dense_rank: int | None = None,
    lexical_rank: int | None = None,
) -> Candidate:
    return Candidate(name, dense, dense_rank, lexical, lexical_rank)


def names(ranking: list[Fused]) -> list[str]:
    return [one.candidate.chunk_id for one in ranking]


@st.composite
def drawn(draw: st.DrawFn) -> list[Candidate]:
    """What one index gives: every chunk scored by both legs, each leg ranking the part that it drew."""
    coarse = st.integers(-4, 4).map(lambda n: n / 4)  # few values, so that ties happen
    scores = draw(st.lists(st.tuples(coarse, st.integers(0, 5).map(float)), min_size=1, max_size=12))
    chunks = [candidate(f"c{place:02}", dense, lexical) for place, (dense, lexical) in enumerate(scores)]
    reach = draw(st.integers(1, len(chunks)))
    by_dense = sorted(chunks, key=lambda c: (-(c.dense or 0), c.chunk_id))[:reach]
    by_lexical = [c for c in sorted(chunks, key=lambda c: (-(c.lexical or 0), c.chunk_id)) if c.lexical][:reach]
    dense_ranks = {c.chunk_id: rank for rank, c in enumerate(by_dense, 1)}
    lexical_ranks = {c.chunk_id: rank for rank, c in enumerate(by_lexical, 1)}
    return [
        replace(c, dense_rank=dense_ranks.get(c.chunk_id), lexical_rank=lexical_ranks.get(c.chunk_id))
        for c in chunks
        if c.chunk_id in dense_ranks or c.chunk_id in lexical_ranks
    ]


SPECS = st.builds(
    FusionSpec,
    method=st.sampled_from(["weighted", "rrf"]),
    dense_weight=st.floats(0.1, 2),
    lexical_weight=st.floats(0.1, 2),
    k=st.integers(1, 100),
)


def test_weighted_fusion_adds_the_cosine_and_the_scaled_bm25() -> None:
    ranking = fuse([candidate("a", 0.5, 8.0), candidate("b", 0.9, 0.0), candidate("c", 0.6, 4.0)], WEIGHTED)
    assert names(ranking) == ["a", "b", "c"]
    assert [one.score for one in ranking] == pytest.approx([0.35 + 0.3, 0.63, 0.42 + 0.15])
    assert ranking[0].dense == pytest.approx(0.35)
    assert ranking[0].lexical == pytest.approx(0.3)


def test_weights_are_the_callers_where_given() -> None:
    spec = FusionSpec("weighted", dense_weight=0.0, lexical_weight=1.0)
    assert [one.score for one in fuse([candidate("a", 0.9, 1.0), candidate("b", 0.1, 4.0)], spec)] == [1.0, 0.25]


def test_without_any_matching_term_the_dense_leg_alone_orders() -> None:
    ranking = fuse([candidate("a", 0.2, 0.0), candidate("b", 0.4, 0.0)], WEIGHTED)
    assert names(ranking) == ["b", "a"]
    assert [one.score for one in ranking] == pytest.approx([0.28, 0.14])


def test_a_missing_score_counts_as_the_lowest_of_its_leg() -> None:
    ranking = fuse([candidate("a", 0.8, 4.0), candidate("b", 0.6, 2.0), candidate("c", None, 4.0)], WEIGHTED)
    assert {one.candidate.chunk_id: one.dense for one in ranking}["c"] == pytest.approx(0.7 * 0.6)


def test_a_missing_leg_counts_nothing() -> None:
    dense_only = fuse([candidate("a", 0.8), candidate("b", 0.6)], WEIGHTED)
    assert [one.score for one in dense_only] == pytest.approx([0.56, 0.42])
    assert [one.lexical for one in dense_only] == [0, 0]
    lexical_only = fuse([candidate("a", None, 2.0), candidate("b", None, 4.0)], WEIGHTED)
    assert [one.score for one in lexical_only] == pytest.approx([0.3, 0.15])
    assert [one.dense for one in lexical_only] == [0, 0]


def test_reciprocal_rank_fusion_adds_the_reciprocal_ranks() -> None:
    both = candidate("a", 0.1, 0.1, dense_rank=2, lexical_rank=1)
    dense = candidate("b", 0.9, 0.0, dense_rank=1)
    ranking = fuse([dense, both], RRF)
    assert names(ranking) == ["a", "b"]
    assert [one.score for one in ranking] == pytest.approx([1 / 62 + 1 / 61, 1 / 61])


def test_reciprocal_rank_fusion_takes_k_and_weights() -> None:
    ranking = fuse([candidate("a", dense_rank=1), candidate("b", lexical_rank=1)], FusionSpec("rrf", 1.0, 3.0, k=1))
    assert [(one.candidate.chunk_id, one.score) for one in ranking] == [("b", 1.5), ("a", 0.5)]


def test_one_leg_alone_keeps_its_own_score() -> None:
    assert [one.score for one in fuse([candidate("a", -0.5), candidate("b", 0.5)], None)] == [0.5, -0.5]
    assert [one.score for one in fuse([candidate("a", None, 7.5), candidate("b", None, 9.0)], None)] == [9.0, 7.5]


@pytest.mark.parametrize("spec", [WEIGHTED, RRF, None])
def test_equal_scores_are_ordered_by_chunk_id(spec: FusionSpec | None) -> None:
    alike = [candidate(name, 0.5, 1.0, dense_rank=1, lexical_rank=1) for name in ("c", "a", "b")]
    assert names(fuse(alike, spec)) == ["a", "b", "c"]


@pytest.mark.parametrize("spec", [WEIGHTED, RRF, None])
def test_no_candidates_make_no_ranking(spec: FusionSpec | None) -> None:
    assert fuse(merge([]), spec) == []


@given(drawn(), SPECS, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    chunks: list[Candidate], spec: FusionSpec, order: random.Random
) -> None:
    shuffled = order.sample(chunks, len(chunks))
    assert fuse(merge([shuffled]), spec) == fuse(merge([chunks]), spec)


@given(drawn(), SPECS)
def test_every_candidate_is_ranked_once_and_its_contributions_add_up(chunks: list[Candidate], spec: FusionSpec) -> None:
    ranking = fuse(chunks, spec)
    assert sorted(names(ranking)) == sorted(c.chunk_id for c in chunks)
    assert all(one.score == one.dense + one.lexical for one in ranking)
    assert all(first.score >= second.score for first, second in pairwise(ranking))


@given(drawn(), SPECS)
def test_better_in_both_legs_is_never_ranked_lower(chunks: list[Candidate], spec: FusionSpec) -> None:
    ranking = fuse(chunks, spec)
    place = {name: n for n, name in enumerate(names(ranking))}
    for one in chunks:
        for other in chunks:
            if _beats(one, other, spec):
                assert place[one.chunk_id] < place[other.chunk_id]


def _beats(one: Candidate, other: Candidate, spec: FusionSpec) -> bool:
    if spec.method == "weighted":
        return (one.dense or 0) > (other.dense or 0) and (one.lexical or 0) >= (other.lexical or 0)
    far = 10_000
    return (one.dense_rank or far) < (other.dense_rank or far) and (one.lexical_rank or far) < (
        other.lexical_rank or far
    )


@given(drawn(), st.floats(0.5, 100))
def test_weighted_fusion_does_not_see_the_scale_of_bm25(chunks: list[Candidate], factor: float) -> None:
    scaled = [replace(c, lexical=(c.lexical or 0) * factor) for c in chunks]
    before = {one.candidate.chunk_id: one.score for one in fuse(chunks, WEIGHTED)}
    after = {one.candidate.chunk_id: one.score for one in fuse(scaled, WEIGHTED)}
    assert after == pytest.approx(before)


@given(drawn())
def test_the_candidates_of_one_index_keep_the_ranks_of_their_store(chunks: list[Candidate]) -> None:
    assert merge([chunks]) == chunks


@given(drawn(), drawn(), SPECS)
def test_several_indexes_rank_as_one_would(first: list[Candidate], second: list[Candidate], spec: FusionSpec) -> None:
    renamed = [replace(c, chunk_id=f"x{c.chunk_id}") for c in second]
    merged = merge([first, renamed])
    drawn_by_dense = [c for c in merged if c.dense_rank is not None]
    by_rank = sorted(drawn_by_dense, key=lambda c: c.dense_rank or 0)
    assert [c.dense_rank for c in by_rank] == list(range(1, len(by_rank) + 1))
    assert by_rank == sorted(drawn_by_dense, key=lambda c: (-(c.dense or 0), c.chunk_id))
    assert fuse(merged, spec) == fuse(merge([renamed, first]), spec)


def test_several_indexes_share_one_bm25_scale() -> None:
    ranking = fuse(merge([[candidate("a", 0.0, 10.0)], [candidate("b", 0.0, 5.0)]]), WEIGHTED)
    assert names(ranking) == ["a", "b"]
    assert [one.lexical for one in ranking] == pytest.approx([0.3, 0.15])


# --- drawing deeper -----------------------------------------------------------------------


@st.composite
def drawn_in_part(draw: st.DrawFn) -> tuple[list[Candidate], list[Candidate], int]:
    """What one index gives when asked for a few of each leg and when asked for all, and how few."""
    coarse = st.integers(-4, 4).map(lambda n: n / 4)
    scores = draw(st.lists(st.tuples(coarse, st.integers(0, 5).map(float)), min_size=1, max_size=12))
    chunks = [candidate(f"c{place:02}", dense, lexical) for place, (dense, lexical) in enumerate(scores)]
    limit = draw(st.integers(1, len(chunks)))
    return ranked(chunks, limit), ranked(chunks, len(chunks)), limit


def ranked(chunks: list[Candidate], limit: int) -> list[Candidate]:
    by_dense = sorted(chunks, key=lambda c: (-(c.dense or 0), c.chunk_id))[:limit]
    by_lexical = [c for c in sorted(chunks, key=lambda c: (-(c.lexical or 0), c.chunk_id)) if c.lexical][:limit]
    dense = {c.chunk_id: rank for rank, c in enumerate(by_dense, 1)}
    lexical = {c.chunk_id: rank for rank, c in enumerate(by_lexical, 1)}
    both = [replace(c, dense_rank=dense.get(c.chunk_id), lexical_rank=lexical.get(c.chunk_id)) for c in chunks]
    return [c for c in both if c.dense_rank or c.lexical_rank]


@given(drawn_in_part(), SPECS, st.floats(-2, 4))
def test_whatever_would_pass_after_a_deeper_draw_is_known_to_be_in_reach(
    drawn: tuple[list[Candidate], list[Candidate], int], spec: FusionSpec, least: float
) -> None:
    some, everything, limit = drawn
    before = {one.candidate.chunk_id for one in fuse(some, spec) if one.score >= least}
    after = {one.candidate.chunk_id for one in fuse(everything, spec) if one.score >= least}
    assert after <= before or may_reach(least, [some], spec, limit)
    assert after <= before or not is_all(some, limit)


def test_one_leg_alone_has_nothing_below_its_last_score() -> None:
    some = [candidate("a", 0.9, dense_rank=1), candidate("b", 0.5, dense_rank=2)]
    assert may_reach(0.5, [some], None, 2)
    assert not may_reach(0.51, [some], None, 2)


def test_a_passage_that_is_good_in_both_legs_is_in_reach_though_one_of_a_single_leg_is_not() -> None:
    some = [
        candidate("meaning", 0.9, 0.0, dense_rank=1),
        candidate("words", 0.1, 9.0, lexical_rank=1),
        candidate("both", 0.8, 8.0, dense_rank=2, lexical_rank=2),
    ]
    even = FusionSpec("weighted", 0.5, 0.5)
    assert fuse(some, even)[-1].score < 0.6
    assert may_reach(0.6, [some], even, 2)
    assert not may_reach(0.9, [some], even, 2)
