"""A search in two legs: draw from each, then let each score what only the other drew.

The stores differ in how they run a query; what is asked, and what is made of the answers, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from rag_service.access import AccessScope
from rag_service.errors import InvalidRequest
from rag_service.types import SparseVector, Vector
from rag_service.vectors.base import Candidate, SearchRequest
from rag_service.vectors.conditions import Every, mandatory, readable, within

Leg: TypeAlias = Literal["dense", "lexical"]


@dataclass(frozen=True, slots=True)
class LegQuery:
    """The `limit` best points of one leg that satisfy `where`; IDF is computed over `corpus`."""

    leg: Leg
    vector: Vector | SparseVector
    limit: int
    where: Every
    corpus: Every
    with_payload: bool = True


class Scored(NamedTuple):
    """A hit of one leg. A tuple, because a query makes hundreds of them."""

    chunk_id: str
    score: float
    payload: Mapping[str, Any]


# One list of hits per query, in the order of the queries.
Run: TypeAlias = Callable[[Sequence[LegQuery]], list[list[Scored]]]


def search(request: SearchRequest, scope: AccessScope, run: Run) -> list[Candidate]:
    """The union of both legs' draws, each candidate scored by both legs; best rank first, ties by chunk id."""
    queries = _queries(request, scope)
    drawn = [sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id)) for hits in _run(run, queries)]
    found = {hit.chunk_id: hit.payload for hits in drawn for hit in hits}
    filled = _fill(run, queries, drawn, frozenset(found))
    ranks, scores = _by_leg(queries, drawn, filled)
    if request.dense is not None:
        # Drawn by the lexical leg and gone a moment later: deleted, or no longer readable.
        found = {chunk_id: payload for chunk_id, payload in found.items() if chunk_id in scores["dense"]}
    candidates = [
        Candidate(
            chunk_id,
            payload["document_id"],
            payload["version"],
            dense=None if request.dense is None else max(-1.0, min(1.0, scores["dense"][chunk_id])),
            dense_rank=ranks["dense"].get(chunk_id),
            lexical=None if request.lexical is None else scores["lexical"].get(chunk_id, 0.0),
            lexical_rank=ranks["lexical"].get(chunk_id),
        )
        for chunk_id, payload in found.items()
    ]
    return sorted(candidates, key=_best_rank)


def _queries(request: SearchRequest, scope: AccessScope) -> list[LegQuery]:
    if request.dense is None and request.lexical is None:
        raise InvalidRequest("A search needs a dense or a lexical query.")
    if request.limit < 1:
        raise InvalidRequest("A search must draw at least one candidate.")
    corpus = readable(scope)
    where = corpus if request.narrowing is None else mandatory(scope, request.narrowing)
    if request.chunk_ids is not None:
        where = within(request.chunk_ids, where)
    queries = []
    if request.dense is not None:
        queries.append(LegQuery("dense", request.dense, request.limit, where, corpus))
    if request.lexical is not None and len(request.lexical.indices):
        queries.append(LegQuery("lexical", request.lexical, request.limit, where, corpus))
    return queries


def _fill(
    run: Run, queries: Sequence[LegQuery], drawn: Sequence[Sequence[Scored]], found: frozenset[str]
) -> list[list[Scored]]:
    missing = [_unscored(query, hits, found) for query, hits in zip(queries, drawn, strict=True)]
    asked = [
        replace(query, limit=len(ids), where=within(ids, query.where), with_payload=False)
        for query, ids in zip(queries, missing, strict=True)
        if ids
    ]
    answers = iter(_run(run, asked))
    return [next(answers) if ids else [] for ids in missing]


def _unscored(query: LegQuery, hits: Sequence[Scored], found: frozenset[str]) -> frozenset[str]:
    # A lexical leg that drew less than it might has drawn all that share a term with the query: the rest score 0.
    exhausted = query.leg == "lexical" and len(hits) < query.limit
    return frozenset() if exhausted else found - {hit.chunk_id for hit in hits}


def _run(run: Run, queries: Sequence[LegQuery]) -> list[list[Scored]]:
    return run(queries) if queries else []


def _by_leg(
    queries: Sequence[LegQuery], drawn: Sequence[Sequence[Scored]], filled: Sequence[Sequence[Scored]]
) -> tuple[dict[Leg, dict[str, int]], dict[Leg, dict[str, float]]]:
    ranks: dict[Leg, dict[str, int]] = {"dense": {}, "lexical": {}}
    scores: dict[Leg, dict[str, float]] = {"dense": {}, "lexical": {}}
    for query, own, other in zip(queries, drawn, filled, strict=True):
        ranks[query.leg] = {hit.chunk_id: rank for rank, hit in enumerate(own, start=1)}
        scores[query.leg] = {hit.chunk_id: hit.score for hit in (*own, *other)}
    return ranks, scores


def _best_rank(candidate: Candidate) -> tuple[int, str]:
    ranks = [rank for rank in (candidate.dense_rank, candidate.lexical_rank) if rank is not None]
    return min(ranks), candidate.chunk_id
