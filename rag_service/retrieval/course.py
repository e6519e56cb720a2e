"""What is noted down while one query runs, and what of it an answer tells as its plan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from rag_service.observe.spans import span
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.plan import FusionSpec, Plan, RetrievalRequest
from rag_service.retrieval.refining import Found, Ranked
from rag_service.retrieval.scales import Scale
from rag_service.retrieval.syntax import Question
from rag_service.retrieval.weighting import Voice
from rag_service.types import Collection, IndexVersion, SparseVector, Vector
from rag_service.vectors.base import Candidate


@dataclass(frozen=True, slots=True)
class Encoded:
    """The question as one index is asked it."""

    version: IndexVersion
    dense: Vector | None
    lexical: SparseVector | None
    scale: Scale | None = None

    def on_scale(self, drawn: list[Candidate]) -> list[Candidate]:
        """Candidates with their cosines on the scale that those of all indexes are compared on."""
        return drawn if self.scale is None else self.scale.apply(drawn)


@dataclass(slots=True)
class Course:
    """`ranking` is every candidate in fused order, before any cut; `found` those of them that were confirmed.

    `refused` are the ids of chunks that were drawn and not confirmed: of another version, deleted, or not readable.
    `unfit` are the ids of readable chunks without the words that the question demands.
    `fusion` is what they were fused with: the plan's, its weights settled. `compared` is what the options chose from,
    after reranking.
    """

    plan: Plan
    question: Question
    voice: Voice = field(default_factory=Voice)
    fusion: FusionSpec | None = None
    because: str = "given"
    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("embed", "search", "confirm"), 0.0))
    degraded: list[str] = field(default_factory=list)
    indexes: tuple[tuple[Collection, IndexVersion], ...] = ()
    queries: Sequence[Encoded] = ()
    ranking: Sequence[Fused] = ()
    found: Sequence[Found] = ()
    refused: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    compared: Sequence[Ranked] = ()
    reranked: bool = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with span(f"retrieve.{name}"):
                yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + milliseconds_since(began)

    def summary(self, request: RetrievalRequest) -> dict[str, object]:
        """How the answer came about, as JSON."""
        return {
            "mode": request.mode,
            "legs": list(self.plan.legs),
            "collections": list(self.plan.collections),
            "index_versions": [index.id for _, index in self.indexes],
            "candidates_per_leg": self.plan.limit,
            "candidates": len(self.ranking),
            "fusion": self._fusion(),
            "phrases": [phrase.strip() for phrase in self.question.phrases],
            "excluded": [phrase.strip() for phrase in self.question.excluded],
            "options": {name: value for name, value in asdict(request.options).items() if value is not None},
            "stages_ms": {name: round(spent, 3) for name, spent in self.stages.items()},
        }

    def _fusion(self) -> dict[str, object] | None:
        spec = self.fusion
        if spec is None:
            return None
        dense, lexical = spec.weights
        told: dict[str, object] = {
            "method": spec.method,
            "weights": {"dense": dense, "lexical": lexical},
            "because": self.because,
        }
        return {**told, "k": spec.k} if spec.method == "rrf" else told


def milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
