"""A search in two legs: draw from each, then let each score what only the other drew.

The stores differ in how they run a query, and in whether something proposes what may be near; what is asked, and what
is made of the answers, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

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


class Scored(NamedTuple):
    """A hit of one leg. A tuple, because a query makes hundreds of them."""

    chunk_id: str
    score: float


# One list of hits per query, in the order of the queries.
Run: TypeAlias = Callable[[Sequence[LegQuery]], list[list[Scored]]]
# Begins to look for what may be nearest. What it gives waits for that, and gives the query narrowed to what was found
# and to whatever else has to be compared. None from either: nothing is proposed.
Narrowed: TypeAlias = Callable[[], LegQuery | None]
Propose: TypeAlias = Callable[[LegQuery], Narrowed | None]


def search(request: SearchRequest, scope: AccessScope, run: Run, propose: Propose = lambda _: None) -> list[Candidate]:
    """The union of both legs' draws, each candidate scored by both legs; best rank first, ties by chunk id."""
    near, matching = _drawn(*_queries(request, scope), run, propose)
    ids = near.ranks.keys() | matching.ranks.keys()
    if request.dense is not None:
        # Drawn by the lexical leg and gone a moment later: deleted, or no longer readable.
        ids &= near.scores.keys()
    candidates = [
        Candidate(
            chunk_id,
            dense=None if request.dense is None else max(-1.0, min(1.0, near.scores[chunk_id])),
            dense_rank=near.ranks.get(chunk_id),
            lexical=None if request.lexical is None else matching.scores.get(chunk_id, 0.0),
            lexical_rank=matching.ranks.get(chunk_id),
        )
        for chunk_id in ids
    ]
    return sorted(candidates, key=_best_rank)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a leg says: the ranks of what it drew, the scores of that and of what the other leg drew."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


def _drawn(dense: LegQuery | None, lexical: LegQuery | None, run: Run, propose: Propose) -> tuple[_Answer, _Answer]:
    if dense is not None and (narrowed := propose(dense)) is not None:
        return _drawn_meanwhile(dense, lexical, run, narrowed)
    near = run([dense])[0] if dense else []
    # Scored in the call in which the lexical leg draws: a store computes the IDF of a corpus once per call, and that
    # is much of what a lexical query costs it.
    matching, *scored = run([lexical, *_among(lexical, _ids(near))]) if lexical else [[]]
    far = _asked(run, _among(dense, _ids(matching) - _ids(near))) if dense else []
    return _answer(near, *far), _answer(matching, *scored)


def _drawn_meanwhile(
    dense: LegQuery, lexical: LegQuery | None, run: Run, narrowed: Narrowed
) -> tuple[_Answer, _Answer]:
    """The lexical leg draws, and has scored what it drew, while what may be near is looked for."""
    matching = run([lexical])[0] if lexical else []
    far = _asked(run, _among(dense, _ids(matching)))
    query = narrowed()
    near = run([query])[0] if query is not None else []
    if len(near) < dense.limit:  # too little was proposed: everything is compared
        near = run([dense])[0]
    scored = _asked(run, _among(lexical, _ids(near) - _ids(matching))) if lexical else []
    return _answer(near, *far), _answer(matching, *scored)


def _asked(run: Run, queries: Sequence[LegQuery]) -> list[list[Scored]]:
    return run(queries) if queries else []


def _ids(hits: Sequence[Scored]) -> frozenset[str]:
    return frozenset(hit.chunk_id for hit in hits)


def _among(query: LegQuery, ids: Set[str]) -> list[LegQuery]:
    """`query` asked for the scores of these chunks; nothing to ask where there are none."""
    return [replace(query, limit=len(ids), where=within(frozenset(ids), query.where))] if ids else []


def _answer(drawn: Sequence[Scored], *scored: Sequence[Scored]) -> _Answer:
    ordered = sorted(drawn, key=lambda hit: (-hit.score, hit.chunk_id))
    return _Answer(
        ranks={hit.chunk_id: rank for rank, hit in enumerate(ordered, start=1)},
        scores={hit.chunk_id: hit.score for hits in (drawn, *scored) for hit in hits},
    )


def _queries(request: SearchRequest, scope: AccessScope) -> tuple[LegQuery | None, LegQuery | None]:
    if request.dense is None and request.lexical is None:
        raise InvalidRequest("A search needs a dense or a lexical query.")
    if request.limit < 1:
        raise InvalidRequest("A search must draw at least one candidate.")
    where, corpus = mandatory(scope, request.narrowing), readable(scope)
    if request.chunk_ids is not None:
        where = within(request.chunk_ids, where)
    dense = None if request.dense is None else LegQuery("dense", request.dense, request.limit, where, corpus)
    if request.lexical is None or not len(request.lexical.indices):
        return dense, None
    return dense, LegQuery("lexical", request.lexical, request.limit, where, corpus)


def _best_rank(candidate: Candidate) -> tuple[int, str]:
    ranks = [rank for rank in (candidate.dense_rank, candidate.lexical_rank) if rank is not None]
    return min(ranks), candidate.chunk_id
