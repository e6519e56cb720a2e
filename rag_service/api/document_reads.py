"""Documents, the reading half: records, texts, chunks and histories.

A key that manages sees all of its team. A key that ingests sees every record, but texts and chunks only of what its
own identity may read. A key that queries sees only what it may read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from rag_service.access import scope_of
from rag_service.api.auth import Caller, Reader
from rag_service.api.schemas import METADATA_KEY, AclModel, After, Failure, Id, Limit, Listing, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, chunks, collections, documents, sources
from rag_service.db.documents import Document, DocumentFilter
from rag_service.db.sources import Source
from rag_service.errors import Conflict, InvalidRequest, NotFound
from rag_service.ingest.cancellation import CANCELED
from rag_service.types import Chunk, Collection, DocumentEvent, DocumentFailure, DocumentStatus

router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=StrictRoute)

_METADATA = "metadata."
# A new version may be committed between our look at the row and our look at the text; more often is a storm.
_LOOKS = 3

_Text: TypeAlias = Annotated[str | None, Query(max_length=100)]


class DocumentRecord(BaseModel):
    """`version` is the newest content, `indexed_version` the one that answers; they differ while work goes on.

    `acl` null: the default of its source applies; it is also null for keys that only query.
    """

    id: str
    external_id: str
    collection: str | None
    source_id: str | None
    title: str
    uri: str | None
    media_type: str | None
    metadata: dict[str, Any]
    acl: AclModel | None
    status: DocumentStatus
    version: int
    indexed_version: int | None
    chunk_count: int
    size_bytes: int
    content_hash: str
    error: Failure | None
    how_to_retry: str | None = Field(None, description="What to do about a document that failed.")
    created_at: datetime
    updated_at: datetime
    searchable_at: datetime | None
    deleted_at: datetime | None


class DocumentText(BaseModel):
    """The text that chunks point into: `text[start:end]` is exactly the chunk."""

    id: str
    version: int
    text: str


class ChunkRecord(BaseModel):
    id: str
    ordinal: int
    version: int
    text: str
    start: int
    end: int
    page: int | None
    heading_path: list[str]
    tokens: int

    @classmethod
    def of(cls, chunk: Chunk) -> ChunkRecord:
        content = chunk.content
        return cls(
            id=chunk.id,
            ordinal=chunk.ordinal,
            version=chunk.version,
            text=content.text,
            start=content.start,
            end=content.end,
            page=content.page,
            heading_path=list(content.heading_path),
            tokens=content.tokens,
        )


class EventRecord(BaseModel):
    """A line of a document's history.

    Kinds: accepted, indexed, fields_changed, acl_changed, failed, canceled, retried, restored, deleted.
    """

    at: datetime
    kind: str
    version: int
    detail: dict[str, Any]

    @classmethod
    def of(cls, event: DocumentEvent) -> EventRecord:
        return cls(at=event.at, kind=event.kind, version=event.version, detail=dict(event.detail))


async def _metadata_of(
    # OpenAPI has no parameters with a part of their name left open: the route's description tells of them.
    request: Request,
    _: Annotated[str | None, Query(alias=f"{_METADATA}*", include_in_schema=False)] = None,
) -> dict[str, str]:
    """A dependency: the values by the keys that they are wanted of. Raises InvalidRequest."""
    wanted = {}
    for name, value in request.query_params.items():
        if not name.startswith(_METADATA):
            continue
        key = name.removeprefix(_METADATA)
        if not METADATA_KEY.fullmatch(key):
            raise InvalidRequest("A metadata key is made of 1 to 64 letters, digits, _ or -.")
        wanted[key] = value
    return wanted


_MetadataQuery: TypeAlias = Annotated[dict[str, str], Depends(_metadata_of)]


@router.get("")
def list_documents(
    service: Service,
    caller: Reader,
    *,
    wanted: _MetadataQuery,
    status: DocumentStatus | None = None,
    source: _Text = None,
    collection: _Text = None,
    external_id: Annotated[str | None, Query(max_length=1_024)] = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[DocumentRecord]:
    """List documents, newest first. Deleted ones are listed with `status=deleted` only.

    `source` is an id, `collection` a name or an id. Any `metadata.<key>=<value>` narrows to documents with that value.
    """
    with service.database.read() as connection:
        sources.check_known(connection, caller.team, source)
        place = None if collection is None else collections.get(connection, caller.team, collection).id
        narrowing = DocumentFilter(status, source, place, external_id, wanted)
        scope = None if "ingest" in caller.scopes else scope_of(caller.principal())
        page = documents.page(connection, caller.team, narrowing, scope=scope, limit=limit, after=after)
        names: dict[str, str | None] = {}
        return Listing[DocumentRecord].of(page, lambda document: _record(connection, caller, document, names))


@router.get("/{document_id}")
def get_document(service: Service, caller: Reader, document_id: Id) -> DocumentRecord:
    """One document. Of a deleted one its tombstone stays, for keys that ingest or manage."""
    with service.database.read() as connection:
        return _record(connection, caller, _visible(connection, caller, document_id), {})


@router.get("/{document_id}/text")
def get_document_text(service: Service, caller: Reader, document_id: Id) -> DocumentText:
    """The whole text of the version that answers."""
    scope = scope_of(caller.principal())
    for _ in range(_LOOKS):
        with service.database.read() as connection:
            document = documents.get_readable(connection, document_id, scope)
        if document.text_key is None or document.indexed_version is None:
            raise Conflict("This document is not ready yet. Wait until its status is ready.", code="not_ready")
        try:
            text = service.blobs.get(document.text_key)
        except NotFound:
            continue
        return DocumentText(id=document.id, version=document.indexed_version, text=text.decode())
    raise Conflict("This document is being replaced. Try again shortly.", code="busy")


@router.get("/{document_id}/chunks")
def list_document_chunks(
    service: Service, caller: Reader, document_id: Id, limit: Limit = 50, after: After = None
) -> Listing[ChunkRecord]:
    """The chunks of the version that answers, in reading order."""
    with service.database.read() as connection:
        document = documents.get_readable(connection, document_id, scope_of(caller.principal()))
        page = chunks.page(connection, document.id, limit=limit, after=after)
    return Listing[ChunkRecord].of(page, ChunkRecord.of)


@router.get("/{document_id}/events")
def list_document_events(
    service: Service, caller: Reader, document_id: Id, limit: Limit = 50, after: After = None
) -> Listing[EventRecord]:
    """What happened to a document, newest first."""
    with service.database.read() as connection:
        document = _visible(connection, caller, document_id)
        page = documents.events(connection, document.id, limit=limit, after=after)
    return Listing[EventRecord].of(page, EventRecord.of)


def _visible(connection: Connection, caller: Caller, document_id: str) -> Document:
    if "ingest" in caller.scopes:
        return documents.get(connection, caller.team, document_id)
    return documents.get_readable(connection, document_id, scope_of(caller.principal()))


def _record(connection: Connection, caller: Caller, document: Document, names: dict[str, str | None]) -> DocumentRecord:
    shows_acl = "ingest" in caller.scopes and document.acl is not None
    error, team = document.error, document.team_id
    source = None
    if error and document.source_id:
        source = _name(names, document.source_id, partial(sources.get, connection, team))
    return DocumentRecord(
        id=document.id,
        external_id=document.external_id,
        collection=_name(names, document.collection_id, partial(collections.get, connection, team)),
        source_id=document.source_id or None,
        title=document.title,
        uri=document.uri,
        media_type=document.media_type,
        metadata=dict(document.metadata),
        acl=AclModel.of(document.acl) if shows_acl and document.acl is not None else None,
        status=document.status,
        version=document.version,
        indexed_version=document.indexed_version,
        chunk_count=document.chunk_count,
        size_bytes=document.size_bytes,
        content_hash=document.content_hash,
        error=error and Failure.of(asdict(error)),
        how_to_retry=error and _how_to_retry(document, error, source),
        created_at=document.created_at,
        updated_at=document.updated_at,
        searchable_at=document.searchable_at,
        deleted_at=document.deleted_at,
    )


def _how_to_retry(document: Document, error: DocumentFailure, source: str | None) -> str:
    if document.source_id and source is None:
        again = f"Its source is gone: DELETE /v1/documents/{document.id} and POST its content to /v1/documents"
    elif document.source_id:
        sync = f"POST /v1/sources/{document.source_id}/sync"
        again = f"{sync}, or wait for its next sync" if error.retryable else f"Correct it at its source, then {sync}"
    else:
        again = f"PUT /v1/documents/{document.id}/content with the {'same' if error.retryable else 'corrected'} content"
    if error.code == CANCELED:
        return f"{again}."
    letter = f'{{"filter": {{"document": "{document.id}"}}}}'
    return f"{again}; an administrator retries it as it is with POST /v1/admin/dead-letters:retry {letter}."


def _name(names: dict[str, str | None], key: str, get: Callable[[str], Collection | Source]) -> str | None:
    """Of a collection or source, looked up once; None when it went before its documents or their tombstones."""
    if key not in names:
        try:
            names[key] = get(key).name
        except NotFound:
            names[key] = None
    return names[key]
