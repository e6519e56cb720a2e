"""Newer is better: a passage loses part of its score with the age of its document."""

from __future__ import annotations

from datetime import datetime

from rag_service.retrieval.options import Recency
from rag_service.types import Metadata
from rag_service.vectors.payload import moment

_UNDATED = 0.5
_DAY = 86_400e6  # microseconds


def aged(score: float, metadata: Metadata, spec: Recency, now: datetime) -> float:
    """`score` less up to `weight` of its size: nothing for what is new, half of `weight` at one half-life.

    What has no date, or none that can be read, counts as one half-life old; what lies in the future as new. Of several
    dates the newest counts.
    """
    return score - spec.weight * (1 - freshness(metadata, spec, now)) * abs(score)


def freshness(metadata: Metadata, spec: Recency, now: datetime) -> float:
    """0.5 to the power of age / half-life: 1 for new, towards 0 for old."""
    value = metadata.get(spec.field)
    dates = [date for one in (value if isinstance(value, list) else [value]) if (date := _date(one)) is not None]
    if not dates:
        return _UNDATED
    days = max(0.0, (now.timestamp() * 1e6 - max(dates)) / _DAY)
    return float(0.5 ** (days / spec.half_life_days))


def _date(value: object) -> float | None:
    """As filters read it."""
    return moment(value) if isinstance(value, str) else None
