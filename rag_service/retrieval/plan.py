"""What a query asks for and how it will be answered: pure, no stores, no clocks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from rag_service.errors import InvalidRequest
from rag_service.retrieval.options import Options
from rag_service.retrieval.syntax import Question
from rag_service.types import Filter

Mode: TypeAlias = Literal["hybrid", "dense", "lexical"]
Leg: TypeAlias = Literal["dense", "lexical"]

MAX_TOP_K = 100
MAX_QUERY = 8_192  # characters
_ROOM = 10
MAX_DRAW = 4_000  # candidates per leg and index; bounds memory and time of one query

# Mean nDCG@10 over 14 collections was highest, and flat, for dense weights between 0.65 and 0.75.
_WEIGHTED = (0.7, 0.3)
_RANKED = (1.0, 1.0)  # Cormack, Clarke and Buettcher, 2009: unweighted, k = 60
_UNSPEAKABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FusionSpec:
    """How two legs become one score. Without weights the method's own (0.7 and 0.3, or 1 and 1 for rrf) are adapted.

    `weighting.weighed` adapts them to the question; with one weight given, the other is the method's own.
    """

    method: Literal["weighted", "rrf"] = "weighted"
    dense_weight: float | None = None
    lexical_weight: float | None = None
    k: int = 60

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights) or not any(self.weights):
            raise InvalidRequest("fusion weights must be finite, not negative and not both 0.")
        if self.k < 1:
            raise InvalidRequest("fusion k must be at least 1.")

    @property
    def weights_given(self) -> bool:
        """Whether somebody chose them: they are then not adapted to the question."""
        return self.dense_weight is not None or self.lexical_weight is not None

    @property
    def weights(self) -> tuple[float, float]:
        """(dense, lexical)."""
        dense, lexical = _WEIGHTED if self.method == "weighted" else _RANKED
        return (
            dense if self.dense_weight is None else self.dense_weight,
            lexical if self.lexical_weight is None else self.lexical_weight,
        )


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    """A question, and what its answer shall look like. No collections named means the team's `default`.

    `fusion` None: as the collections are set up. `index_version` is asked instead of the active one of its collection.

    Raises InvalidRequest for an empty or overlong query and for numbers outside their bounds.
    """

    query: str
    collections: tuple[str, ...] = ()
    top_k: int = 10
    mode: Mode = "hybrid"
    fusion: FusionSpec | None = None
    filter: Filter | None = None
    min_score: float | None = None
    max_chunks_per_document: int | None = None
    highlight: bool = False
    explain: bool = False
    options: Options = field(default_factory=Options)
    index_version: str | None = None

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise InvalidRequest("query is empty. Send the question as text.")
        if len(self.query) > MAX_QUERY:
            raise InvalidRequest(f"query is longer than {MAX_QUERY:,} characters. Shorten it.")
        if _UNSPEAKABLE.search(self.query):
            raise InvalidRequest("query contains NUL or half of a surrogate pair. Send valid Unicode text.")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidRequest(f"top_k must be between 1 and {MAX_TOP_K}.")
        if self.max_chunks_per_document is not None and self.max_chunks_per_document < 1:
            raise InvalidRequest("max_chunks_per_document must be at least 1.")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InvalidRequest("min_score must be a finite number.")


@dataclass(frozen=True, slots=True)
class Plan:
    """The legs to ask, `limit` candidates from each, how to fuse them, and how many hits to confirm at first."""

    collections: tuple[str, ...]
    legs: tuple[Leg, ...]
    limit: int
    window: int
    fusion: FusionSpec | None

    def deeper(self) -> Plan | None:
        """The same plan drawing four times as many; None at the bound."""
        return None if self.limit >= MAX_DRAW else replace(self, limit=min(4 * self.limit, MAX_DRAW))

    def lexical_only(self) -> Plan:
        """The plan of a hybrid query whose dense leg does not answer.

        The lexical leg takes the whole weight, so that scores stay on the scale of a hybrid answer.
        """
        fusion = self.fusion or FusionSpec()
        whole = sum(fusion.weights)
        return replace(self, legs=("lexical",), fusion=replace(fusion, dense_weight=0.0, lexical_weight=whole))


def plan(request: RetrievalRequest, candidates: int, question: Question | None = None, depth: int = 0) -> Plan:
    """How to answer `request` when each leg draws `candidates` chunks, or more where the request needs them.

    The window leaves room for hits that confirmation drops: one statement is enough unless more than ten of them go.
    It holds the `depth` passages that a reranker reads, and twice as many as usual where options choose among passages.
    """
    question = question or Question(request.query)
    window = max(request.top_k + _ROOM, depth)
    return Plan(
        collections=tuple(dict.fromkeys(request.collections)) or ("default",),
        legs=_legs(request.mode, question),
        limit=max(candidates, 2 * request.top_k, depth),
        window=2 * window if request.options.compares or request.options.feedback else window,
        fusion=_fusion(request, question),
    )


def _legs(mode: Mode, question: Question) -> tuple[Leg, ...]:
    # Passages with a phrase may lie too deep for the dense leg to draw: the lexical leg then draws for it.
    return ("dense", "lexical") if mode == "hybrid" or (mode == "dense" and question.phrases) else (mode,)


def _fusion(request: RetrievalRequest, question: Question) -> FusionSpec | None:
    if request.mode == "hybrid":
        return request.fusion or FusionSpec()
    return FusionSpec("weighted", 1.0, 0.0) if request.mode == "dense" and question.phrases else None
