"""Feedback on answers: given by the key that asked, or by keys of the team that manage; read by the latter.

What it is about is kept with it, so that it is worth something when the trace of the question is gone.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rag_service.access import scope_of
from rag_service.api.auth import Asker, AsUser, Caller, Manager
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Moment, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, acls, collections, documents, feedback, sources
from rag_service.db.feedback import NONE, Feedback, FeedbackFilter, Rating, Reason, Signal
from rag_service.db.queries import Trace
from rag_service.errors import NotFound
from rag_service.runtime import Runtime
from rag_service.types import new_id, utc_now

router = APIRouter(prefix="/v1/feedback", tags=["feedback"], route_class=StrictRoute)

_JSON_LINES, _CSV = "application/x-ndjson", "text/csv"
_NO_HIT = "The answer to that query has no such hit."
_Text: TypeAlias = Annotated[str | None, Query(max_length=100)]
_Ref: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]
# A spreadsheet takes what begins like this for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class SaidIn(Model):
    """Of one hit, named by chunk or document, or of the answer as a whole. It says something: rating, signal or more.

    Said again of the same, signals add up and the rest replaces what was said before.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query_id": "q_0198",
                    "chunk_id": "0b7c4a5e",
                    "rating": "dislike",
                    "reasons": ["outdated"],
                    "comment": "Since May it is 30 days.",
                },
                {"query_id": "q_0198", "signals": ["copied"]},
            ]
        }
    )

    query_id: _Ref
    document_id: _Ref | None = None
    chunk_id: _Ref | None = None
    rating: Rating | None = None
    reasons: Annotated[list[Reason], Field(max_length=len(Reason))] = Field(default_factory=list)
    signals: Annotated[list[Signal], Field(max_length=len(Signal))] = Field(
        default_factory=list, description="What somebody did with the answer, without being asked."
    )
    comment: Annotated[str, StringConstraints(min_length=1, max_length=4_000)] | None = None
    expected_document_id: _Ref | None = Field(None, description="The document that should have been found.")

    @model_validator(mode="after")
    def _says_something(self) -> SaidIn:
        if self.rating is None and not (self.signals or self.comment or self.expected_document_id):
            raise ValueError("give a rating, signals, a comment or expected_document_id")
        if self.reasons and self.rating is None:
            raise ValueError("reasons explain a rating: give one")
        return self


class FeedbackRecord(BaseModel):
    """`document_id` null: of the answer as a whole. `query` null: its trace did not keep the question.

    `source_id` null: of an upload, or of no document. `key_id` null: an admin key said it.
    """

    id: str
    at: datetime
    query_id: str
    asked_at: datetime
    query: str | None
    as_user: AsUser | None
    document_id: str | None
    chunk_id: str | None
    rating: Rating | None
    reasons: list[Reason]
    signals: list[Signal]
    comment: str | None
    expected_document_id: str | None
    collection_id: str | None
    source_id: str | None
    rank: int | None
    score: float | None
    version: int | None = Field(description="Of the document, at that time.")
    index_version: str | None
    key_id: str | None

    @classmethod
    def of(cls, said: Feedback) -> FeedbackRecord:
        values = {name: getattr(said, name) for name in cls.model_fields}
        return cls.model_validate({name: None if value == NONE else value for name, value in values.items()})


class SummaryRow(BaseModel):
    """`collection_id` null: of answers as a whole that more than one collection gave."""

    collection_id: str | None
    collection: str | None
    source_id: str | None
    given: int
    likes: int
    dislikes: int
    reasons: dict[Reason, int]
    signals: dict[Signal, int]


class FeedbackSummary(BaseModel):
    data: list[SummaryRow]


async def _wanted(
    *,
    rating: Rating | None = None,
    reason: Reason | None = None,
    signal: Signal | None = None,
    query_id: _Text = None,
    document: _Text = None,
    collection: Annotated[str | None, Query(max_length=100, description="Name or id of the collection.")] = None,
    source: Annotated[str | None, Query(max_length=100, description="Id of the source.")] = None,
    since: Annotated[Moment | None, Query(description="Said from this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Said before this moment.")] = None,
) -> FeedbackFilter:
    """A dependency: what is asked for."""
    return FeedbackFilter(
        rating=rating,
        reason=reason,
        signal=signal,
        query_id=query_id,
        document_id=document,
        collection_id=collection,
        source_id=source,
        since=since,
        until=until,
    )


Wanted: TypeAlias = Annotated[FeedbackFilter, Depends(_wanted)]


@router.post("", status_code=201)
def give_feedback(service: Service, caller: Asker, said: SaidIn) -> FeedbackRecord:
    """Say how good an answer was, or what was done with it. The key is the one that asked, or one that manages."""
    asked_by = None if caller.manages else caller.key_id or ""
    trace = service.traces.get(caller.team, said.query_id, asked_by=asked_by)
    with service.database.transaction() as transaction:
        made = _made(transaction.connection, caller, trace, said)
        return FeedbackRecord.of(feedback.give(transaction.connection, made))


@router.get("")
def list_feedback(
    service: Service, caller: Manager, wanted: Wanted, limit: Limit = 50, after: After = None
) -> Listing[FeedbackRecord]:
    """What was said of the team's answers, newest first."""
    with service.database.read() as connection:
        page = feedback.page(connection, caller.team, _resolved(connection, caller, wanted), limit=limit, after=after)
    return Listing[FeedbackRecord].of(page, FeedbackRecord.of)


@router.get("/summary")
def summarise_feedback(service: Service, caller: Manager, wanted: Wanted) -> FeedbackSummary:
    """Counts by collection and source."""
    with service.database.read() as connection:
        counted = feedback.summary(connection, caller.team, _resolved(connection, caller, wanted))
    rows = [
        SummaryRow(
            collection_id=one.collection_id,
            collection=one.collection,
            source_id=one.source_id or None,
            given=one.given,
            likes=one.likes,
            dislikes=one.dislikes,
            reasons=dict(one.reasons),
            signals=dict(one.signals),
        )
        for one in counted
    ]
    return FeedbackSummary(data=rows)


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {_JSON_LINES: {}, _CSV: {}}}})
def export_feedback(
    service: Service,
    caller: Manager,
    wanted: Wanted,
    form: Annotated[Literal["jsonl", "csv"], Query(alias="format")] = "jsonl",
) -> StreamingResponse:
    """All of it, oldest first, as JSON Lines or CSV."""
    with service.database.read() as connection:
        records = _records(service, caller.team, _resolved(connection, caller, wanted))
    if form == "csv":
        return StreamingResponse(_rows(records), media_type=_CSV)
    return StreamingResponse((f"{record.model_dump_json()}\n" for record in records), media_type=_JSON_LINES)


@router.delete("/{feedback_id}", status_code=204)
def delete_feedback(service: Service, caller: Manager, feedback_id: Id) -> None:
    """Delete it, with the comment and the question that it kept."""
    with service.database.transaction() as transaction:
        feedback.remove(transaction.connection, caller.team, feedback_id)
        transaction.audit("feedback.deleted", feedback_id, team=caller.team)


def _resolved(connection: Connection, caller: Caller, wanted: FeedbackFilter) -> FeedbackFilter:
    """The same with the collection's id. Raises NotFound for a collection or source that the team never had."""
    sources.check_known(connection, caller.team, wanted.source_id)
    if wanted.collection_id is None:
        return wanted
    try:
        return replace(wanted, collection_id=collections.get(connection, caller.team, wanted.collection_id).id)
    except NotFound:
        of_one_that_is_gone = FeedbackFilter(collection_id=wanted.collection_id)
        if not feedback.page(connection, caller.team, of_one_that_is_gone, limit=1, after=None).data:
            raise
        return wanted


def _made(connection: Connection, caller: Caller, trace: Trace, said: SaidIn) -> Feedback:
    """Raises NotFound alike for what is no hit, what may not be read any more, and what is not there."""
    scope = scope_of(caller.principal(caller.asking_again(trace.as_user)))
    if said.expected_document_id is not None:
        documents.get_readable(connection, said.expected_document_id, scope)
    hit = _hit(trace, said)
    if hit is not None and not acls.still_readable(connection, {hit["document_id"]}, scope):
        raise NotFound(_NO_HIT)
    about = documents.load(connection, str((hit or {}).get("document_id") or said.expected_document_id or NONE))
    asked = _asked(connection, trace)
    collection = next(iter(asked.values())) if len(asked) == 1 else None
    if about is not None:
        collection = about.collection_id
    return Feedback(
        id=new_id("fbk"),
        team_id=trace.team_id,
        query_id=trace.id,
        document_id=NONE if hit is None else str(hit["document_id"]),
        chunk_id=said.chunk_id or NONE,
        key_id=caller.key_id or NONE,
        rating=said.rating,
        reasons=_once(said.reasons),
        signals=_once(said.signals),
        comment=said.comment,
        expected_document_id=said.expected_document_id,
        collection_id=collection,
        source_id=None if about is None else about.source_id,
        query=trace.query,
        as_user=trace.as_user,
        asked_at=trace.at,
        rank=None if hit is None else hit["rank"],
        score=None if hit is None else hit["score"],
        version=None if hit is None else hit["version"],
        index_version=next((index for index, place in asked.items() if place == collection), None),
        at=utc_now(),
    )


def _hit(trace: Trace, said: SaidIn) -> Mapping[str, Any] | None:
    """The hit that is meant, of a document its best; None for the answer as a whole. Raises NotFound."""
    meant = {"chunk_id": said.chunk_id, "document_id": said.document_id}
    named = {name: value for name, value in meant.items() if value is not None}
    if not named:
        return None
    for hit in trace.hits:
        if all(hit[name] == value for name, value in named.items()):
            return hit
    raise NotFound(_NO_HIT)


def _asked(connection: Connection, trace: Trace) -> dict[str, str]:
    """The index versions that were asked, each with its collection; without those that are gone."""
    asked = {}
    for name in trace.plan.get("index_versions", ()):
        with suppress(NotFound):
            asked[str(name)] = collections.index_version(connection, str(name)).collection_id
    return asked


def _once(names: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(names))


def _records(service: Runtime, team: str, wanted: FeedbackFilter) -> Iterator[FeedbackRecord]:
    with service.database.read() as connection:
        for said in feedback.in_order(connection, team, wanted):
            yield FeedbackRecord.of(said)


def _rows(records: Iterable[FeedbackRecord]) -> Iterator[str]:
    columns = list(FeedbackRecord.model_fields)
    yield _line(columns)
    for record in records:
        shown = record.model_dump(mode="json")
        yield _line([_cell(shown[name]) for name in columns])


def _line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
