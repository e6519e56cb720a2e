"""Passages that say the same: left out where they are nearly equal, moved down where they are alike.

Likeness is by words, so that it costs no model: no vector has to be fetched or computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rag_service.retrieval.syntax import folded

_SHINGLE = 3  # words


def distinct(texts: Iterable[str], threshold: float) -> Iterator[int]:
    """Places of the texts that share less than `threshold` of their word triples (Jaccard) with every one kept before.

    Texts of fewer than three words are compared as a whole.
    """
    kept: list[frozenset[str]] = []
    for place, text in enumerate(texts):
        mine = _shingles(text)
        if not any(_jaccard(mine, other) >= threshold for other in kept):
            kept.append(mine)
            yield place


def diversified(scores: Sequence[float], texts: Sequence[str], weight: float, count: int) -> list[tuple[int, float]]:
    """The best `count` places by maximal marginal relevance, each with its likeness to the nearest one above it.

    Carbonell and Goldstein, 1998: (1 - weight) x relevance - weight x likeness, both between 0 and 1. Relevance is the
    score between the lowest and the highest; likeness the cosine of word counts weighted by rarity among `texts`.
    """
    if not scores:
        return []
    words = _weighted([Counter(folded(text).split()) for text in texts])
    low, high = min(scores), max(scores)
    relevance = [(score - low) / (high - low) if high > low else 1.0 for score in scores]
    nearest = [0.0] * len(scores)
    left = list(range(len(scores)))
    chosen: list[tuple[int, float]] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda place: ((1 - weight) * relevance[place] - weight * nearest[place], -place))
        left.remove(best)
        chosen.append((best, nearest[best]))
        for place in left:
            nearest[place] = max(nearest[place], _dot(words[place], words[best]))
    return chosen


def _shingles(text: str) -> frozenset[str]:
    words = folded(text).split()
    if len(words) < _SHINGLE:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[at : at + _SHINGLE]) for at in range(len(words) - _SHINGLE + 1))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _weighted(counts: Sequence[Counter[str]]) -> list[Mapping[str, float]]:
    """Unit-length word vectors; a word that stands everywhere weighs little."""
    spread = Counter(word for count in counts for word in count)
    vectors: list[Mapping[str, float]] = []
    for count in counts:
        raw = {word: many * math.log(1 + len(counts) / spread[word]) for word, many in count.items()}
        length = math.sqrt(sum(weight * weight for weight in raw.values())) or 1.0
        vectors.append({word: weight / length for word, weight in raw.items()})
    return vectors


def _dot(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    if len(other) < len(one):
        one, other = other, one
    return sum(weight * other[word] for word, weight in one.items() if word in other)
