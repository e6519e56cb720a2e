"""Dead letters: the jobs of all teams that gave up, with their diagnosis, for an admin key of the service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rag_service.api.auth import Administrator, Caller
from rag_service.api.jobs import Retried
from rag_service.api.schemas import After, Failure, Limit, Listing, Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import dead_letters, sources, teams
from rag_service.db.dead_letters import LetterFilter
from rag_service.db.jobs import Job
from rag_service.errors import ErrorClass
from rag_service.runtime import Runtime
from rag_service.types import JobKind

router = APIRouter(prefix="/v1/admin", tags=["administration"], route_class=StrictRoute)

_Text: TypeAlias = Annotated[str | None, Query(max_length=100)]
_Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_WHICH_TEAM = "That of X-Rag-Team, where not given; without either all teams."


class FailedAttempt(BaseModel):
    """One of the newest failures of a job. `error_class` is `worker` where the worker died that held it."""

    at: datetime
    error_class: str
    code: str | None
    stage: str | None = None
    message: str | None = None
    worker: str | None = Field(None, description="host:process")
    again_at: datetime | None = Field(None, description="When it was to be tried again.")


class DeadLetter(BaseModel):
    """A job that gave up. `failures` counts its attempts by class of error; deaths of workers are counted apart."""

    job_id: str
    team: str
    kind: JobKind
    source_id: str | None
    document_id: str | None
    version: int | None
    error: Failure | None
    attempts: int
    failures: dict[str, int]
    worker_deaths: int
    history: list[FailedAttempt]
    retried: list[Retried]
    created_at: datetime
    failed_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> DeadLetter:
        return cls(
            job_id=job.id,
            team=job.team_id,
            kind=job.kind,
            source_id=job.source_id,
            document_id=job.document_id,
            version=job.version,
            error=Failure.of(job.error),
            attempts=job.attempts,
            failures=dict(job.failures),
            worker_deaths=job.worker_deaths,
            history=[FailedAttempt.model_validate(dict(entry)) for entry in job.history],
            retried=[Retried.model_validate(dict(life)) for life in job.retried],
            created_at=job.created_at,
            failed_at=job.finished_at,
        )


class LetterQuery(Model):
    """Which letters: all conditions hold; none at all means every letter of the service."""

    team: _Name | None = Field(None, description=_WHICH_TEAM)
    kind: JobKind | None = None
    error_class: ErrorClass | None = None
    code: _Name | None = None
    source: _Name | None = None
    document: _Name | None = None

    def narrowing(self, caller: Caller) -> LetterFilter:
        return LetterFilter(
            team_id=caller.team_of(self.team),
            kind=self.kind,
            error_class=self.error_class,
            code=self.code,
            source_id=self.source,
            document_id=self.document,
        )


class Letters(Model):
    """Either the ids of the jobs, or a filter."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"filter": {"team": "hr", "error_class": "transient"}}]})

    ids: Annotated[list[_Name], Field(min_length=1, max_length=500)] | None = None
    filter: LetterQuery | None = None

    @model_validator(mode="after")
    def _says_which(self) -> Letters:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self

    def which(self, caller: Caller) -> LetterFilter:
        """Raises InvalidRequest when filter and X-Rag-Team name different teams."""
        if self.filter is None:
            return LetterFilter(ids=self.ids, team_id=caller.team_of(None))
        return self.filter.narrowing(caller)


class RetriedLetters(BaseModel):
    """`superseded` letters were not retried: newer work has taken their place, or their document is gone."""

    retried: int
    superseded: int


class DiscardedLetters(BaseModel):
    discarded: int


@router.get("/dead-letters")
def list_dead_letters(
    service: Service,
    caller: Administrator,
    *,
    team: Annotated[str | None, Query(max_length=100, description=_WHICH_TEAM)] = None,
    kind: JobKind | None = None,
    error_class: ErrorClass | None = None,
    code: _Text = None,
    source: _Text = None,
    document: _Text = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[DeadLetter]:
    """List the jobs that gave up, of all teams or of one, newest first, until they are retried or discarded."""
    values: dict[str, Any] = {"kind": kind, "error_class": error_class, "code": code, "source_id": source}
    narrowing = _checked(service, LetterFilter(**values, team_id=caller.team_of(team), document_id=document))
    with service.database.read() as connection:
        page = dead_letters.page(connection, narrowing, limit=limit, after=after)
    return Listing[DeadLetter].of(page, DeadLetter.of)


@router.post("/dead-letters:retry", status_code=202)
def retry_dead_letters(service: Service, caller: Administrator, letters: Letters) -> RetriedLetters:
    """Queue these jobs again, as if they were new. What they had given up with stays visible on the job."""
    done = service.dead_letters.retry(_checked(service, letters.which(caller)))
    return RetriedLetters(retried=done.handled, superseded=done.superseded)


@router.post("/dead-letters:discard")
def discard_dead_letters(service: Service, caller: Administrator, letters: Letters) -> DiscardedLetters:
    """Put these letters away for good. Their jobs and documents stay failed, with the reason."""
    done = service.dead_letters.discard(_checked(service, letters.which(caller)))
    return DiscardedLetters(discarded=done.handled)


def _checked(service: Runtime, narrowing: LetterFilter) -> LetterFilter:
    """The same. Raises NotFound for a team that there is not, and for what is no source of it."""
    with service.database.read() as connection:
        if narrowing.team_id is not None:
            teams.get(connection, narrowing.team_id)
        sources.check_known(connection, narrowing.team_id, narrowing.source_id)
    return narrowing
