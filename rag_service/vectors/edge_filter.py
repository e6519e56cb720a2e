"""Conditions in Qdrant Edge's words."""

from __future__ import annotations

from functools import lru_cache

import qdrant_edge as qdrant

from rag_service.vectors.conditions import Among, Condition, Either, Every, Match, Range, Without, split


# The same reader asks again and again, and both legs of a question ask under the same conditions.
@lru_cache(maxsize=256)
def edge_filter(condition: Condition) -> qdrant.Filter:
    must, should, must_not = ([_part(part) for part in parts] or None for parts in split(condition))
    return qdrant.Filter(must=must, should=should, must_not=must_not)


def _part(condition: Condition) -> qdrant.ConditionType:
    match condition:
        case Match(key, values):
            return qdrant.FieldCondition(key, match=qdrant.MatchAny(list(values)))
        case Range(key, operator, bound):
            return qdrant.FieldCondition(key, range=qdrant.RangeFloat(**{operator: bound}))
        case Among(chunk_ids):
            return qdrant.HasIdCondition(set(chunk_ids))
        case Every() | Either() | Without():
            return edge_filter(condition)
