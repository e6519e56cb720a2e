"""Working on documents anew from what is kept of them, for holders of an admin key of the whole service."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from rag_service.api.auth import Administrator, Caller
from rag_service.api.schemas import Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import idempotency
from rag_service.ingest.estimate import Estimate
from rag_service.ingest.reindex import Order
from rag_service.types import FromStage

router = APIRouter(prefix="/v1/admin", tags=["upkeep"], route_class=StrictRoute)

_Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]
IdempotencyKey: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="A request sent again with the same key within a day is answered as the first time, and done once.",
    ),
]


class ReindexScope(Model):
    """Which documents: all conditions hold; none at all means every document of the service."""

    team: _Name | None = Field(None, description="That of X-Rag-Team, where not given; without either all teams.")
    collection: _Name | None = Field(None, description="Name or id.")
    source: _Name | None = Field(None, description="Id.")
    filter: dict[str, Any] | None = Field(None, description="As in `POST /v1/retrieve`.")
    failed_only: StrictBool = Field(False, description="Only documents whose status is failed.")


class ReindexIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"scope": {"team": "hr", "collection": "default"}, "from_stage": "chunk", "dry_run": True},
                {"scope": {"team": "hr", "failed_only": True}, "from_stage": "parse"},
            ]
        }
    )

    scope: ReindexScope
    from_stage: FromStage = Field(
        description="The work begins here and never earlier; documents that have not what it begins with are skipped."
    )
    dry_run: StrictBool = Field(False, description="Say what it would take, and do nothing.")

    def order(self, caller: Caller) -> Order:
        """Raises InvalidRequest when scope and X-Rag-Team name different teams."""
        scope = self.scope
        return Order(
            from_stage=self.from_stage,
            team=caller.team_of(scope.team),
            collection=scope.collection,
            source=scope.source,
            filter=scope.filter or None,
            failed_only=scope.failed_only,
        )


class ReindexPlan(BaseModel):
    """`chunks` are counted once for each index version that they are written to.

    `seconds` come from what such work took lately, and are null where it was never done; `tokens` are those that an
    embedder over HTTP is sent. `skipped`: documents by what they lack (index, chunks, parsed_text, bytes, source).
    """

    documents: int
    chunks: int
    seconds: float | None
    disk_bytes: int
    tokens: int
    skipped: dict[str, int]

    @classmethod
    def of(cls, plan: Estimate) -> ReindexPlan:
        return cls(
            documents=plan.documents,
            chunks=plan.chunks,
            seconds=plan.seconds,
            disk_bytes=plan.disk_bytes,
            tokens=plan.tokens,
            skipped=dict(plan.skipped),
        )


class ReindexJob(BaseModel):
    team: str
    job_id: str


class ReindexAnswer(BaseModel):
    """`plan` where it was asked for, else `jobs`, one for each team: follow them at `GET /v1/jobs/{job_id}`."""

    plan: ReindexPlan | None = None
    jobs: list[ReindexJob] = Field(default_factory=list)


@router.post(
    "/reindex", status_code=202, responses={200: {"model": ReindexAnswer, "description": "What it would take."}}
)
def create_reindex(
    service: Service, caller: Administrator, wanted: ReindexIn, response: Response, key: IdempotencyKey = None
) -> ReindexAnswer:
    """Work on documents anew from what is kept of them, while they go on answering. Needs an admin key.

    From `permissions` and `metadata` what is stored beside the vectors is written; from `embed` the vectors of the
    chunks that are kept; from `chunk` the text that is kept is cut; from `parse` the bytes are read; from `fetch`
    sources are, every item of theirs, also outside `filter`. Vectors of texts that are the same are never computed.
    """
    order = wanted.order(caller)
    if wanted.dry_run:
        response.status_code = 200
        return ReindexAnswer(plan=ReindexPlan.of(service.reindex.plan(order)))
    with service.database.transaction() as transaction:

        def start() -> dict[str, Any]:
            begun = service.reindex.start(transaction, order)
            return {"jobs": [{"team": team, "job_id": job_id} for team, job_id in begun]}

        asked = {**wanted.model_dump(mode="json"), "team": caller.team, "route": "reindex"}
        who = caller.key_id or caller.key_name
        answer = start() if key is None else idempotency.once(transaction.connection, who, key, asked, start)
    return ReindexAnswer.model_validate(answer)
