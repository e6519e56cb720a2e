"""One question in, the passages its asker may read out."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StringConstraints

from rag_service.api.auth import Asker, AsUser
from rag_service.api.retrieval_options import (
    CollapseOption,
    ExpandIn,
    FeedbackIn,
    FeedbackOption,
    Fusion,
    RecencyIn,
    RerankIn,
    RerankOption,
)
from rag_service.api.schemas import Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.api.tracing import remember
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.options import Feedback, Options
from rag_service.retrieval.plan import MAX_QUERY, MAX_TOP_K, RetrievalRequest
from rag_service.retrieval.retriever import Hit, Retrieval

router = APIRouter(prefix="/v1", tags=["retrieval"], route_class=StrictRoute)

_NEARLY_EQUAL = 0.8


class RetrieveIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "How long is parental leave?"},
                {
                    "query": "parental leave",
                    "top_k": 5,
                    "filter": {"department": "hr", "year": {"$gte": 2024}},
                    "as_user": {"user": "ada@example.com", "groups": ["staff"]},
                    "highlight": True,
                },
            ]
        }
    )

    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY)]
    collections: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(
        default_factory=lambda: ["default"], min_length=1, max_length=50, description="Names or ids."
    )
    top_k: StrictInt = Field(10, ge=1, le=MAX_TOP_K)
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    fusion: Fusion | None = Field(None, description="As the collection says, where not given.")
    filter: dict[str, Any] | None = Field(
        None,
        description="$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or $not over metadata keys, source, title, "
        "media_type, external_id, uri, created_at, updated_at. It only ever narrows.",
    )
    min_score: StrictFloat | None = None
    max_chunks_per_document: StrictInt | None = Field(None, ge=1, le=MAX_TOP_K)
    as_user: AsUser | None = Field(None, description="Ask for this person; needs a key with the scope impersonate.")
    highlight: StrictBool = False
    explain: StrictBool = False
    operators: Literal["auto", "on", "off"] = Field(
        "auto", description='Whether "exact words" and -word are demands; auto: in questions of up to 12 other words.'
    )
    feedback: FeedbackOption = Field(False, description="Search again with words of the best passages.")
    diversity: StrictFloat | None = Field(
        None, gt=0, le=1, description="How much a passage loses for being like a better one."
    )
    collapse_duplicates: CollapseOption = Field(
        False, description="Leave out near duplicates: the share of word triples in common, 0.8 where true."
    )
    recency: RecencyIn | None = None
    expand: ExpandIn | None = None
    rerank: RerankOption | None = Field(None, description="As the service is set up, where not given.")

    def request(self) -> RetrievalRequest:
        """Raises InvalidRequest."""
        return RetrievalRequest(
            query=self.query,
            collections=tuple(self.collections),
            top_k=self.top_k,
            mode=self.mode,
            fusion=None if self.fusion is None else self.fusion.spec(),
            filter=parse_filter(self.filter),
            min_score=self.min_score,
            max_chunks_per_document=self.max_chunks_per_document,
            highlight=self.highlight,
            explain=self.explain,
            options=self._options(),
        )

    def _options(self) -> Options:
        rerank, collapse = self.rerank, self.collapse_duplicates
        return Options(
            feedback=_feedback(self.feedback),
            diversity=self.diversity,
            collapse=(_NEARLY_EQUAL if collapse else None) if isinstance(collapse, bool) else collapse,
            recency=None if self.recency is None else self.recency.spec(),
            expand=None if self.expand is None else self.expand.spec(),
            rerank=True if isinstance(rerank, RerankIn) else rerank,
            rerank_depth=rerank.depth if isinstance(rerank, RerankIn) else None,
            operators=self.operators,
        )


def _feedback(wanted: FeedbackIn | bool) -> Feedback | None:
    if isinstance(wanted, FeedbackIn):
        return wanted.spec()
    return Feedback() if wanted else None


# The models below only describe the answer: it is written straight from the hits, which are ours already.


class Position(BaseModel):
    """`start` and `end` are characters of the document's text, which `GET /v1/documents/{id}/text` gives."""

    start: int
    end: int
    page: int | None


class Span(BaseModel):
    """Characters of the passage."""

    start: int
    end: int


class ContextRecord(BaseModel):
    """The passage with what stands around it: exactly these characters of the document's text."""

    text: str
    start: int
    end: int


class Scores(BaseModel):
    """dense: cosine; lexical: BM25; a rank is set where that leg itself found the passage."""

    dense: float | None
    dense_rank: int | None
    lexical: float | None
    lexical_rank: int | None
    fused: float


class Provenance(BaseModel):
    source_id: str | None
    version: int
    content_hash: str
    parser: str
    chunker: str
    embedding_model: str
    index_version: str
    indexed_at: str


class Result(BaseModel):
    rank: int
    score: float
    chunk_id: str
    document_id: str
    external_id: str
    collection: str
    text: str
    title: str
    uri: str | None
    heading_path: list[str]
    position: Position
    highlights: list[Span]
    metadata: dict[str, Any]
    scores: Scores
    provenance: Provenance
    context: ContextRecord | None = Field(
        None, description="Only with `expand`; missing where the document has moved on meanwhile."
    )
    explain: dict[str, Any] | None = Field(None, description="Only with `explain`: why it stands where it stands.")


class UsageRecord(BaseModel):
    embed_ms: float
    search_ms: float
    confirm_ms: float
    total_ms: float


class Answer(BaseModel):
    """`degraded` says what this answer had to do without; it is empty in good health."""

    query_id: str
    results: list[Result]
    usage: UsageRecord
    degraded: list[str]
    plan: dict[str, Any] | None = Field(None, description="Only with `explain`: how the answer came about.")


@router.post("/retrieve", response_class=Response, responses={200: {"model": Answer}})
def retrieve(service: Service, caller: Asker, question: RetrieveIn) -> Response:
    """The best passages for a question, of those that its asker may read.

    A key reads as the person it was made for; with `as_user`, as that person; a key that manages reads all of its
    team; any other key reads public documents only.
    """
    answer = service.retriever.retrieve(question.request(), caller.principal(question.as_user))
    remember(service, caller, question, query=question.query, as_user=question.as_user, answer=answer)
    body = json.dumps(_answer(answer, explain=question.explain), ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode(), media_type="application/json")


def _answer(answer: Retrieval, *, explain: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "query_id": answer.query_id,
        "results": [_result(hit) for hit in answer.hits],
        "usage": asdict(answer.usage),
        "degraded": list(answer.degraded),
    }
    return {**body, "plan": answer.plan} if explain else body


def _result(hit: Hit) -> dict[str, Any]:
    found, chunk, drawn = hit.chunk, hit.chunk.chunk, hit.candidate
    content = chunk.content
    result: dict[str, Any] = {
        "rank": hit.rank,
        "score": hit.score,
        "chunk_id": chunk.id,
        "document_id": chunk.document_id,
        "external_id": found.external_id,
        "collection": found.collection,
        "text": content.text,
        "title": found.title,
        "uri": found.uri,
        "heading_path": list(content.heading_path),
        "position": {"start": content.start, "end": content.end, "page": content.page},
        "highlights": [{"start": start, "end": end} for start, end in hit.highlights],
        "metadata": dict(found.metadata),
        "scores": {
            "dense": drawn.dense,
            "dense_rank": drawn.dense_rank,
            "lexical": drawn.lexical,
            "lexical_rank": drawn.lexical_rank,
            "fused": hit.fused,
        },
        "provenance": {
            "source_id": found.source_id,
            "version": chunk.version,
            "content_hash": found.content_hash,
            "parser": found.parser,
            "chunker": found.chunker,
            "embedding_model": found.embedding_model,
            "index_version": found.index_version,
            "indexed_at": found.indexed_at.isoformat().replace("+00:00", "Z"),
        },
    }
    if hit.context is not None:
        around = hit.context
        result["context"] = {"text": around.text, "start": around.start, "end": around.end}
    return {**result, "explain": hit.explain} if hit.explain is not None else result
