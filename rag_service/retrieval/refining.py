"""From confirmed passages to the order they are answered in: reranked, aged, without repetition.

Everything here sees only what the asker may read, and only reorders it or leaves it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Literal, TypeAlias

from rag_service.retrieval.diversity import distinct, diversified
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.options import Options, Recency
from rag_service.retrieval.recency import aged, freshness
from rag_service.types import ConfirmedChunk

Found: TypeAlias = tuple[Fused, ConfirmedChunk]
Step: TypeAlias = Literal["recency", "collapse_duplicates", "diversity"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage with the score that orders it. `moves` names what each option did to it; empty without options."""

    found: Found
    score: float
    moves: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.found[1].chunk.content.text


def capped(found: Sequence[Found], per_document: int | None) -> list[Found]:
    """At most `per_document` passages of each document, the best ones, in order."""
    if per_document is None:
        return list(found)
    seen: Counter[str] = Counter()
    kept = []
    for one in found:
        seen[one[1].chunk.document_id] += 1
        if seen[one[1].chunk.document_id] <= per_document:
            kept.append(one)
    return kept


def suffices(found: Sequence[Found], options: Options, count: int) -> bool:
    """Whether `count` passages will be left, so that nothing deeper has to be drawn."""
    if options.collapse is None or len(found) < count:
        return len(found) >= count
    kept = distinct((chunk.chunk.content.text for _, chunk in found), options.collapse)
    return len(list(islice(kept, count))) == count


def as_fused(found: Sequence[Found]) -> list[Ranked]:
    return [Ranked(one, one[0].score) for one in found]


def reranked(ranking: Sequence[Ranked], scores: Sequence[float]) -> list[Ranked]:
    """Ordered by the reranker's scores; `rerank_delta` is how many ranks a passage rose."""
    order = sorted(range(len(ranking)), key=lambda place: -scores[place])
    return [
        replace(
            ranking[before],
            score=float(scores[before]),
            moves={**ranking[before].moves, "rerank_score": float(scores[before]), "rerank_delta": before - now},
        )
        for now, before in enumerate(order)
    ]


def refined(ranking: Sequence[Ranked], options: Options, count: int, now: datetime) -> list[Ranked]:
    """The best `count` after what `options` ask for."""
    *_, last = [ranking, *(after for _, after in steps(ranking, options, count, now))]
    return list(last[:count])


def steps(
    ranking: Sequence[Ranked], options: Options, count: int, now: datetime
) -> Iterator[tuple[Step, Sequence[Ranked]]]:
    """The ranking after each step that `options` ask for: age first, then repetition, then likeness."""
    if options.recency is not None:
        ranking = _aged(ranking, options.recency, now)
        yield "recency", ranking
    if options.collapse is not None:
        ranking = [ranking[place] for place in distinct([one.text for one in ranking], options.collapse)]
        yield "collapse_duplicates", ranking
    if options.diversity is not None:
        scores, texts = [one.score for one in ranking], [one.text for one in ranking]
        yield (
            "diversity",
            [
                replace(ranking[place], moves={**ranking[place].moves, "likeness": round(likeness, 4)})
                for place, likeness in diversified(scores, texts, options.diversity, count)
            ],
        )


def _aged(ranking: Sequence[Ranked], spec: Recency, now: datetime) -> Sequence[Ranked]:
    # Sorting is stable: equals keep the order they had.
    return sorted((_with_age(one, spec, now) for one in ranking), key=lambda one: -one.score)


def _with_age(one: Ranked, spec: Recency, now: datetime) -> Ranked:
    metadata = one.found[1].metadata
    score = aged(one.score, metadata, spec, now)
    told = {"freshness": round(freshness(metadata, spec, now), 4), "boost": score - one.score}
    return replace(one, score=score, moves={**one.moves, **told})
