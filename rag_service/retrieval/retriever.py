"""One question in, the passages its asker may read out, best first."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from rag_service.access import AccessScope, Principal, scope_of
from rag_service.db import Database, chunks, collections
from rag_service.embedding.base import Embedder, LexicalEncoder
from rag_service.errors import Conflict, RetryableError
from rag_service.reranking.base import Reranker
from rag_service.retrieval.fusion import Fused, capped, fuse, merge
from rag_service.retrieval.highlight import Span, highlights
from rag_service.retrieval.plan import Plan, RetrievalRequest, plan
from rag_service.types import Collection, ConfirmedChunk, IndexVersion, SparseVector, Vector
from rag_service.vectors.base import Candidate, SearchRequest, VectorStore

logger = logging.getLogger("rag_service.retrieval")

Found: TypeAlias = tuple[Fused, ConfirmedChunk]


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage and why it stands where it stands.

    `score` orders the hits: the reranker's score where one answered, else `fused`. `highlights` are spans of the
    chunk's text. `explain` is None unless asked for.
    """

    rank: int
    score: float
    fused: float
    candidate: Candidate
    chunk: ConfirmedChunk
    highlights: tuple[Span, ...] = ()
    explain: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Milliseconds: encoding the query, searching and fusing, confirming against the database, everything."""

    embed_ms: float
    search_ms: float
    confirm_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The answer. `degraded` says in words what this answer had to do without; `plan` how it came about."""

    query_id: str
    hits: tuple[Hit, ...]
    usage: Usage
    degraded: tuple[str, ...]
    plan: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The question as one index is asked it."""

    index: str
    dense: Vector | None
    lexical: SparseVector | None


@dataclass(slots=True)
class _Course:
    """What is noted down while one query runs."""

    plan: Plan
    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("embed", "search", "confirm"), 0.0))
    degraded: list[str] = field(default_factory=list)
    drawn: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + _milliseconds_since(began)


class Retriever:
    """The read path. Holds no state of its own; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        *,
        vectors: VectorStore,
        embedder: Embedder,
        lexical: Callable[[IndexVersion], LexicalEncoder],
        reranker: Reranker,
        candidates: int,
    ) -> None:
        """`lexical` gives the encoder that an index version was built with; each leg draws `candidates` chunks."""
        self._database = database
        self._vectors = vectors
        self._embedder = embedder
        self._lexical = lexical
        self._reranker = reranker
        self._candidates = candidates

    def retrieve(self, request: RetrievalRequest, principal: Principal) -> Retrieval:
        """The best `top_k` passages that `principal` may read, or all there are if fewer.

        Raises NotFound for a collection its team does not have, RetryableError when a store, or in mode dense the
        embedder, does not answer. A hybrid query goes on without the embedder and says so in `degraded`.
        """
        scope = scope_of(principal)
        course = _Course(plan(request, self._candidates))
        indexes = self._indexes(scope.team, course.plan)
        with course.stage("embed"):
            queries = self._encode(request, indexes, course)
        found = self._find(request, queries, scope, course)
        ranked = self._rerank(request, found, course)
        hits = tuple(
            _hit(rank, score, one, request, course.plan)
            for rank, (score, one) in enumerate(ranked[: request.top_k], start=1)
        )
        return _answer(request, hits, course, scope)

    def _indexes(self, team: str, drawn: Plan) -> list[tuple[Collection, IndexVersion]]:
        with self._database.read() as connection:
            return collections.active_indexes(connection, team, drawn.collections)

    def _encode(
        self, request: RetrievalRequest, indexes: Sequence[tuple[Collection, IndexVersion]], course: _Course
    ) -> list[_Encoded]:
        dense = self._dense(request, indexes, course) if "dense" in course.plan.legs else None
        encoded = []
        for _, index in indexes:
            lexical = None
            if "lexical" in course.plan.legs:
                lexical = self._lexical(index).encode([request.query], "query")[0]
            # A query of stop words only has no terms: that leg then has nothing to look for.
            encoded.append(_Encoded(index.id, dense, lexical if lexical is not None and len(lexical.indices) else None))
        return [one for one in encoded if one.dense is not None or one.lexical is not None]

    def _dense(
        self, request: RetrievalRequest, indexes: Sequence[tuple[Collection, IndexVersion]], course: _Course
    ) -> Vector | None:
        try:
            vector: Vector = self._embedder.embed([request.query], "query")[0]
        except RetryableError as error:
            if request.mode == "dense":
                raise
            course.plan = course.plan.lexical_only()
            course.degraded.append(f"dense leg unavailable: {error.message}")
            return None
        for collection, index in indexes:
            if index.embedder != self._embedder.identity:
                raise Conflict(
                    f"Collection {collection.name!r} was embedded with {index.embedder}, this service embeds with"
                    f" {self._embedder.identity}. Start it with the former model, or build the collection anew.",
                    code="embedding_model_differs",
                )
        return vector

    def _find(
        self, request: RetrievalRequest, queries: Sequence[_Encoded], scope: AccessScope, course: _Course
    ) -> list[Found]:
        """Draw, rank and confirm; draw deeper while hits are missing that a deeper draw could bring."""
        while True:
            drawn_with = course.plan
            with course.stage("search"):
                drawn = [self._search(query, request, drawn_with.limit, scope) for query in queries]
                candidates = merge(drawn)
                fused = fuse(candidates, drawn_with.fusion)
                passing = fused if request.min_score is None else [f for f in fused if f.score >= request.min_score]
                ranking = capped(passing, request.max_chunks_per_document)
            course.drawn = len(candidates)
            with course.stage("confirm"):
                found = self._confirm(ranking, drawn_with.window, request.top_k, scope)
            deeper = drawn_with.deeper()
            # Where the ranking has come down to min_score, what lies deeper is below it too.
            at_the_bottom = len(passing) < len(fused) or not any(_is_full(each, drawn_with.limit) for each in drawn)
            if len(found) >= request.top_k or at_the_bottom or deeper is None:
                return found
            course.plan = deeper

    def _search(self, query: _Encoded, request: RetrievalRequest, limit: int, scope: AccessScope) -> list[Candidate]:
        wanted = SearchRequest(dense=query.dense, lexical=query.lexical, narrowing=request.filter, limit=limit)
        return self._vectors.search(query.index, wanted, scope)

    def _confirm(self, ranking: Sequence[Fused], window: int, wanted: int, scope: AccessScope) -> list[Found]:
        """The readable ones among the best of `ranking`; the window widens while fewer than `wanted` are.

        A wider window is confirmed as a whole: the answer comes from one statement, so that no commit between two
        can mix two versions of a document.
        """
        while ranking:
            best = ranking[:window]
            with self._database.read() as connection:
                readable = chunks.confirm(connection, [one.candidate.chunk_id for one in best], scope)
            found = [(one, readable[one.candidate.chunk_id]) for one in best if one.candidate.chunk_id in readable]
            if len(found) >= wanted or window >= len(ranking):
                return found
            window *= 4
        return []

    def _rerank(self, request: RetrievalRequest, found: Sequence[Found], course: _Course) -> list[tuple[float, Found]]:
        as_fused = [(one[0].score, one) for one in found]
        if not found:
            return as_fused
        with course.stage("rerank"):
            try:
                scores = self._reranker.rerank(request.query, [chunk.chunk.content.text for _, chunk in found])
            except RetryableError as error:
                course.degraded.append(f"reranking unavailable: {error.message}")
                return as_fused
        if scores is None:
            return as_fused
        return sorted(zip(scores, found, strict=True), key=lambda pair: -pair[0])


def _is_full(drawn: Sequence[Candidate], limit: int) -> bool:
    """Whether a leg gave as many as it was asked for, and may have more."""
    dense = sum(candidate.dense_rank is not None for candidate in drawn)
    lexical = sum(candidate.lexical_rank is not None for candidate in drawn)
    return max(dense, lexical) >= limit


def _hit(rank: int, score: float, found: Found, request: RetrievalRequest, drawn_with: Plan) -> Hit:
    fused, chunk = found
    return Hit(
        rank=rank,
        score=score,
        fused=fused.score,
        candidate=fused.candidate,
        chunk=chunk,
        highlights=tuple(highlights(request.query, chunk.chunk.content.text)) if request.highlight else (),
        explain=_explained(fused, drawn_with) if request.explain else None,
    )


def _explained(fused: Fused, drawn_with: Plan) -> dict[str, object]:
    """Which leg contributed what; the contributions add up to the fused score."""
    candidate, spec = fused.candidate, drawn_with.fusion
    dense_weight, lexical_weight = spec.weights if spec else (1.0, 1.0)
    legs = {
        "dense": (candidate.dense, candidate.dense_rank, dense_weight, fused.dense),
        "lexical": (candidate.lexical, candidate.lexical_rank, lexical_weight, fused.lexical),
    }
    names = ("score", "rank", "weight", "contribution")
    return {
        "fusion": spec.method if spec else None,
        "legs": {leg: dict(zip(names, legs[leg], strict=True)) for leg in drawn_with.legs},
    }


def _answer(request: RetrievalRequest, hits: tuple[Hit, ...], course: _Course, scope: AccessScope) -> Retrieval:
    query_id = f"q_{uuid.uuid4().hex}"
    stages = {name: round(spent, 3) for name, spent in course.stages.items()}
    total = round(_milliseconds_since(course.started), 3)
    logger.info(
        "query_id=%s team=%s mode=%s collections=%d drawn=%d hits=%d degraded=%d stages_ms=%s total_ms=%s",
        *(query_id, scope.team, request.mode, len(course.plan.collections), course.drawn),
        *(len(hits), len(course.degraded), stages, total),
    )
    usage = Usage(stages["embed"], stages["search"], stages["confirm"], total)
    return Retrieval(query_id, hits, usage, tuple(course.degraded), _summary(request, course))


def _summary(request: RetrievalRequest, course: _Course) -> dict[str, object]:
    drawn_with, spec = course.plan, course.plan.fusion
    fusion: dict[str, object] | None = None
    if spec is not None:
        dense, lexical = spec.weights
        fusion = {"method": spec.method, "weights": {"dense": dense, "lexical": lexical}}
        if spec.method == "rrf":
            fusion["k"] = spec.k
    return {
        "mode": request.mode,
        "legs": list(drawn_with.legs),
        "collections": list(drawn_with.collections),
        "candidates_per_leg": drawn_with.limit,
        "candidates": course.drawn,
        "fusion": fusion,
        "stages_ms": {name: round(spent, 3) for name, spent in course.stages.items()},
    }


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
