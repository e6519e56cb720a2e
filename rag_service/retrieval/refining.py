"""From confirmed passages to the order they are answered in: reranked, aged, without repetition.

Everything here sees only what the asker may read, and only reorders it or leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from rag_service.retrieval.diversity import distinct, diversified
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.options import Options
from rag_service.retrieval.recency import aged, freshness
from rag_service.types import ConfirmedChunk

Found: TypeAlias = tuple[Fused, ConfirmedChunk]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage with the score that orders it. `moves` names what each option did to it; empty without options."""

    found: Found
    score: float
    moves: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.found[1].chunk.content.text


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
    """The best `count` after what `options` ask for: age first, then repetition, then likeness."""
    ranking = _aged(ranking, options, now)
    if options.collapse is not None:
        ranking = [ranking[place] for place in distinct([one.text for one in ranking], options.collapse)]
    if options.diversity is not None:
        scores, texts = [one.score for one in ranking], [one.text for one in ranking]
        return [
            replace(ranking[place], moves={**ranking[place].moves, "likeness": round(likeness, 4)})
            for place, likeness in diversified(scores, texts, options.diversity, count)
        ]
    return list(ranking[:count])


def _aged(ranking: Sequence[Ranked], options: Options, now: datetime) -> Sequence[Ranked]:
    spec = options.recency
    if spec is None:
        return ranking
    changed = [
        replace(
            one,
            score=aged(one.score, one.found[1].metadata, spec, now),
            moves={**one.moves, "freshness": round(freshness(one.found[1].metadata, spec, now), 4)},
        )
        for one in ranking
    ]
    # Sorting is stable: equals keep the order they had.
    return sorted(changed, key=lambda one: -one.score)
