"""The audit log: who did what, when and to what. It can be read and taken away, never changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from rag_service.api.auth import AnyKey
from rag_service.api.schemas import After, Limit, Listing, Moment, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import audit
from rag_service.db.audit import AuditFilter, Recorded
from rag_service.errors import NotPermitted
from rag_service.runtime import Runtime

router = APIRouter(prefix="/v1/admin/audit", tags=["audit"], route_class=StrictRoute)

_Text: TypeAlias = Annotated[str | None, Query(max_length=200)]
_JSON_LINES = "application/x-ndjson"


class AuditRecord(BaseModel):
    """`before` and `after` hold what decides on access. `hash` is SHA-256 over the former entry's hash and this one."""

    seq: int
    at: datetime
    team_id: str | None
    author: dict[str, Any] = Field(
        description="kind (admin_key, key, worker, command, service), key_id, key_name, user and groups on behalf of "
        "whom, address, request_id (of a worker: its job); what is not known is left out."
    )
    action: str = Field(examples=["document.acl_changed"])
    target: str
    outcome: str = Field(examples=["done"])
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    detail: dict[str, Any]
    hash: str

    @classmethod
    def of(cls, entry: Recorded) -> AuditRecord:
        return cls.model_validate({**entry.content(), "hash": entry.hash})


async def _visible(
    caller: AnyKey,
    *,
    action: Annotated[
        str | None, Query(max_length=60, description="Such as key.created, or key.* for all of keys.")
    ] = None,
    target: _Text = None,
    key: Annotated[str | None, Query(max_length=200, description="Id of the key that acted.")] = None,
    request_id: _Text = None,
    outcome: Annotated[str | None, Query(pattern="^(done|refused)$")] = None,
    since: Annotated[Moment | None, Query(description="Entries from this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Entries before this moment.")] = None,
) -> AuditFilter:
    """A dependency: what is asked for, within what the caller may see. Raises NotPermitted."""
    if "admin" not in caller.scopes:
        raise NotPermitted("This needs a key with the scope admin.")
    return AuditFilter(
        team_id=caller.team or None,  # an admin key that names no team sees all
        action=action,
        target=target,
        key_id=key,
        request_id=request_id,
        outcome=outcome,
        since=since,
        until=until,
    )


Visible: TypeAlias = Annotated[AuditFilter, Depends(_visible)]


@router.get("")
def list_audit(service: Service, wanted: Visible, limit: Limit = 50, after: After = None) -> Listing[AuditRecord]:
    """The audit log, newest first. A team's `admin` key sees its team's; an admin key all, or that of X-Rag-Team."""
    service.retrieval_audit.flush()
    with service.database.read() as connection:
        return Listing[AuditRecord].of(audit.page(connection, wanted, limit=limit, after=after), AuditRecord.of)


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {_JSON_LINES: {}}}})
def export_audit(service: Service, wanted: Visible) -> StreamingResponse:
    """The audit log as JSON Lines, oldest first. The whole log can be verified by `rag admin audit verify --file`."""
    service.retrieval_audit.flush()
    return StreamingResponse(_lines(service, wanted), media_type=_JSON_LINES)


def _lines(service: Runtime, wanted: AuditFilter) -> Iterator[str]:
    with service.database.read() as connection:
        for entry in audit.in_order(connection, wanted):
            yield f"{entry.exported()}\n"
