"""Why a document is, or is not, among the answers to a question."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rag_service.api.auth import Asker
from rag_service.api.retrieve import RetrieveIn
from rag_service.api.schemas import Failure, Service
from rag_service.api.strict import StrictRoute
from rag_service.retrieval.cut_off import Cut
from rag_service.retrieval.why_not import Kind, Subject, Verdict
from rag_service.types import DocumentFailure, DocumentStatus, JobState

router = APIRouter(prefix="/v1", tags=["retrieval"], route_class=StrictRoute)


class WhyNotIn(RetrieveIn):
    """A question as `POST /v1/retrieve` takes it, and the document that is missed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "How long is parental leave?",
                    "external_id": "handbook/leave",
                    "as_user": {"user": "ada@example.com", "groups": ["staff"]},
                }
            ]
        }
    )

    document_id: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    external_id: Annotated[str, StringConstraints(min_length=1, max_length=1_024)] | None = None
    collection: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="Where the external_id is looked up; the collections of the question when not given."
    )

    @model_validator(mode="after")
    def _names_one_document(self) -> WhyNotIn:
        if (self.document_id is None) == (self.external_id is None):
            raise ValueError("name the document by either document_id or external_id")
        return self


class SubjectRecord(BaseModel):
    """`indexed_version` is the version that answers; a newer `version` is still on its way."""

    id: str
    external_id: str
    collection: str | None
    status: DocumentStatus
    version: int
    indexed_version: int | None


class IndexJob(BaseModel):
    id: str
    state: JobState


class LegPlace(BaseModel):
    """`rank` null: not among the first 4,000, or no word of the question. Up to rank `drawn` it is a candidate."""

    score: float | None
    rank: int | None
    drawn: int


class FusedPlace(BaseModel):
    rank: int
    score: float


class LastReturned(BaseModel):
    rank: int
    score: float
    fused: float


class WhyNot(BaseModel):
    """`verdict` names the first obstacle; only what belongs to that verdict is there beside it."""

    verdict: Kind
    reason: str
    document: SubjectRecord
    rank: int | None = Field(None, description="returned: its best rank")
    score: float | None = Field(None, description="returned: its score there")
    chunk_id: str | None = Field(None, description="returned, below_cut_off: its best passage; wording: the nearest")
    clause: dict[str, Any] | None = Field(None, description="filtered_out: the condition that does not hold")
    values: dict[str, Any] | None = Field(None, description="filtered_out: what the document has there")
    missing: list[str] | None = Field(None, description="wording: quoted words that it lacks")
    unwanted: list[str] | None = Field(None, description="wording: excluded words that it has")
    denied_by: list[str] | None = Field(None, description="not_readable: what of the asker is on the deny list")
    job: IndexJob | None = Field(None, description="not_indexed: the job that will do it")
    failure: Failure | None = Field(None, description="failed: why")
    deleted_at: datetime | None = Field(None, description="deleted: when")
    cut: Cut | None = Field(None, description="below_cut_off: the cut, or the option, that it fell under")
    legs: dict[str, LegPlace] | None = Field(None, description="below_cut_off: its best passage in each leg")
    fused: FusedPlace | None = Field(None, description="below_cut_off: its fused rank and score, if it has one")
    last_returned: LastReturned | None = Field(None, description="below_cut_off: the last passage returned")


@router.post("/retrieve:why_not", response_model_exclude_unset=True)
def why_not(service: Service, caller: Asker, question: WhyNotIn) -> WhyNot:
    """Why a document is not among the answers, or at which rank it is: the first obstacle on its way.

    A key that manages is told of every document of its team, also that its asker may not read it. To any other, a
    document that its asker may not read does not exist.
    """
    subject = Subject(question.document_id, question.external_id, question.collection)
    principal = caller.principal(question.as_user)
    verdict = service.why_not.explain(subject, question.request(), principal, tells_all=caller.manages)
    return _shown(verdict)


def _shown(verdict: Verdict) -> WhyNot:
    document, detail = verdict.document, dict(verdict.detail)
    if isinstance(failure := detail.get("failure"), DocumentFailure):
        detail["failure"] = asdict(failure)
    subject = {
        "id": document.id,
        "external_id": document.external_id,
        "collection": verdict.collection,
        "status": document.status,
        "version": document.version,
        "indexed_version": document.indexed_version,
    }
    return WhyNot.model_validate({"verdict": verdict.kind, "reason": verdict.reason, "document": subject, **detail})
