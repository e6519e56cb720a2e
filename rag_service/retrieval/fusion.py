"""Two legs become one ranking: pure functions over candidates, so that every vector store ranks alike.

Equal scores are ordered by chunk id, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from rag_service.retrieval.plan import FusionSpec
from rag_service.vectors.base import Candidate


@dataclass(frozen=True, slots=True)
class Fused:
    """A candidate and its score: the sum of what each leg contributed."""

    candidate: Candidate
    score: float
    dense: float = 0.0
    lexical: float = 0.0


def merge(drawn: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """The candidates of several indexes as one set, with ranks that count over all of them.

    A rank is kept by what a leg drew itself; it is the place of its score among those, from 1.
    """
    if len(drawn) == 1:
        return list(drawn[0])
    candidates = list({candidate.chunk_id: candidate for candidate in chain.from_iterable(drawn)}.values())
    dense = _places([(c.dense or 0.0, c.chunk_id) for c in candidates if c.dense_rank is not None])
    lexical = _places([(c.lexical or 0.0, c.chunk_id) for c in candidates if c.lexical_rank is not None])
    return [_placed(c, dense.get(c.chunk_id), lexical.get(c.chunk_id)) for c in candidates]


def fuse(candidates: Sequence[Candidate], spec: FusionSpec | None) -> list[Fused]:
    """Candidates of `merge`, best first. Without a spec the score is that of the one leg asked.

    weighted: dense weight x cosine + lexical weight x BM25 / the highest BM25 of the set. A score that is missing
    counts as the lowest of its leg in the set, or 0 where the whole leg is missing.
    rrf: the sum over legs of weight / (k + rank); a leg that did not draw a chunk gives it nothing.
    """
    if spec is None:
        fused = [Fused(c, (c.dense or 0.0) + (c.lexical or 0.0), c.dense or 0.0, c.lexical or 0.0) for c in candidates]
    elif spec.method == "rrf":
        fused = [_ranked(candidate, spec) for candidate in candidates]
    else:
        fused = _weighted(candidates, spec)
    return sorted(fused, key=lambda one: (-one.score, one.candidate.chunk_id))


def is_all(drawn: Sequence[Candidate], limit: int) -> bool:
    """Whether the legs of an index gave all that they have: each fewer than the `limit` they were asked for."""
    return max(len(_drawn_by_meaning(drawn)), len(_drawn_by_words(drawn))) < limit


def may_reach(score: float, drawn: Sequence[Sequence[Candidate]], spec: FusionSpec | None, limit: int) -> bool:
    """Whether a deeper draw could give `score` to a passage that has less now, or that no leg has drawn.

    One that no leg drew scores in each at most what the last one there does; by rank, it and one that only the other
    leg drew come next at best.
    """
    candidates = merge(drawn)
    now = {one.candidate.chunk_id: one.score for one in fuse(candidates, spec)}
    further = limit + 1
    by_meaning = any(len(_drawn_by_meaning(each)) >= limit for each in drawn)
    by_words = any(len(_drawn_by_words(each)) >= limit for each in drawn)
    risen = [
        _placed(c, c.dense_rank or (further if by_meaning else None), c.lexical_rank or (further if by_words else None))
        for c in candidates
    ]
    unseen = [_next(each, limit) for each in drawn if not is_all(each, limit)]
    return any(one.score >= score > now.get(one.candidate.chunk_id, -inf) for one in fuse([*risen, *unseen], spec))


def _next(drawn: Sequence[Candidate], limit: int) -> Candidate:
    """The best that a passage which no leg of an index drew can be. Without any of the words it has no lexical rank."""
    dense, lexical = _drawn_by_meaning(drawn), _drawn_by_words(drawn)
    worded = len(lexical) >= limit
    return Candidate(
        chunk_id="",
        dense=min(dense, default=None),
        dense_rank=limit + 1 if dense else None,
        lexical=min(lexical) if worded else 0.0,
        lexical_rank=limit + 1 if worded else None,
    )


def _drawn_by_meaning(drawn: Sequence[Candidate]) -> list[float]:
    return [c.dense or 0.0 for c in drawn if c.dense_rank is not None]


def _drawn_by_words(drawn: Sequence[Candidate]) -> list[float]:
    return [c.lexical or 0.0 for c in drawn if c.lexical_rank is not None]


def _places(scores: list[tuple[float, str]]) -> dict[str, int]:
    ordered = sorted(scores, key=lambda pair: (-pair[0], pair[1]))
    return {chunk_id: place for place, (_, chunk_id) in enumerate(ordered, start=1)}


def _placed(candidate: Candidate, dense: int | None, lexical: int | None) -> Candidate:
    # Spelled out: `dataclasses.replace` costs seven times as much, and this runs for every candidate.
    return Candidate(
        chunk_id=candidate.chunk_id,
        dense=candidate.dense,
        dense_rank=dense,
        lexical=candidate.lexical,
        lexical_rank=lexical,
    )


def _ranked(candidate: Candidate, spec: FusionSpec) -> Fused:
    dense_weight, lexical_weight = spec.weights
    dense = 0.0 if candidate.dense_rank is None else dense_weight / (spec.k + candidate.dense_rank)
    lexical = 0.0 if candidate.lexical_rank is None else lexical_weight / (spec.k + candidate.lexical_rank)
    return Fused(candidate, dense + lexical, dense, lexical)


def _weighted(candidates: Sequence[Candidate], spec: FusionSpec) -> list[Fused]:
    dense_weight, lexical_weight = spec.weights
    dense_scores = [c.dense for c in candidates if c.dense is not None]
    lexical_scores = [c.lexical for c in candidates if c.lexical is not None]
    least_dense, least_lexical = min(dense_scores, default=0.0), min(lexical_scores, default=0.0)
    highest = max(lexical_scores, default=0.0)
    scale = lexical_weight / highest if highest > 0 else 0.0
    fused = []
    for candidate in candidates:
        dense = dense_weight * (least_dense if candidate.dense is None else candidate.dense)
        lexical = scale * (least_lexical if candidate.lexical is None else candidate.lexical)
        fused.append(Fused(candidate, dense + lexical, dense, lexical))
    return fused
