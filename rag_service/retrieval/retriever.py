"""One question in, the passages its asker may read out, best first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rag_service.access import AccessScope, Principal, scope_of
from rag_service.db import Database, chunks, collections
from rag_service.embedding.base import Embedder
from rag_service.errors import Conflict, RagError, RetryableError
from rag_service.observe import metrics
from rag_service.observe.logs import fields
from rag_service.pipelines import Pipelines
from rag_service.reranking.base import NullReranker, Reranker
from rag_service.retrieval.course import Course, Encoded, milliseconds_since
from rag_service.retrieval.expansion import Context, Expander
from rag_service.retrieval.explain import Explainer
from rag_service.retrieval.feedback import fed_back
from rag_service.retrieval.fusion import Fused, fuse, is_all, may_reach, merge
from rag_service.retrieval.highlight import Span, highlights
from rag_service.retrieval.options import Feedback
from rag_service.retrieval.plan import FusionSpec, Plan, RetrievalRequest, plan
from rag_service.retrieval.refining import Found, Ranked, as_fused, capped, refined, reranked, suffices
from rag_service.retrieval.scales import Level, Scale, level_of
from rag_service.retrieval.syntax import Question, read
from rag_service.retrieval.weighting import Voice, weighed
from rag_service.types import Collection, ConfirmedChunk, EmbedderIdentity, IndexVersion, Vector, new_id, utc_now
from rag_service.vectors.base import Candidate, SearchRequest, VectorStore

logger = logging.getLogger("rag_service.retrieval")

# How often at most everything is drawn again because of documents that may have been replaced meanwhile.
_LOOKS_AGAIN = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage and why it stands where it stands.

    `score` orders the hits: the reranker's score where one answered, else `fused`. `highlights` are spans of the
    chunk's text. `context` is what stands around it, where that was asked for and is still to be had. `explain` is None
    unless asked for.
    """

    rank: int
    score: float
    fused: float
    candidate: Candidate
    chunk: ConfirmedChunk
    highlights: tuple[Span, ...] = ()
    context: Context | None = None
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
class Run:
    """An answer with what led to it. Options that look at the clock took it to be `at`."""

    answer: Retrieval
    course: Course
    at: datetime


class Retriever:
    """The read path. Remembers nothing but the levels of models; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        *,
        vectors: VectorStore,
        pipelines: Pipelines,
        reranker: Reranker,
        candidates: int,
        read_text: Callable[[str], bytes],
        rerank_depth: int = 50,
    ) -> None:
        """Each leg draws `candidates` chunks.

        `read_text` gives the stored text of a document by its key, in UTF-8, or raises NotFound.
        `rerank_depth` passages are read by the reranker unless a request says otherwise.
        """
        self._database = database
        self._vectors = vectors
        self._pipelines = pipelines
        self._reranker = reranker
        self._candidates = candidates
        self._expander = Expander(database, read_text)
        self._explainer = Explainer(database, vectors, pipelines)
        self._rerank_depth = rerank_depth
        self._levels: dict[EmbedderIdentity, Level] = {}

    def retrieve(self, request: RetrievalRequest, principal: Principal) -> Retrieval:
        """The best `top_k` passages that `principal` may read, or all there are if fewer.

        Raises NotFound for a collection its team does not have, RetryableError when a store, or in mode dense the
        embedder, does not answer. A hybrid query goes on without the embedder and says so in `degraded`.
        """
        return self.run(request, principal).answer

    def run(self, request: RetrievalRequest, principal: Principal) -> Run:
        """`retrieve`, with what its answer came from."""
        scope = scope_of(principal)
        question = read(request.query, request.options.operators)
        depth = self._depth(request)
        course = Course(plan(request, self._candidates, question, depth), question)
        self._draw(request, scope, course)
        if depth:
            self._rerank(course, depth)
        else:
            course.compared = as_fused(course.found)
        now = utc_now()
        best = refined(course.compared, request.options, request.top_k, now)
        return Run(_answer(request, self._shown(best, request, scope, course), course, scope), course, now)

    def _draw(self, request: RetrievalRequest, scope: AccessScope, course: Course) -> None:
        """Ask every index, and once more where the first answer shall tell what to ask for."""
        course.indexes = self._indexes(scope.team, course.plan, request.index_version)
        if request.mode == "hybrid" and request.fusion is None:
            course.plan = replace(course.plan, fusion=_fusion_of([collection for collection, _ in course.indexes]))
        with course.stage("embed"):
            course.queries = self._encode(request, course)
        course.found = self._find(request, scope, course)
        if request.options.feedback is not None and "lexical" in course.plan.legs:
            with course.stage("feedback"):
                course.queries = self._fed_back(course, request.options.feedback)
            course.found = self._find(request, scope, course)

    def _shown(
        self, best: Sequence[Ranked], request: RetrievalRequest, scope: AccessScope, course: Course
    ) -> tuple[Hit, ...]:
        contexts: dict[str, Context] = {}
        if request.options.expand is not None:
            with course.stage("expand"):
                contexts = self._expander.contexts([one.found[1] for one in best], request.options.expand, scope)
        notes: Sequence[dict[str, object] | None] = [None] * len(best)
        if request.explain:
            with course.stage("explain"):
                notes = self._explainer.explain(best, request, course, scope)
        asked = course.question if request.highlight else None
        return tuple(
            _hit(rank, one, asked, contexts.get(one.found[1].chunk.id), note)
            for rank, (one, note) in enumerate(zip(best, notes, strict=True), start=1)
        )

    def _depth(self, request: RetrievalRequest) -> int:
        """How many passages the reranker shall read; 0: it is not asked."""
        wanted = request.options.rerank
        if wanted is False or (wanted is None and isinstance(self._reranker, NullReranker)):
            return 0
        return max(request.top_k, request.options.rerank_depth or self._rerank_depth)

    def _indexes(self, team: str, drawn: Plan, named: str | None) -> tuple[tuple[Collection, IndexVersion], ...]:
        with self._database.read() as connection:
            asked = collections.active_indexes(connection, team, drawn.collections)
            if named is not None:
                asked = _with_named(asked, collections.live_index(connection, team, named))
        for _, index in asked:
            if not index.settled:
                self._settle(index)
        return tuple(asked)

    def _settle(self, index: IndexVersion) -> None:
        with self._database.transaction() as transaction:
            collections.settle(transaction.connection, index)

    def _encode(self, request: RetrievalRequest, course: Course) -> list[Encoded]:
        dense = self._dense(request, course) if "dense" in course.plan.legs else {}
        encoded = []
        for _, index in course.indexes:
            lexical = None
            if "lexical" in course.plan.legs:
                lexical = self._pipelines.lexical(index).encode([course.question.lexical_text], "query")[0]
            # A query of stop words only has no terms: that leg then has nothing to look for.
            words = lexical if lexical is not None and len(lexical.indices) else None
            vector, scale = dense.get(index.embedder, (None, None))
            encoded.append(Encoded(index, vector, words, scale))
        course.voice = Voice(
            legible=self._legible(course) if dense else 1.0,
            silent=request.mode == "hybrid" and not dense,
            wordless=all(one.lexical is None for one in encoded),
            named=course.question.names_something,
        )
        return [one for one in encoded if one.dense is not None or one.lexical is not None]

    def _dense(self, request: RetrievalRequest, course: Course) -> dict[EmbedderIdentity, tuple[Vector, Scale | None]]:
        """By model: the question as a vector, and where several models are asked the scale that takes its cosines."""
        embedders = {}
        for collection, index in course.indexes:
            embedder = self._pipelines.embedder(index)
            if index.embedder != embedder.identity:
                raise Conflict(
                    f"Collection {collection.name!r} was embedded with {index.embedder}, this service embeds with"
                    f" {embedder.identity}. Start it with the former model, or build an index version with the new.",
                    code="embedding_model_differs",
                )
            embedders[index.embedder] = embedder
        try:
            return {
                model: (embedder.embed([course.question.text], "query")[0], scale)
                for (model, embedder), scale in zip(embedders.items(), self._scales(embedders), strict=True)
            }
        except RagError as error:
            if request.mode == "dense":
                raise
            if not isinstance(error, RetryableError):  # this does not pass by itself
                logger.error("questions are answered by words alone: %s", error.message)
            course.plan = course.plan.lexical_only()
            course.degraded.append(f"dense leg unavailable: {error.message}")
            return {}

    def _scales(self, embedders: Mapping[EmbedderIdentity, Embedder]) -> list[Scale | None]:
        """Onto the scale of the first model; nothing to be done where there is only one."""
        if len(embedders) == 1:
            return [None]
        for model, embedder in embedders.items():
            if model not in self._levels:
                self._levels[model] = level_of(embedder)
        first, *others = [self._levels[model] for model in embedders]
        return [None, *(Scale(own, first) for own in others)]

    def _legible(self, course: Course) -> float:
        return min(self._pipelines.embedder(index).legible(course.question.text) for _, index in course.indexes)

    def _find(self, request: RetrievalRequest, scope: AccessScope, course: Course) -> list[Found]:
        """Draw, rank and confirm; draw deeper while hits are missing that a deeper draw could bring.

        A passage that is refused may have been replaced since it was drawn, by one that was not there yet. So where
        nothing else was found of its document, everything is drawn again.
        """
        looks = _LOOKS_AGAIN
        while True:
            drawn_with, spec, refused = course.plan, course.plan.fusion, frozenset(course.refused)
            with course.stage("search"):
                drawn = [self._search(query, request, drawn_with.limit, scope) for query in course.queries]
                candidates = merge(drawn)
                if spec is not None:
                    spec, course.because = weighed(spec, course.voice, candidates)
                    course.fusion = spec
                fused = fuse(candidates, spec)
                passing = fused if request.min_score is None else [f for f in fused if f.score >= request.min_score]
            course.ranking = fused
            with course.stage("confirm"):
                found = self._confirm(passing, drawn_with.window, request, scope, course)
            if looks and self._may_be_missed(course.refused - refused, found, course):
                looks -= 1
                continue
            deeper = drawn_with.deeper()
            enough = suffices(found, request.options, request.top_k)
            if enough or deeper is None or all(is_all(each, drawn_with.limit) for each in drawn):
                return found
            if request.min_score is not None and not may_reach(request.min_score, drawn, spec, drawn_with.limit):
                return found
            course.plan = deeper

    def _may_be_missed(self, refused: Set[str], found: Sequence[Found], course: Course) -> bool:
        """Whether one of these passages is of a document that nothing was found of, or of one that is not known."""
        indexes = {query.version.id for query in course.queries} if refused else ()
        there = [point for index in indexes for point in self._vectors.stored(index, chunk_ids=frozenset(refused))]
        known = {chunk.chunk.document_id for _, chunk in found}
        return len(there) < len(refused) or not known.issuperset(point.document_id for point in there)

    def _search(self, query: Encoded, request: RetrievalRequest, limit: int, scope: AccessScope) -> list[Candidate]:
        wanted = SearchRequest(dense=query.dense, lexical=query.lexical, narrowing=request.filter, limit=limit)
        return query.on_scale(self._vectors.search(query.version.id, wanted, scope))

    def _confirm(
        self,
        passing: Sequence[Fused],
        window: int,
        request: RetrievalRequest,
        scope: AccessScope,
        course: Course,
    ) -> list[Found]:
        """The readable ones that the question admits among the best of `passing`, as many of a document as asked for;
        the window widens while fewer than `top_k` would be left.

        A wider window is confirmed as a whole: the answer comes from one statement, so that no commit between two
        can mix two versions of a document. Only what the question does not admit is left out of it: a chunk's text is
        for ever, so the chunk never will be.
        """
        while passing := [one for one in passing if one.candidate.chunk_id not in course.unfit]:
            best = {one.candidate.chunk_id: one for one in passing[:window]}
            with self._database.read() as connection:
                readable = chunks.confirm(connection, list(best), scope)
            course.refused |= best.keys() - readable.keys()
            found = [(one, readable[chunk_id]) for chunk_id, one in best.items() if chunk_id in readable]
            if course.question.demands:
                course.unfit |= {chunk.chunk.id for _, chunk in found if not course.question.admits(chunk)}
                found = [(one, chunk) for one, chunk in found if chunk.chunk.id not in course.unfit]
            # Last: a passage that is not readable or not admitted takes no place of its document's.
            found = capped(found, request.max_chunks_per_document)
            if window >= len(passing) or suffices(found, request.options, request.top_k):
                return found
            window *= 4
        return []

    def _rerank(self, course: Course, depth: int) -> None:
        course.compared = as_fused(course.found[:depth])
        if not course.compared:
            return
        with course.stage("rerank"):
            try:
                scores = self._reranker.rerank(course.question.text, [one.text for one in course.compared])
            except RagError as error:
                course.degraded.append(f"reranking unavailable: {error.message}")
                return
        if scores is None:
            course.degraded.append("reranking unavailable: no reranker is set up. Set RAG_RERANKER.")
            return
        course.compared, course.reranked = reranked(course.compared, scores), True

    def _fed_back(self, course: Course, spec: Feedback) -> list[Encoded]:
        """The questions with words of the best confirmed passages; what was not confirmed takes no part."""
        texts = [chunk.chunk.content.text for _, chunk in course.found]

        def changed(query: Encoded) -> Encoded:
            if query.lexical is None:
                return query
            passages = self._pipelines.lexical(query.version).encode(texts, "document")
            return replace(query, lexical=fed_back(query.lexical, passages, spec))

        return [changed(query) for query in course.queries]


def _with_named(
    asked: Sequence[tuple[Collection, IndexVersion]], named: IndexVersion | None
) -> list[tuple[Collection, IndexVersion]]:
    """The index version `named` in place of its collection's active one. Raises Conflict where it cannot be asked."""
    if named is None or named.collection_id not in {one.id for one, _ in asked}:
        raise Conflict(
            "The collections of this question have no such index version that could be asked.",
            code="index_version_unavailable",
        )
    return [(one, named if one.id == named.collection_id else active) for one, active in asked]


def _fusion_of(asked: Sequence[Collection]) -> FusionSpec:
    """As the collections are set up, where they agree; else the default."""
    settings = [collection.retrieval.get("fusion") for collection in asked]
    first: dict[str, Any] | None = settings[0] if settings else None
    return FusionSpec(**first) if first and all(one == first for one in settings) else FusionSpec()


def _hit(
    rank: int, one: Ranked, asked: Question | None, context: Context | None, note: dict[str, object] | None
) -> Hit:
    """With highlights of what was `asked`, if that is given."""
    fused, chunk = one.found
    return Hit(
        rank=rank,
        score=one.score,
        fused=fused.score,
        candidate=fused.candidate,
        chunk=chunk,
        highlights=tuple(highlights(asked.text, one.text)) if asked else (),
        context=context,
        explain=note,
    )


def _answer(request: RetrievalRequest, hits: tuple[Hit, ...], course: Course, scope: AccessScope) -> Retrieval:
    query_id = new_id("q")
    stages = {name: round(spent, 3) for name, spent in course.stages.items()}
    total = round(milliseconds_since(course.started), 3)
    metrics.answered(request.mode, stages, total, len(hits), course.degraded)
    told = {"drawn": len(course.ranking), "hits": len(hits), "degraded": len(course.degraded)}
    times = {"stages_ms": stages, "total_ms": total}
    logger.info("answered", extra=fields(query_id=query_id, team=scope.team, mode=request.mode, **told, **times))
    usage = Usage(stages["embed"], stages["search"], stages["confirm"], total)
    return Retrieval(query_id, hits, usage, tuple(course.degraded), course.summary(request))
