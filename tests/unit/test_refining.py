"""Age, repetition, likeness, feedback and surroundings: what each option does to an order of passages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest
from rag_service.retrieval.diversity import distinct, diversified
from rag_service.retrieval.expansion import span
from rag_service.retrieval.feedback import fed_back
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.options import Expansion, Feedback, Options, Recency
from rag_service.retrieval.recency import aged, freshness
from rag_service.retrieval.refining import as_fused, capped, refined, reranked
from rag_service.types import Chunk, ChunkText, ConfirmedChunk, SparseVector
from rag_service.vectors.base import Candidate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = Recency("published", half_life_days=365, weight=0.4)


def found(name: str, score: float, text: str = "", **metadata: str) -> tuple[Fused, ConfirmedChunk]:
    chunk = Chunk(name, name, 1, 0, ChunkText(text or name, 0, len(text or name)), "hash")
    confirmed = ConfirmedChunk(chunk, name, "default", "", None, "", metadata, None, "", "", "", "", "", NOW)
    return Fused(Candidate(name), score), confirmed


def of(passage: tuple[Fused, ConfirmedChunk], document: str) -> tuple[Fused, ConfirmedChunk]:
    fused, confirmed = passage
    return fused, replace(confirmed, chunk=replace(confirmed.chunk, document_id=document))


def order(*given_: tuple[Fused, ConfirmedChunk], count: int = 10, **options: object) -> list[str]:
    asked = Options(**options)  # type: ignore[arg-type]  # only the names of Options
    return [one.found[1].external_id for one in refined(as_fused(given_), asked, count, NOW)]


def test_a_cap_keeps_the_best_passages_of_each_document() -> None:
    ranking = [of(found(name, 0.0), document=name[0]) for name in ("a1", "a2", "b1", "a3", "c1", "b2", "b3")]

    def names(per_document: int | None) -> list[str]:
        return [one[1].external_id for one in capped(ranking, per_document)]

    assert names(2) == ["a1", "a2", "b1", "c1", "b2"]
    assert names(1) == ["a1", "b1", "c1"]
    assert capped(ranking, None) == ranking


# --- age ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-06-01", 1.0),
        ("2030-01-01", 1.0),
        ("2025-06-01", 0.5),
        ("2024-06-01T00:00:00Z", 0.25),
        ("2025-06-01T02:00:00+02:00", 0.5),
        ("last year", 0.5),
        (2025, 0.5),
        (["2024-06-01", "2026-06-01", "soon"], 1.0),
        (["soon"], 0.5),
    ],
)
def test_freshness_halves_with_each_half_life(written: object, expected: float) -> None:
    metadata = {"published": written}
    assert freshness(metadata, YEAR, NOW) == pytest.approx(expected, abs=0.002)  # type: ignore[arg-type]  # any JSON


def test_age_takes_at_most_its_weight_also_of_a_negative_score() -> None:
    old = {"published": "1900-01-01"}
    assert aged(1.0, old, YEAR, NOW) == pytest.approx(0.6)
    assert aged(-0.5, old, YEAR, NOW) == pytest.approx(-0.7)
    assert aged(1.0, {"published": "2026-06-01"}, YEAR, NOW) == 1.0


def test_the_newer_of_two_passages_overtakes_a_slightly_better_older_one() -> None:
    old, new = found("old", 0.9, published="2016-06-01"), found("new", 0.8, published="2026-05-01")
    assert order(old, new) == ["old", "new"]
    assert order(old, new, recency=YEAR) == ["new", "old"]
    assert order(found("much-better", 0.9, published="2016-06-01"), found("new", 0.3), recency=YEAR)[0] == "much-better"


@given(st.integers(0, 20_000), st.integers(1, 20_000))
def test_the_older_never_gains_on_the_newer(age: int, more: int) -> None:
    newer, older = ({"published": (NOW - timedelta(days=days)).isoformat()} for days in (age, age + more))
    assert aged(0.8, newer, YEAR, NOW) >= aged(0.8, older, YEAR, NOW)


# --- repetition and likeness --------------------------------------------------------------

LEAVE = "Every employee may take thirty days of annual leave in each calendar year"


def test_near_duplicates_of_a_better_passage_are_left_out() -> None:
    copies = [found("best", 0.9, LEAVE), found("copy", 0.8, f"{LEAVE}."), found("other", 0.7, "Lunch is at noon today")]
    assert order(*copies) == ["best", "copy", "other"]
    assert order(*copies, collapse=0.8) == ["best", "other"]


def test_collapsing_compares_word_triples_and_short_texts_as_a_whole() -> None:
    assert list(distinct(["a b", "A, b!", "a c", ""], 0.8)) == [0, 2, 3]
    assert list(distinct(["one two three four", "four three two one"], 0.5)) == [0, 1]


@given(st.lists(st.text("ab ", max_size=12), max_size=8), st.floats(0.1, 1))
def test_collapsing_keeps_the_first_and_leaves_nothing_alike(texts: list[str], threshold: float) -> None:
    kept = list(distinct(texts, threshold))
    assert kept[:1] == ([0] if texts else [])
    assert list(distinct([texts[place] for place in kept], threshold)) == list(range(len(kept)))


def test_diversity_brings_another_subject_up_and_keeps_the_best_first() -> None:
    passages = [
        found("best", 0.9, LEAVE),
        found("alike", 0.88, f"{LEAVE} indeed"),
        found("other", 0.8, "Lunch at noon"),
    ]
    assert order(*passages, count=2) == ["best", "alike"]
    assert order(*passages, count=2, diversity=0.5) == ["best", "other"]


def test_diversity_of_equal_scores_and_of_nothing_is_defined() -> None:
    assert diversified([], [], 0.5, 3) == []
    assert [place for place, _ in diversified([0.5, 0.5], ["a", "b"], 0.5, 3)] == [0, 1]
    assert diversified([0.9, 0.1], ["same words", "same words"], 0.1, 2)[1][1] == pytest.approx(1)


# --- reranking ----------------------------------------------------------------------------


def test_reranking_orders_by_its_scores_and_says_how_far_each_moved() -> None:
    ranking = reranked(as_fused([found("a", 0.9), found("b", 0.8), found("c", 0.7)]), [0.1, 0.2, 0.9])
    assert [one.found[1].external_id for one in ranking] == ["c", "b", "a"]
    assert [one.moves["rerank_delta"] for one in ranking] == [2, 0, -2]
    assert [one.score for one in ranking] == [0.9, 0.2, 0.1]


def test_equal_scores_of_a_reranker_keep_the_order() -> None:
    ranking = reranked(as_fused([found("a", 0.9), found("b", 0.8)]), [0.5, 0.5])
    assert [one.found[1].external_id for one in ranking] == ["a", "b"]


# --- feedback -----------------------------------------------------------------------------


def test_feedback_adds_what_sets_the_best_passages_apart() -> None:
    query = SparseVector([1], [2.0])
    everywhere, telling = 8, 9
    passages = [SparseVector([1, everywhere, telling], [1.0, 1.0, 1.0])] * 2 + [
        SparseVector([1, everywhere], [1.0, 1.0])
    ] * 8
    made = fed_back(query, passages, Feedback(passages=2, terms=5, weight=0.5))
    assert dict(zip(made.indices, made.values, strict=True)) == pytest.approx({1: 2.0, telling: 1.0})


@pytest.mark.parametrize("passages", [[], [SparseVector([4], [1.0])] * 3])
def test_feedback_that_tells_nothing_changes_nothing(passages: list[SparseVector]) -> None:
    query = SparseVector([1], [1.0])
    assert fed_back(query, passages, Feedback()) == query


# --- surroundings -------------------------------------------------------------------------


def chunks(*paths: tuple[str, ...]) -> list[Chunk]:
    """Chunks of ten characters, one per heading path."""
    return [
        Chunk(f"c{n}", "doc", 1, n, ChunkText("x" * 10, 10 * n, 10 * n + 10, None, path), "h")
        for n, path in enumerate(paths)
    ]


def test_neighbours_are_taken_as_far_as_asked_and_as_there_are() -> None:
    book = chunks(*[("A",)] * 6)
    assert span(book[2], book, 1, 2) == (10, 50)
    assert span(book[0], book, 3, 1) == (0, 20)
    assert span(book[2], [book[2], book[4]], 0, 2) == (20, 30)


def test_chunks_of_another_document_or_version_are_no_neighbours() -> None:
    hit, stranger = (
        Chunk("a", "doc", 2, 0, ChunkText("x", 0, 1), "h"),
        Chunk("b", "doc", 1, 1, ChunkText("x", 1, 2), "h"),
    )
    foreign = Chunk("c", "other", 2, 1, ChunkText("x", 1, 2), "h")
    assert span(hit, [hit, stranger, foreign], 0, 1) == (0, 1)


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Recency("no field!"),
        lambda: Recency("d", half_life_days=0),
        lambda: Recency("d", weight=1.5),
        lambda: Feedback(passages=0),
        lambda: Feedback(weight=0),
        Expansion,
        lambda: Expansion(before=21),
        lambda: Options(diversity=0),
        lambda: Options(collapse=1.1),
        lambda: Options(rerank_depth=0),
    ],
)
def test_options_out_of_bounds_are_refused(make: object) -> None:
    with pytest.raises(InvalidRequest):
        make()  # type: ignore[operator]  # a list of callables
