"""Sources: configured places that are read again and again.

A `files` source reads the disk of the workers. Anybody who may make one may read every file that the service may,
so it takes an admin key of the service; where RAG_SOURCE_ROOT confines such sources to one folder, `manage` is enough.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StringConstraints
from pydantic.config import JsonDict

import connectors
from connectors.secret_fields import public_schema
from rag_service.api.auth import AnyKey, Caller, Manager
from rag_service.api.schemas import AclModel, After, Failure, Id, Limit, Listing, Model, Name, Queued, Service, located
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, Transaction, collections, documents, jobs, sources
from rag_service.db.sources import Source
from rag_service.errors import Conflict, InvalidRequest, NotPermitted
from rag_service.ingest.audit_trail import acl_of
from rag_service.ingest.credentials import states
from rag_service.runtime import Runtime
from rag_service.types import utc_now

router = APIRouter(prefix="/v1", tags=["sources"], route_class=StrictRoute)

# Types that read what is private to the machine of the workers.
_OF_THIS_MACHINE = frozenset({"files"})
_CONFIG_EXAMPLE: JsonDict = {"root": "/srv/handbook", "include": ["**/*.md", "**/*.pdf"]}

SourceType = Annotated[str, StringConstraints(min_length=1, max_length=50)]
Schedule = Annotated[StrictInt, Field(ge=60, le=366 * 86_400)]


class DeletionProtection(Model):
    max_percent: StrictFloat = Field(
        20.0,
        ge=0,
        le=100,
        description="When a listing misses more than this share of the documents, nothing is deleted until confirmed.",
    )


class SourceConfig(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "files", "config": _CONFIG_EXAMPLE}]})

    type: SourceType
    config: dict[str, Any] = Field(description="As the `config_schema` of the type in `GET /v1/source-types` says.")


class SourceIn(SourceConfig):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "handbook",
                    "type": "files",
                    "config": _CONFIG_EXAMPLE,
                    "acl": {"groups": ["staff"]},
                    "schedule_s": 3600,
                }
            ]
        }
    )

    name: Name
    collection: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "default"
    acl: AclModel = Field(default_factory=AclModel, description="For its documents that have none of their own.")
    schedule_s: Schedule | None = Field(None, description="Seconds between syncs; without it, only on request.")
    deletion_protection: DeletionProtection = Field(default_factory=DeletionProtection)


class SourceChange(Model):
    """What is not given stays; `schedule_s` null ends the schedule.

    `config` is given whole but for its secrets: one that is left out stays as it is, null takes it away.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"schedule_s": 900, "acl": {"public": True}}]})

    name: Name | None = None
    config: dict[str, Any] | None = None
    acl: AclModel | None = None
    schedule_s: Schedule | None = None
    deletion_protection: DeletionProtection | None = None


class SyncIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"confirm_deletions": True}]})

    confirm_deletions: StrictBool = Field(False, description="Delete what this sync does not find, however much it is.")


class SourceTypeRecord(BaseModel):
    type: str
    config_schema: dict[str, Any]
    incremental: bool
    reports_deletes: bool
    reports_acl: bool


class SourceTypes(BaseModel):
    data: list[SourceTypeRecord]


class CheckResult(BaseModel):
    """What the source holds at the moment: a count, which may stop at a limit, and the names of a few items."""

    items: int
    sample: list[str]


class SourceRecord(BaseModel):
    """`held_deletions` documents are gone from the source, and wait for a sync with `confirm_deletions`."""

    id: str
    name: str
    type: str
    config: dict[str, Any] = Field(description="Without its secrets, which are never shown.")
    secrets: dict[str, Literal["set", "unset"]] = Field(description="The secret fields of the configuration.")
    collection: str
    acl: AclModel
    schedule_s: int | None
    deletion_protection: DeletionProtection
    paused: bool
    held_deletions: int
    last_error: Failure | None
    last_success_at: datetime | None
    next_run_at: datetime | None
    created_at: datetime
    documents: dict[str, int]


@router.get("/source-types")
def list_source_types(_: AnyKey) -> SourceTypes:
    """The types of sources, each with the JSON Schema of its configuration."""
    return SourceTypes(data=[_type_record(name) for name in sorted(connectors.REGISTRY)])


@router.post("/sources", status_code=201)
def create_source(service: Service, caller: Manager, source: SourceIn) -> SourceRecord:
    """Make a source; its first sync is due at once if it has a schedule, else on request.

    A `files` source reads the server's own disk: it takes an admin key unless RAG_SOURCE_ROOT is set. That folder is
    open to the managers of every team.
    """
    _check_config(service, caller, source.type, source.config)
    with service.database.transaction() as transaction:
        connection = transaction.connection
        place = collections.get(connection, caller.team, source.collection)
        made = sources.create(
            connection,
            team_id=caller.team,
            collection_id=place.id,
            name=source.name,
            source_type=source.type,
            config={},
            acl=source.acl.acl(),
            schedule_s=source.schedule_s,
            max_deleted_percent=source.deletion_protection.max_percent,
        )
        made = service.credentials.keep(connection, made, source.config)
        transaction.audit("source.created", made.id, team=caller.team, after=_access(made))
        return _record(connection, made)


@router.post("/sources/validate")
def validate_source(service: Service, caller: Manager, source: SourceConfig) -> CheckResult:
    """Try a configuration without keeping it: can it be read, and what does it hold? Same keys as making one."""
    _check_config(service, caller, source.type, source.config)
    check = service.connect(source.type, source.config).check()
    return CheckResult(items=check.items, sample=list(check.sample))


@router.get("/sources")
def list_sources(service: Service, caller: Manager, limit: Limit = 50, after: After = None) -> Listing[SourceRecord]:
    """List the team's sources."""
    with service.database.read() as connection:
        page = sources.page(connection, caller.team, limit=limit, after=after)
        return Listing[SourceRecord].of(page, lambda source: _record(connection, source))


@router.get("/sources/{source_id}")
def get_source(service: Service, caller: Manager, source_id: Id) -> SourceRecord:
    """One source with its documents by status, its last error and what waits for confirmation."""
    with service.database.read() as connection:
        return _record(connection, sources.get(connection, caller.team, source_id))


@router.patch("/sources/{source_id}")
def update_source(service: Service, caller: Manager, source_id: Id, change: SourceChange) -> SourceRecord:
    """Change a source. A new ACL holds at once for all its documents without one of their own; embeds nothing."""
    with service.database.read() as connection:
        source = sources.get(connection, caller.team, source_id)
    if change.config is not None:
        _check_config(service, caller, source.type, service.credentials.merged(source, change.config))
    with service.database.transaction() as transaction:
        current = sources.get(transaction.connection, caller.team, source_id, held=True)
        if change.config is not None and (current.config, current.secrets) != (source.config, source.secrets):
            raise Conflict("The source was changed by somebody else at the same time. Try again.", code="busy")
        _apply(service, transaction, current, change)
        changed = sources.get(transaction.connection, caller.team, source_id)
        fields = sorted(change.model_fields_set)
        before, after = _access(current), _access(changed)
        transaction.audit("source.changed", source_id, team=caller.team, before=before, after=after, fields=fields)
        return _record(transaction.connection, changed)


@router.delete("/sources/{source_id}", status_code=202)
def delete_source(
    service: Service,
    caller: Manager,
    source_id: Id,
    response: Response,
    documents: Annotated[
        Literal["delete", "keep"],
        Query(description="What becomes of its documents; kept ones keep their ACL and count as uploads."),
    ] = "delete",
) -> Queued:
    """Delete a source, with its documents or without."""
    with service.database.read() as connection:
        source = sources.get(connection, caller.team, source_id)
    return located(response, Queued(job_id=service.removal.source(source, keep_documents=documents == "keep")))


@router.post("/sources/{source_id}/sync", status_code=202)
def sync_source(
    service: Service, caller: Manager, source_id: Id, response: Response, sync: SyncIn | None = None
) -> Queued:
    """Start a sync, or name the one that is on its way. `confirm_deletions` deletes what was held back."""
    confirmed = sync is not None and sync.confirm_deletions
    with service.database.transaction() as transaction:
        source = sources.get(transaction.connection, caller.team, source_id)
        if source.paused:
            raise Conflict("This source is paused. Resume it first.", code="source_paused")
        if confirmed and jobs.open_sync(transaction.connection, source.id):
            raise Conflict("A sync is on its way already. Confirm deletions when it has ended.", code="sync_running")
        job_id = service.syncer.start(transaction, source, confirm_deletions=confirmed)
        transaction.audit("source.sync_requested", source.id, team=caller.team, confirm_deletions=confirmed)
        return located(response, Queued(job_id=job_id))


@router.post("/sources/{source_id}/pause")
def pause_source(service: Service, caller: Manager, source_id: Id) -> SourceRecord:
    """Pause a source: no sync starts, and one that runs stops at its next step. Its documents stay searchable."""
    return _set_paused(service, caller, source_id, paused=True)


@router.post("/sources/{source_id}/resume")
def resume_source(service: Service, caller: Manager, source_id: Id) -> SourceRecord:
    """Resume a paused source; one with a schedule is due at once."""
    return _set_paused(service, caller, source_id, paused=False)


def _set_paused(service: Runtime, caller: Caller, source_id: str, *, paused: bool) -> SourceRecord:
    with service.database.transaction() as transaction:
        connection = transaction.connection
        source = sources.get(connection, caller.team, source_id)
        if source.paused != paused:
            due = utc_now() if source.schedule_s and not paused else source.next_run_at
            sources.change(connection, source.id, paused=paused, next_run_at=due)
            action = "source.paused" if paused else "source.resumed"
            transaction.audit(action, source.id, team=caller.team)
        return _record(connection, sources.get(connection, caller.team, source.id))


def _check_config(service: Runtime, caller: Caller, source_type: str, config: dict[str, Any]) -> None:
    """Raises InvalidRequest naming the field, NotPermitted for another machine's files."""
    if source_type not in connectors.REGISTRY:
        known = ", ".join(sorted(connectors.REGISTRY))
        raise InvalidRequest(f"type: there is no such source type. Use one of: {known}.", code="unknown_source_type")
    if source_type in _OF_THIS_MACHINE and not caller.administrator and service.settings.source_root is None:
        raise NotPermitted(
            f"A {source_type} source reads the server's own disk: that takes an admin key of the service, "
            "or RAG_SOURCE_ROOT to confine such sources to one folder."
        )
    service.connect(source_type, config)


def _access(source: Source) -> dict[str, Any]:
    """What of a source decides on access, for the audit log: a configuration may hold anything, so not that."""
    return {**acl_of(source.acl), "name": source.name, "type": source.type, "secrets": states(source)}


def _apply(service: Runtime, transaction: Transaction, source: Source, change: SourceChange) -> None:
    given = change.model_fields_set
    values: dict[str, Any] = {}
    if change.name is not None:
        values["name"] = change.name
    if change.config is not None:
        kept = service.credentials.keep(transaction.connection, source, change.config)
        if (kept.config, kept.secrets) != (source.config, source.secrets):
            sources.begin_listing(transaction.connection, source.id)  # a sync of what it was begins anew
    if change.deletion_protection is not None:
        values["max_deleted_percent"] = change.deletion_protection.max_percent
    if "schedule_s" in given:
        later = None if change.schedule_s is None else utc_now() + timedelta(seconds=change.schedule_s)
        values |= {"schedule_s": change.schedule_s, "next_run_at": later}
    if change.acl is not None:
        values["acl"] = change.acl.acl()
        service.intake.change_default_acl(transaction, source.id, change.acl.acl())
    if values:
        sources.change(transaction.connection, source.id, **values)


def _record(connection: Connection, source: Source) -> SourceRecord:
    return SourceRecord(
        id=source.id,
        name=source.name,
        type=source.type,
        config=dict(source.config),
        secrets=states(source),
        collection=collections.get(connection, source.team_id, source.collection_id).name,
        acl=AclModel.of(source.acl),
        schedule_s=source.schedule_s,
        deletion_protection=DeletionProtection(max_percent=source.max_deleted_percent),
        paused=source.paused,
        held_deletions=source.held_deletions,
        last_error=Failure.of(source.last_error),
        last_success_at=source.last_success_at,
        next_run_at=source.next_run_at,
        created_at=source.created_at,
        documents=documents.count_by_status(connection, source.team_id, source.id),
    )


def _type_record(name: str) -> SourceTypeRecord:
    connector = connectors.load(name)
    return SourceTypeRecord(
        type=name,
        config_schema=public_schema(connector.Config),
        incremental=connector.incremental,
        reports_deletes=connector.reports_deletes,
        reports_acl=connector.reports_acl,
    )
