"""Probes: golden questions that are asked by the clock, and what their answers must be."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

from rag_service.api.auth import AsUser, Caller, Manager
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Name, Queued, Service, located
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, Transaction, collections, probes, sources
from rag_service.db.probes import Probe, Run
from rag_service.errors import InvalidRequest
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.plan import MAX_QUERY, MAX_TOP_K, RetrievalRequest
from rag_service.types import ProbeState, utc_now

router = APIRouter(prefix="/v1/probes", tags=["probes"], route_class=StrictRoute)

_YEAR_S = 366 * 86_400
_Document = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
_Collection = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_Every = Annotated[StrictInt, Field(ge=60, le=_YEAR_S, description="Seconds between two runs.")]


class QuestionIn(Model):
    """As in `POST /v1/retrieve`. Without `as_user` it is asked by somebody who reads all of the team's documents."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY)] | None = Field(
        None, description="May be left out where only `max_age_s` is expected."
    )
    top_k: StrictInt = Field(10, ge=1, le=MAX_TOP_K)
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    filter: dict[str, Any] | None = None
    min_score: StrictFloat | None = None
    as_user: AsUser | None = Field(None, description="Ask for this person; needs a key with the scope impersonate.")


class ExpectIn(Model):
    """What the answer must be like; at least one of these. Documents are named by id or external id."""

    documents: list[_Document] = Field(
        default_factory=list, max_length=MAX_TOP_K, description="Must be among the first `top_k` passages."
    )
    min_recall: StrictFloat = Field(1.0, gt=0, le=1, description="The share of `documents` that must be.")
    nothing: StrictBool = Field(False, description="Must return nothing.")
    must_not: list[_Document] = Field(
        default_factory=list, max_length=MAX_TOP_K, description="Must not be among them: this asker may not see it."
    )
    max_age_s: StrictInt | None = Field(
        None, ge=60, le=_YEAR_S, description="The newest document of the collection came in less long ago."
    )
    source: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="Id of the source whose newest document `max_age_s` is about."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> ExpectIn:
        if self.nothing and (self.documents or self.must_not):
            raise ValueError("nothing cannot be expected together with documents or must_not")
        if self.source is not None and self.max_age_s is None:
            raise ValueError("source goes with max_age_s")
        if not (self.documents or self.nothing or self.must_not or self.max_age_s):
            raise ValueError("needs documents, nothing, must_not or max_age_s")
        return self

    @property
    def of_hits(self) -> bool:
        return bool(self.documents or self.nothing or self.must_not)


class ProbeIn(QuestionIn):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "leave is found",
                    "query": "How long is parental leave?",
                    "expect": {"documents": ["handbook/leave"]},
                    "every_s": 3600,
                },
                {
                    "name": "salaries stay private",
                    "query": "salary bands",
                    "as_user": {"user": "ada@example.com", "groups": ["staff"]},
                    "expect": {"must_not": ["hr/salaries"]},
                },
                {"name": "news comes in", "expect": {"max_age_s": 86400}},
            ]
        }
    )

    name: Name
    collection: _Collection = "default"
    expect: ExpectIn
    every_s: _Every = 3600


class ProbeChange(Model):
    """What is not given stays. A `question` or `expect` is given whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"every_s": 900, "expect": {"nothing": True}}]})

    name: Name | None = None
    question: QuestionIn | None = None
    expect: ExpectIn | None = None
    every_s: _Every | None = None


class ProbeFailure(BaseModel):
    """`check`: recall, nothing, must_not, age, team, access or error. The last but one are looked at in every run:
    whether each hit is of a document that the team owns and that the asker may read, by the documents' own rows."""

    check: str
    severity: Literal["critical", "warning"]
    message: str


class ProbeHit(BaseModel):
    document_id: str
    score: float


class ProbeResult(BaseModel):
    """`recall` null: no documents are expected, or there was no answer."""

    id: str
    at: datetime
    passed: bool
    recall: float | None
    hits: list[ProbeHit]
    failures: list[ProbeFailure]
    took_ms: float
    newest_document_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> ProbeResult:
        return cls(
            id=run.id,
            at=run.at,
            passed=run.passed,
            recall=run.recall,
            hits=[ProbeHit.model_validate(dict(hit)) for hit in run.hits],
            failures=[ProbeFailure.model_validate(dict(failure)) for failure in run.failures],
            took_ms=run.took_ms,
            newest_document_at=run.newest_at,
        )


class ProbeRecord(BaseModel):
    """`since`: when `state` became what it is. `unknown`: it has not been run yet."""

    id: str
    name: str
    collection: str
    question: QuestionIn
    expect: ExpectIn
    every_s: int
    paused: bool
    state: ProbeState
    since: datetime
    last: ProbeResult | None
    next_run_at: datetime
    created_at: datetime

    @classmethod
    def of(cls, probe: Probe) -> ProbeRecord:
        return cls(
            id=probe.id,
            name=probe.name,
            collection=probe.collection,
            question=QuestionIn.model_validate(dict(probe.question)),
            expect=ExpectIn.model_validate(dict(probe.expect)),
            every_s=probe.every_s,
            paused=probe.paused,
            state=probe.state,
            since=probe.since,
            last=None if probe.last is None else ProbeResult.of(probe.last),
            next_run_at=probe.next_run_at,
            created_at=probe.created_at,
        )


@router.post("", status_code=201)
def create_probe(service: Service, caller: Manager, probe: ProbeIn) -> ProbeRecord:
    """Make a probe; its first run is due at once."""
    caller.principal(probe.as_user)
    _check(probe, probe.expect)
    with service.database.transaction() as transaction:
        connection = transaction.connection
        collection = collections.get(connection, caller.team, probe.collection)
        _check_source(connection, caller, probe.expect)
        made = probes.create(
            connection,
            team_id=caller.team,
            collection_id=collection.id,
            name=probe.name,
            question=_stored(probe),
            expect=probe.expect.model_dump(),
            every_s=probe.every_s,
        )
        transaction.audit("probe.created", made.id, team=caller.team, after=_audited(made))
        return ProbeRecord.of(made)


@router.get("")
def list_probes(
    service: Service,
    caller: Manager,
    *,
    collection: Annotated[str | None, Query(max_length=100, description="Name or id.")] = None,
    state: ProbeState | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[ProbeRecord]:
    """List the team's probes, newest first, each with its newest result."""
    with service.database.read() as connection:
        place = None if collection is None else collections.get(connection, caller.team, collection).id
        page = probes.page(connection, caller.team, collection_id=place, state=state, limit=limit, after=after)
    return Listing[ProbeRecord].of(page, ProbeRecord.of)


@router.get("/{probe_id}")
def get_probe(service: Service, caller: Manager, probe_id: Id) -> ProbeRecord:
    """One probe, how it is and since when, and its newest result."""
    with service.database.read() as connection:
        return ProbeRecord.of(probes.get(connection, caller.team, probe_id))


@router.patch("/{probe_id}")
def update_probe(service: Service, caller: Manager, probe_id: Id, change: ProbeChange) -> ProbeRecord:
    """Change a probe. Its state stays until its next run, which is due at once."""
    with service.database.transaction() as transaction:
        connection = transaction.connection
        before = probes.get(connection, caller.team, probe_id)
        question = change.question or QuestionIn.model_validate(dict(before.question))
        expect = change.expect or ExpectIn.model_validate(dict(before.expect))
        if change.question is not None:
            caller.principal(question.as_user)
        _check(question, expect)
        _check_source(connection, caller, expect)
        values = change.model_dump(exclude_none=True, include={"name", "every_s"})
        stored = {"question": _stored(question), "expect": expect.model_dump()}
        probes.change(connection, probe_id, **values, **stored, next_run_at=utc_now())
        changed = probes.get(connection, caller.team, probe_id)
        transaction.audit("probe.changed", probe_id, team=caller.team, before=_audited(before), after=_audited(changed))
        return ProbeRecord.of(changed)


@router.delete("/{probe_id}", status_code=204)
def delete_probe(service: Service, caller: Manager, probe_id: Id) -> None:
    """Delete a probe and its results."""
    with service.database.transaction() as transaction:
        probe = probes.get(transaction.connection, caller.team, probe_id)
        probes.remove(transaction.connection, probe.id)
        transaction.audit("probe.deleted", probe.id, team=caller.team, before=_audited(probe))


@router.post("/{probe_id}/run", status_code=202)
def run_probe(service: Service, caller: Manager, probe_id: Id, response: Response) -> Queued:
    """Run a probe now, also a paused one, or name the run that is on its way."""
    with service.database.transaction() as transaction:
        probe = probes.get(transaction.connection, caller.team, probe_id)
        job_id = service.probing.prober.start(transaction, probe)
        transaction.audit("probe.run_requested", probe.id, team=caller.team)
        return located(response, Queued(job_id=job_id))


@router.post("/{probe_id}/pause")
def pause_probe(service: Service, caller: Manager, probe_id: Id) -> ProbeRecord:
    """Run it no more by the clock."""
    with service.database.transaction() as transaction:
        return _set_paused(transaction, caller, probe_id, paused=True)


@router.post("/{probe_id}/resume")
def resume_probe(service: Service, caller: Manager, probe_id: Id) -> ProbeRecord:
    """Run it by the clock again, at once to begin with."""
    with service.database.transaction() as transaction:
        return _set_paused(transaction, caller, probe_id, paused=False)


@router.get("/{probe_id}/runs")
def list_probe_runs(
    service: Service, caller: Manager, probe_id: Id, limit: Limit = 50, after: After = None
) -> Listing[ProbeResult]:
    """The results of a probe, newest first; so many are kept as RAG_PROBE_RESULTS says."""
    with service.database.read() as connection:
        probe = probes.get(connection, caller.team, probe_id)
        page = probes.runs(connection, probe.id, limit=limit, after=after)
    return Listing[ProbeResult].of(page, ProbeResult.of)


def _set_paused(transaction: Transaction, caller: Caller, probe_id: str, *, paused: bool) -> ProbeRecord:
    connection = transaction.connection
    probe = probes.get(connection, caller.team, probe_id)
    if probe.paused != paused:
        due = {} if paused else {"next_run_at": utc_now()}
        probes.change(connection, probe.id, paused=paused, **due)
        transaction.audit("probe.paused" if paused else "probe.resumed", probe.id, team=caller.team)
    return ProbeRecord.of(probes.get(connection, caller.team, probe_id))


def _check(question: QuestionIn, expect: ExpectIn) -> None:
    """Raises InvalidRequest for what could never be asked."""
    if question.query is None:
        if expect.of_hits:
            raise InvalidRequest("query: What is expected of an answer needs a question. Send query.")
        return
    narrowing = parse_filter(question.filter)
    RetrievalRequest(question.query, filter=narrowing, top_k=question.top_k, min_score=question.min_score)


def _check_source(connection: Connection, caller: Caller, expect: ExpectIn) -> None:
    if expect.source is not None:
        sources.get(connection, caller.team, expect.source)


def _stored(question: QuestionIn) -> dict[str, Any]:
    return question.model_dump(include=set(QuestionIn.model_fields))


def _audited(probe: Probe) -> dict[str, Any]:
    """What of a probe decides on what is seen; its question is a text, so not that."""
    return {"name": probe.name, "collection": probe.collection, "as_user": probe.question.get("as_user")}
