"""Measures of rankings: pure functions over document ids, best first, no id twice.

`grades` maps the ids of relevant documents to how relevant they are; what is missing, or not above 0, is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

PERSISTENCE = 0.9  # of a reader who goes on from rank to rank: the first ten ranks have 86 % of the weight


def ndcg(ranking: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """nDCG@k with linear gain, as trec_eval's ndcg_cut computes it; 0 where nothing is relevant."""
    gain = sum(max(grades.get(one, 0.0), 0.0) / math.log2(place + 2) for place, one in enumerate(ranking[:k]))
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    return gain / ideal if ideal else 0.0


def recall(ranking: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """The share of the relevant documents that stand among the first k; 0 where nothing is relevant."""
    relevant = {one for one, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """1 / rank of the first relevant document among the first k, else 0; its mean over queries is MRR."""
    return next((1.0 / rank for rank, one in enumerate(ranking[:k], start=1) if grades.get(one, 0.0) > 0), 0.0)


def overlap(one: Sequence[str], other: Sequence[str], k: int = 10) -> float:
    """The share of documents that the first k of both have in common, of the longer one; 1 for two empty ones."""
    first, second = set(one[:k]), set(other[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = PERSISTENCE) -> float:
    """Extrapolated rank-biased overlap of two rankings, which may differ in length: 1 for equal ones, 0 for disjoint.

    Webber, Moffat and Zobel, A similarity measure for indefinite rankings, TOIS 28(4), 2010, equation 32. It is what
    the overlap would be if both went on agreeing as they do at their ends. Two empty rankings are equal.
    """
    short, long = sorted((one, other), key=len)
    if not short:
        return 0.0 if long else 1.0
    agreed = _common(short, long)
    s, length = len(short), len(long)
    in_common, at_short = agreed[-1], agreed[s - 1]
    total = sum(count / depth * p**depth for depth, count in enumerate(agreed, start=1))
    total += sum(at_short * (depth - s) / (s * depth) * p**depth for depth in range(s + 1, length + 1))
    return total * (1 - p) / p + ((in_common - at_short) / length + at_short / s) * p**length


def _common(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """For each depth of the longer ranking, how many documents both have down to there."""
    in_short: set[str] = set()
    in_long: set[str] = set()
    counts, count = [], 0
    for depth, document in enumerate(long):
        beside = short[depth] if depth < len(short) else None
        in_long.add(document)
        if beside is not None:
            in_short.add(beside)
            count += beside in in_long
        count += document != beside and document in in_short
        counts.append(count)
    return counts
