"""Upkeep: backups, reconciling, and how far either is. For holders of an admin key of the whole service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from rag_service.api.auth import Administrator
from rag_service.api.schemas import After, Limit, Listing, Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import operations
from rag_service.db.operations import Operation, OperationKind, OperationState

router = APIRouter(prefix="/v1/admin", tags=["upkeep"], route_class=StrictRoute)

BackupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class BackupIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "before-the-upgrade"}]})

    name: BackupName | None = Field(None, description="Name of its folder; the time when not given.")


class ReconcileIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"repair": True}]})

    repair: StrictBool = Field(False, description="Mend what is found.")


class OperationProgress(BaseModel):
    """`total` is null where it is not known."""

    stage: str = ""
    done: int = 0
    total: int | None = None


class OperationError(BaseModel):
    code: str
    message: str


class OperationRecord(BaseModel):
    """`report` is there once it has succeeded: of a backup where it lies and what it holds, else what was found."""

    id: str
    kind: OperationKind
    state: OperationState
    progress: OperationProgress
    report: dict[str, Any] | None
    error: OperationError | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, operation: Operation) -> OperationRecord:
        return cls(
            id=operation.id,
            kind=operation.kind,
            state=operation.state,
            progress=OperationProgress.model_validate(operation.progress),
            report=None if operation.report is None else dict(operation.report),
            error=None if operation.error is None else OperationError.model_validate(operation.error),
            created_at=operation.created_at,
            finished_at=operation.finished_at,
        )


@router.post("/backups", status_code=202)
def create_backup(service: Service, _: Administrator, backup: BackupIn) -> OperationRecord:
    """Begin a backup into the service's backup folder. Needs an admin key; follow it at `GET /v1/admin/operations`."""
    return OperationRecord.of(service.upkeep.start_backup(backup.name))


@router.post("/reconcile", status_code=202)
def reconcile(service: Service, _: Administrator, wanted: ReconcileIn) -> OperationRecord:
    """Begin comparing catalogue, index and blobs with each other. Needs an admin key."""
    return OperationRecord.of(service.upkeep.start_reconcile(mend=wanted.repair))


@router.get("/operations")
def list_operations(
    service: Service, _: Administrator, limit: Limit = 50, after: After = None
) -> Listing[OperationRecord]:
    """List backups and reconcilings, newest first, with their progress and reports. Needs an admin key."""
    with service.database.read() as connection:
        page = operations.page(connection, limit=limit, after=after)
    return Listing[OperationRecord].of(page, OperationRecord.of)
