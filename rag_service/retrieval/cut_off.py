"""Where a document stands that a search reaches but does not return: in each leg, fused, and at which cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from rag_service.access import AccessScope
from rag_service.retrieval.fusion import Fused, fuse, merge
from rag_service.retrieval.plan import MAX_DRAW, Leg, RetrievalRequest
from rag_service.retrieval.refining import Step, steps
from rag_service.retrieval.retriever import Run
from rag_service.vectors.base import Candidate, SearchRequest, VectorStore

Cut: TypeAlias = (
    Literal["nothing_asked", "no_common_word", "candidates", "min_score", "top_k", "depth", "rerank"] | Step
)
Placing: TypeAlias = tuple[Literal["below_cut_off"], str, Mapping[str, Any]]


def cut_off(
    vectors: VectorStore, run: Run, request: RetrievalRequest, own: frozenset[str], scope: AccessScope
) -> Placing:
    """The document's best chunk (one of `own`), its score and rank in each leg and fused, and the cut it falls under.

    Ranks are counted down to MAX_DRAW candidates per leg; None beyond. `cut` is one of: nothing_asked (the question has
    nothing that these legs could look for), no_common_word (only words were asked, and the document has none of them),
    candidates (no leg drew it), min_score, top_k, depth (it ranked below what options choose from), or the option that
    took it out of the best `top_k`: rerank, recency, collapse_duplicates, diversity.
    """
    last = run.answer.hits[-1] if run.answer.hits else None
    detail: dict[str, Any] = {
        "last_returned": None if last is None else {"rank": last.rank, "score": last.score, "fused": last.fused}
    }
    course = run.course
    if not course.queries:
        return "below_cut_off", _REASONS["nothing_asked"], {**detail, "cut": "nothing_asked"}
    drawn = _best(course.ranking, own)
    settled = drawn is not None and _is_placed(drawn[1].candidate, run)
    deep = [] if settled else _drawn(vectors, run, request, scope, None)
    rank, fused = drawn or _best(fuse(deep, course.fusion), own) or (None, None)
    best = fused.candidate if fused else _alone(vectors, run, request, own, scope)
    if best is None:  # the dense leg finds whatever is there
        legs = {leg: {"score": 0.0, "rank": None, "drawn": course.plan.limit} for leg in course.plan.legs}
        return "below_cut_off", _REASONS["no_common_word"], {**detail, "cut": "no_common_word", "legs": legs}
    cut = _cut(drawn[1], run, request, own) if drawn else "candidates"
    placed = {
        "cut": cut,
        "chunk_id": best.chunk_id,
        "legs": _legs(best, deep, run),
        "fused": None if fused is None else {"rank": rank, "score": fused.score},
    }
    return "below_cut_off", _REASONS[cut], {**placed, **detail}


_REASONS: dict[Cut, str] = {
    "nothing_asked": "The question has no word that the lexical leg could look for.",
    "no_common_word": "It has none of the question's words.",
    "candidates": "No leg ranked it high enough to become a candidate.",
    "min_score": "Its score is below min_score.",
    "top_k": "Other passages rank higher, and top_k of them are returned.",
    "depth": "It ranked below the passages that were reranked or compared with one another.",
    "rerank": "The reranker put other passages before it.",
    "recency": "Newer passages came before it.",
    "collapse_duplicates": "It says nearly the same as a better passage.",
    "diversity": "It is more like the passages above it than those that were returned.",
}


def _cut(best: Fused, run: Run, request: RetrievalRequest, own: frozenset[str]) -> Cut:
    """For a document that was drawn; the steps after fusion are taken once more, with the same clock."""
    if request.min_score is not None and best.score < request.min_score:
        return "min_score"
    if not any(chunk.chunk.id in own for _, chunk in run.course.found):
        return "depth" if run.course.reranked or request.options.compares else "top_k"
    if not any(one.found[1].chunk.id in own for one in run.course.compared):
        return "depth"
    cut: Cut = "top_k"
    was_inside = False
    for step, ranking in _steps(run, request):
        places = [place for place, chunk_id in enumerate(ranking) if chunk_id in own]
        if step == "collapse_duplicates" and not places:
            return "collapse_duplicates"
        is_inside = bool(places) and places[0] < request.top_k
        if step is not None and was_inside and not is_inside:
            cut = step
        was_inside = is_inside
    return cut


def _steps(run: Run, request: RetrievalRequest) -> Iterator[tuple[Literal["rerank"] | Step | None, list[str]]]:
    """The chunk ids in the order they had by fusion, and then after each step."""
    course = run.course
    yield None, [chunk.chunk.id for _, chunk in course.found]
    if course.reranked:
        yield "rerank", [one.found[1].chunk.id for one in course.compared]
    for step, ranking in steps(course.compared, request.options, request.top_k, run.at):
        yield step, [one.found[1].chunk.id for one in ranking]


def _drawn(
    vectors: VectorStore, run: Run, request: RetrievalRequest, scope: AccessScope, own: frozenset[str] | None
) -> list[Candidate]:
    return merge(
        [
            query.on_scale(
                vectors.search(
                    query.version.id,
                    SearchRequest(query.dense, query.lexical, request.filter, limit=MAX_DRAW, chunk_ids=own),
                    scope,
                )
            )
            for query in run.course.queries
        ]
    )


def _alone(
    vectors: VectorStore, run: Run, request: RetrievalRequest, own: frozenset[str], scope: AccessScope
) -> Candidate | None:
    """The best of the document's chunks where so many others rank higher that no draw comes down to it."""
    ranking = fuse(_drawn(vectors, run, request, scope, own), run.course.fusion)
    return ranking[0].candidate if ranking else None


def _best(ranking: Sequence[Fused], own: frozenset[str]) -> tuple[int, Fused] | None:
    return next(
        ((rank, one) for rank, one in enumerate(ranking, start=1) if one.candidate.chunk_id in own),
        None,
    )


def _is_placed(candidate: Candidate, run: Run) -> bool:
    """Whether each leg drew it, or never will: a passage without any of the words has no place in the lexical leg."""
    dense = candidate.dense_rank is not None or "dense" not in run.course.plan.legs
    return dense and (candidate.lexical_rank is not None or not candidate.lexical)


def _legs(best: Candidate, deep: Sequence[Candidate], run: Run) -> dict[Leg, dict[str, Any]]:
    plan = run.course.plan
    ranked = next((candidate for candidate in deep if candidate.chunk_id == best.chunk_id), best)
    places = {
        "dense": (best.dense, ranked.dense_rank),
        "lexical": (best.lexical, ranked.lexical_rank),
    }
    return {leg: {"score": places[leg][0], "rank": places[leg][1], "drawn": plan.limit} for leg in plan.legs}
