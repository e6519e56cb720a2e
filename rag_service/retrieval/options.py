"""What a question may ask for beyond its passages. All are off unless asked for; all are plain values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from rag_service.errors import InvalidRequest

MAX_DEPTH = 200  # passages that a reranker reads or that are compared with one another
MAX_NEIGHBOURS = 20
_FIELD = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recency:
    """A passage loses up to `weight` of its score with age, half of that after `half_life_days`.

    `field` is a metadata key that holds RFC 3339 dates.
    """

    field: str
    half_life_days: float = 365.0
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not _FIELD.fullmatch(self.field):
            raise InvalidRequest("recency field must be a metadata key: 1 to 64 letters, digits, _ or -.")
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise InvalidRequest("recency half_life_days must be a positive number.")
        if not 0 <= self.weight <= 1:
            raise InvalidRequest("recency weight must be between 0 and 1.")


@dataclass(frozen=True, slots=True)
class Feedback:
    """Search again with the `terms` words that set the best `passages` of a first search apart, at `weight`."""

    passages: int = 5
    terms: int = 10
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.passages <= 20 or not 1 <= self.terms <= 50:
            raise InvalidRequest("feedback takes 1 to 20 passages and 1 to 50 terms.")
        if not 0 < self.weight <= 1:
            raise InvalidRequest("feedback weight must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What to show around each passage: `before` and `after` neighbours, or its whole section."""

    before: int = 0
    after: int = 0
    section: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.before <= MAX_NEIGHBOURS and 0 <= self.after <= MAX_NEIGHBOURS):
            raise InvalidRequest(f"expand takes 0 to {MAX_NEIGHBOURS} passages before and after.")
        if not (self.before or self.after or self.section):
            raise InvalidRequest("expand needs before, after or section.")

    @property
    def reach(self) -> tuple[int, int]:
        """How many passages before and after may belong to the answer."""
        return (MAX_NEIGHBOURS, MAX_NEIGHBOURS) if self.section else (self.before, self.after)


@dataclass(frozen=True, slots=True)
class Options:
    """`rerank` None: as the service is set up; a depth only where a reranker is wanted.

    `diversity` 0 to 1: how much a passage loses for being like one above it. `collapse` 0 to 1: passages that share so
    much of their word triples with a better one are left out.
    """

    feedback: Feedback | None = None
    diversity: float | None = None
    collapse: float | None = None
    recency: Recency | None = None
    expand: Expansion | None = None
    rerank: bool | None = None
    rerank_depth: int | None = None
    operators: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        for name in ("diversity", "collapse"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InvalidRequest(f"{name} must be above 0 and at most 1.")
        if self.rerank_depth is not None and not 1 <= self.rerank_depth <= MAX_DEPTH:
            raise InvalidRequest(f"rerank depth must be between 1 and {MAX_DEPTH}.")

    @property
    def compares(self) -> bool:
        """Whether passages beyond the first `top_k` can come into the answer."""
        return any(option is not None for option in (self.diversity, self.collapse, self.recency))
