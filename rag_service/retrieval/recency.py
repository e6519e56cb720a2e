"""Newer is better: a passage loses part of its score with the age of its document."""

from __future__ import annotations

from datetime import UTC, datetime

from rag_service.retrieval.options import Recency
from rag_service.types import Metadata

_UNDATED = 0.5


def aged(score: float, metadata: Metadata, spec: Recency, now: datetime) -> float:
    """`score` less up to `weight` of its size: nothing for what is new, half of `weight` at one half-life.

    What has no date, or none that can be read, counts as one half-life old; what lies in the future as new.
    """
    return score - spec.weight * (1 - freshness(metadata, spec, now)) * abs(score)


def freshness(metadata: Metadata, spec: Recency, now: datetime) -> float:
    """0.5 to the power of age / half-life: 1 for new, towards 0 for old."""
    made = _moment(metadata.get(spec.field))
    if made is None:
        return _UNDATED
    days = max(0.0, (now - made).total_seconds() / 86_400)
    return float(0.5 ** (days / spec.half_life_days))


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
