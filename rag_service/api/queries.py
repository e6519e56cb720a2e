"""Traces of queries: what was asked and answered, and what the same question gets now.

A trace is read by keys of its team that manage, and by the very key that asked; to any other it does not exist. Who
does not manage is shown those hits only that may still be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rag_service.access import Principal, scope_of
from rag_service.api.auth import Asker, AsUser, Caller
from rag_service.api.retrieve import RetrieveIn, UsageRecord
from rag_service.api.schemas import Id, Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.api.tracing import hit_of, remember
from rag_service.db import acls, collections
from rag_service.db.queries import Trace
from rag_service.errors import Conflict, InvalidRequest
from rag_service.retrieval.difference import Difference, Moved, Place, best_of_documents, difference
from rag_service.retrieval.plan import MAX_QUERY
from rag_service.runtime import Runtime
from rag_service.types import IndexState

router = APIRouter(prefix="/v1/queries", tags=["retrieval"], route_class=StrictRoute)


class TracedHit(BaseModel):
    rank: int
    score: float
    chunk_id: str
    document_id: str
    version: int
    fused: float
    dense: float | None
    dense_rank: int | None
    lexical: float | None
    lexical_rank: int | None


class TraceRecord(BaseModel):
    """`query` null: the question was not kept. `as_user` null: it was asked as the key's own identity."""

    id: str
    at: datetime
    team_id: str
    key_id: str | None
    key_name: str
    as_user: AsUser | None
    query: str | None
    request: dict[str, Any]
    plan: dict[str, Any]
    index_versions: list[str]
    hits: list[TracedHit]
    usage: UsageRecord
    degraded: list[str]


class ReplayIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "how many days of leave do I have?"}]})

    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY)] | None = Field(
        None, description="The question, where its trace did not keep it."
    )
    index_version: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="Ask this index version instead of the active one."
    )


class Standing(BaseModel):
    rank: int
    score: float


class Change(BaseModel):
    """`before` null: it appeared. `after` null: it vanished."""

    id: str
    document_id: str
    before: Standing | None = None
    after: Standing | None = None
    score_delta: float | None = None


class Changes(BaseModel):
    """`unchanged` counts those with the same rank and score."""

    appeared: list[Change]
    vanished: list[Change]
    moved: list[Change]
    unchanged: int

    @classmethod
    def of(cls, changed: Difference) -> Changes:
        return cls(
            appeared=[Change(id=key, document_id=at.document_id, after=_standing(at)) for key, at in changed.appeared],
            vanished=[Change(id=key, document_id=at.document_id, before=_standing(at)) for key, at in changed.vanished],
            moved=[_moved(one) for one in changed.moved],
            unchanged=changed.unchanged,
        )


class Replay(BaseModel):
    """`replay_id` is the query that was run now. A new version of a document has new chunks: see `documents` too.

    `hidden` counts hits of then that the caller may not read now; they stand nowhere else, and `same` is false then.
    `same_identity` false: it was first asked with other rights, so that differences may come from these.
    """

    query_id: str
    replay_id: str
    same: bool
    same_identity: bool
    index_versions_before: list[str]
    index_versions: list[str]
    chunks: Changes
    documents: Changes
    hidden: int
    hits: list[TracedHit]
    usage: UsageRecord
    degraded: list[str]


@router.get("/{query_id}")
def get_query(service: Service, caller: Asker, query_id: Id) -> TraceRecord:
    """What was asked and answered: ids, scores, times, and how the answer came about."""
    trace = _trace(service, caller, query_id)
    hits = _visible(service, caller, trace)
    return TraceRecord(
        id=trace.id,
        at=trace.at,
        team_id=trace.team_id,
        key_id=trace.key_id,
        key_name=trace.key_name,
        as_user=None if trace.as_user is None else AsUser.model_validate(trace.as_user),
        query=trace.query,
        request=dict(trace.request),
        plan=dict(trace.plan),
        index_versions=_indexes(trace.plan),
        hits=[TracedHit.model_validate(hit) for hit in hits],
        usage=UsageRecord.model_validate(trace.usage),
        degraded=list(trace.degraded),
    )


@router.post("/{query_id}/replay")
def replay_query(service: Service, caller: Asker, query_id: Id, wanted: ReplayIn) -> Replay:
    """Ask the same again and show what is different.

    It is asked with the caller's rights. A question asked for somebody is asked for them again where the caller's key
    may do so, and else as the caller.
    """
    trace = _trace(service, caller, query_id)
    question = _question(trace, wanted.query)
    as_user = caller.asking_again(trace.as_user)
    _check_built(service, caller, wanted.index_version)
    request = replace(question.request(), index_version=wanted.index_version)
    answer = service.retriever.retrieve(request, caller.principal(as_user))
    remember(service, caller, question, query=question.query, as_user=as_user, answer=answer)
    before, after = _visible(service, caller, trace), [hit_of(hit) for hit in answer.hits]
    chunks, hidden = difference(_places(before), _places(after)), len(trace.hits) - len(before)
    return Replay(
        query_id=trace.id,
        replay_id=answer.query_id,
        same=not (chunks.appeared or chunks.vanished or chunks.moved or hidden),
        same_identity=_same_identity(caller, trace),
        index_versions_before=_indexes(trace.plan),
        index_versions=_indexes(answer.plan),
        chunks=Changes.of(chunks),
        documents=Changes.of(difference(_best(before), _best(after))),
        hidden=hidden,
        hits=[TracedHit.model_validate(hit) for hit in after],
        usage=UsageRecord(**asdict(answer.usage)),
        degraded=list(answer.degraded),
    )


def _trace(service: Runtime, caller: Caller, query_id: str) -> Trace:
    # A key without an id is an admin key, which manages.
    asked_by = None if caller.manages else caller.key_id or ""
    return service.traces.get(caller.team, query_id, asked_by=asked_by)


def _visible(service: Runtime, caller: Caller, trace: Trace) -> Sequence[Mapping[str, Any]]:
    if caller.manages:
        return trace.hits
    scope = scope_of(_reader(caller, trace))
    with service.database.read() as connection:
        readable = acls.still_readable(connection, {hit["document_id"] for hit in trace.hits}, scope)
    return [hit for hit in trace.hits if hit["document_id"] in readable]


def _reader(caller: Caller, trace: Trace) -> Principal:
    return caller.principal(caller.asking_again(trace.as_user))


def _same_identity(caller: Caller, trace: Trace) -> bool:
    if trace.as_user is not None:
        return caller.may_ask_for_others
    return caller.key_id == trace.key_id


def _question(trace: Trace, query: str | None) -> RetrieveIn:
    text = query if query is not None else trace.query
    if text is None:
        raise InvalidRequest("The question was not kept in its trace. Send it as query.", code="query_required")
    try:
        return RetrieveIn.model_validate({**trace.request, "query": text})
    except ValidationError:
        raise Conflict(
            "It was asked of another version of the service, in words that this one does not know.",
            code="not_replayable",
        ) from None


def _check_built(service: Runtime, caller: Caller, index: str | None) -> None:
    """An index version that lacks documents would answer as if they had vanished."""
    if index is not None:
        with service.database.read() as connection:
            asked = collections.live_index(connection, caller.team, index)
        if asked is not None and asked.state == IndexState.BUILDING:
            raise Conflict(
                "This index version is still being built. Ask it when it has every document.",
                code="index_version_unavailable",
            )


def _indexes(plan: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in plan.get("index_versions", ())]


def _places(hits: Sequence[Mapping[str, Any]]) -> dict[str, Place]:
    return {hit["chunk_id"]: Place(hit["rank"], hit["score"], hit["document_id"]) for hit in hits}


def _best(hits: Sequence[Mapping[str, Any]]) -> dict[str, Place]:
    return best_of_documents(list(_places(hits).values()))


def _standing(place: Place) -> Standing:
    return Standing(rank=place.rank, score=place.score)


def _moved(one: Moved) -> Change:
    return Change(
        id=one.id,
        document_id=one.after.document_id,
        before=_standing(one.before),
        after=_standing(one.after),
        score_delta=one.after.score - one.before.score,
    )
