"""Pseudo-relevance feedback: the words that set the best passages apart join the question for a second search.

Rocchio, 1971, on BM25 weights. Only passages that the asker may read take part, so that nothing else moves her scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rag_service.retrieval.options import Feedback
from rag_service.types import SparseVector


def fed_back(query: SparseVector, passages: Sequence[SparseVector], spec: Feedback) -> SparseVector:
    """`query` with the heaviest terms of the first `spec.passages`, together weighing `spec.weight` of the query.

    A term weighs its mean weight in those passages times its rarity among all `passages` (the first ones and what
    ranks below them), so that words which stand everywhere add nothing.
    """
    best = passages[: spec.passages]
    if not best or not query.indices:
        return query
    spread = Counter(int(term) for passage in passages for term in passage.indices)
    weights: Counter[int] = Counter()
    for passage in best:
        for term, weight in zip(passage.indices, passage.values, strict=True):
            weights[int(term)] += weight * math.log(len(passages) / spread[int(term)]) / len(best)  # type: ignore[assignment]  # Counter counts in fractions here
    chosen = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[: spec.terms]
    total = sum(weight for _, weight in chosen)
    if total <= 0:
        return query
    asked = dict(zip(map(int, query.indices), query.values, strict=True))
    scale = spec.weight * sum(asked.values()) / total
    for term, weight in chosen:
        if weight > 0:
            asked[term] = asked.get(term, 0.0) + scale * weight
    return SparseVector(list(asked), list(asked.values()))
