"""Index versions: a collection built anew beside the index that answers, compared with it, and put in its place."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Query, Request, Response

from rag_service.api.auth import Caller, administrator
from rag_service.api.index_version_records import IndexVersionRecord, record, records
from rag_service.api.index_version_requests import (
    EvaluationIn,
    IndexVersionChange,
    IndexVersionIn,
    IndexVersionPlan,
    PromotionIn,
)
from rag_service.api.schemas import After, Id, Limit, Listing, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import builds, collections
from rag_service.db.builds import Build
from rag_service.errors import InvalidRequest
from rag_service.runtime import Runtime
from rag_service.types import IndexState

router = APIRouter(prefix="/v1/admin/index-versions", tags=["index versions"], route_class=StrictRoute)


async def _operator(request: Request) -> Caller:
    """The holder of an admin key of the whole service, for one team."""
    who = await administrator(request)
    if not who.team:
        raise InvalidRequest("Name the team in the header X-Rag-Team.", code="team_required")
    return who


Operator = Annotated[Caller, Depends(_operator)]
_Text: TypeAlias = Annotated[str | None, Query(max_length=100)]


@router.post("", status_code=201, responses={200: {"model": IndexVersionPlan, "description": "What it would take."}})
def create_index_version(
    service: Service, caller: Operator, wanted: IndexVersionIn, response: Response
) -> IndexVersionRecord | IndexVersionPlan:
    """Begin to build a collection with another pipeline, beside the index that answers. Needs an admin key.

    With `dry_run` nothing is built: the answer says what it would take.
    """
    if wanted.dry_run:
        response.status_code = 200
        return IndexVersionPlan.of(service.indexes.planner.plan(caller.team, wanted.collection, wanted.wanted()))
    return _shown(service, service.indexes.versions.create(caller.team, wanted.collection, wanted.wanted()))


@router.get("")
def list_index_versions(
    service: Service,
    caller: Operator,
    *,
    collection: _Text = None,
    state: IndexState | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[IndexVersionRecord]:
    """List the team's index versions, newest first, with sizes, models, quality and progress. Needs an admin key."""
    with service.database.read() as connection:
        only = None if collection is None else collections.get(connection, caller.team, collection).id
        page = builds.page(connection, caller.team, collection_id=only, state=state, limit=limit, after=after)
        shown = records(connection, page.data, service.vectors)
    return Listing[IndexVersionRecord](data=shown, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


@router.get("/{index_version}")
def get_index_version(service: Service, caller: Operator, index_version: Id) -> IndexVersionRecord:
    """One index version. Needs an admin key."""
    with service.database.read() as connection:
        return record(connection, builds.get(connection, caller.team, index_version), service.vectors)


@router.patch("/{index_version}")
def update_index_version(
    service: Service, caller: Operator, index_version: Id, change: IndexVersionChange
) -> IndexVersionRecord:
    """Give a build more or less of the machine, or another note. Needs an admin key."""
    values = change.model_dump(exclude_none=True)
    return _shown(service, service.indexes.versions.change(caller.team, index_version, **values))


@router.post("/{index_version}:pause")
def pause_index_version(service: Service, caller: Operator, index_version: Id) -> IndexVersionRecord:
    """Stop building for now. Deletions and changes of access reach it all the same. Needs an admin key."""
    return _shown(service, service.indexes.versions.pause(caller.team, index_version))


@router.post("/{index_version}:resume")
def resume_index_version(service: Service, caller: Operator, index_version: Id) -> IndexVersionRecord:
    """Go on building with the next document, and try once more what could not be built. Needs an admin key."""
    return _shown(service, service.indexes.versions.resume(caller.team, index_version))


@router.post("/{index_version}:cancel")
def cancel_index_version(service: Service, caller: Operator, index_version: Id) -> IndexVersionRecord:
    """Give up a build that does not answer yet; what there is of it is dropped. Needs an admin key."""
    return _shown(service, service.indexes.versions.cancel(caller.team, index_version))


@router.post("/{index_version}:evaluate")
def evaluate_index_version(
    service: Service, caller: Operator, index_version: Id, asked: EvaluationIn
) -> IndexVersionRecord:
    """Ask it and the active one the same questions; `quality` has what came out. Needs an admin key."""
    build, _ = service.indexes.versions.evaluate(caller.team, index_version, asked.asked())
    return _shown(service, build)


@router.post("/{index_version}:promote")
def promote_index_version(
    service: Service, caller: Operator, index_version: Id, wanted: PromotionIn
) -> IndexVersionRecord:
    """Let it answer from now on, if it passes the gate; refused with the numbers otherwise. Needs an admin key.

    The former one is kept up to date for RAG_SOAK_S seconds, for `:rollback`.
    """
    promotion, gate = service.indexes.promotion, wanted.gate
    limits = None if gate is None else gate.limits()
    return _shown(service, promotion.promote(caller.team, index_version, limits, wanted.asked(), force=wanted.force))


@router.post("/{index_version}:rollback")
def rollback_index_version(service: Service, caller: Operator, index_version: Id) -> IndexVersionRecord:
    """Leave this one, the active one: the one before it answers again. Answers with that one. Needs an admin key."""
    return _shown(service, service.indexes.promotion.rollback(caller.team, index_version))


def _shown(service: Runtime, build: Build) -> IndexVersionRecord:
    with service.database.read() as connection:
        return record(connection, build, service.vectors)
