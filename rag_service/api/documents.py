"""Documents, the writing half: put in, replaced, described, closed off and removed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from rag_service.api.auth import Caller, Ingester
from rag_service.api.schemas import METADATA_KEY, AclModel, Id, Service, checked_metadata, located
from rag_service.api.strict import StrictRoute
from rag_service.api.uploads import (
    Content,
    ContentForm,
    ContentIn,
    DocumentForm,
    DocumentIn,
    Upload,
    bodies,
    check_size,
    read_content,
    read_upload,
)
from rag_service.db import Connection, collections, documents, sources
from rag_service.db.documents import Document
from rag_service.errors import Conflict, InvalidRequest, NotFound
from rag_service.ingest.intake import Incoming, Receipt, Target
from rag_service.types import DocumentStatus

router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=StrictRoute)


class Accepted(BaseModel):
    """A write that was taken in. `deduplicated`: the content was known, so no new version was made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "doc_019a",
                    "external_id": "handbook/leave",
                    "version": 1,
                    "status": "accepted",
                    "job_id": "job_019a",
                    "deduplicated": False,
                }
            ]
        }
    )

    id: str
    external_id: str
    version: int
    status: DocumentStatus
    job_id: str | None = Field(description="The work that follows, if any does.")
    deduplicated: bool

    @classmethod
    def of(cls, receipt: Receipt) -> Accepted:
        document = receipt.document
        return cls(
            id=document.id,
            external_id=document.external_id,
            version=document.version,
            status=document.status,
            job_id=receipt.job_id,
            deduplicated=receipt.change in ("unchanged", "metadata_modified"),
        )


@router.post("", status_code=202, openapi_extra=bodies(DocumentIn, DocumentForm))
def create_document(
    service: Service, caller: Ingester, upload: Annotated[Upload, Depends(read_upload)], response: Response
) -> Accepted:
    """Put a document in: JSON with its text, or a form with a file.

    A document of the same external_id is replaced, and answers with its old version until the new one is ready.
    The same content again makes no new version. An ACL that is not given again stays as it is.
    """
    incoming = upload.incoming(service.settings.max_upload_bytes)
    with service.database.read() as connection:
        collection = collections.get(connection, caller.team, upload.collection)
    target = Target(caller.team, collection.id)
    receipt = service.intake.accept(target, [incoming], on_conflict=upload.on_conflict)[0]
    return located(response, Accepted.of(receipt))


@router.put("/{document_id}/content", status_code=202, openapi_extra=bodies(ContentIn, ContentForm))
def replace_document_content(
    service: Service,
    caller: Ingester,
    document_id: Id,
    content: Annotated[Content, Depends(read_content)],
    response: Response,
) -> Accepted:
    """Replace the content and keep all else. The old version answers until the new one is ready.

    A document of a source is refused with 409: the next sync would undo the change. So is one whose source is gone
    while an upload has its external_id.
    """
    check_size(content, service.settings.max_upload_bytes)
    with service.database.read() as connection:
        document = _live(connection, caller, document_id)
        _refuse_of_source(connection, document)
    incoming = Incoming(
        external_id=document.external_id,
        read=lambda: content.content,
        title=document.given_title if content.title is None else content.title,
        file_name=content.file_name,
        media_type=content.media_type,
        uri=document.uri,
        metadata=document.metadata,
    )
    receipt = service.intake.accept(Target(caller.team, document.collection_id), [incoming])[0]
    return located(response, Accepted.of(receipt))


@router.patch("/{document_id}/metadata", status_code=202)
def update_document_metadata(
    service: Service, caller: Ingester, document_id: Id, patch: dict[str, Any], response: Response
) -> Accepted:
    """Merge into the metadata (RFC 7396): null removes a key, what is not named stays. Embeds nothing."""
    if not all(METADATA_KEY.fullmatch(key) for key in patch):
        raise InvalidRequest("A metadata key is made of 1 to 64 letters, digits, _ or -.")
    with service.database.transaction() as transaction:
        document = _live(transaction.connection, caller, document_id)
        merged = {key: value for key, value in {**document.metadata, **patch}.items() if value is not None}
        try:
            checked_metadata(merged)
        except ValueError as error:
            raise InvalidRequest(f"metadata: {error}.") from None
        receipt = service.intake.change_fields(transaction, document, metadata=merged)
    return located(response, Accepted.of(receipt))


@router.patch("/{document_id}/acl", status_code=202)
def replace_document_acl(
    service: Service, caller: Ingester, document_id: Id, acl: AclModel, response: Response
) -> Accepted:
    """Replace the whole ACL. It holds for every search from this answer on; embeds nothing."""
    with service.database.transaction() as transaction:
        document = _live(transaction.connection, caller, document_id)
        receipt = service.intake.change_acl(transaction, document, acl.acl())
    return located(response, Accepted.of(receipt))


@router.delete("/{document_id}", status_code=202)
def delete_document(service: Service, caller: Ingester, document_id: Id, response: Response) -> Accepted:
    """Delete a document. Nobody finds it from this answer on; a job purges its chunks and bytes.

    A document of a source comes back with the next sync that lists it: exclude it there too.
    """
    with service.database.read() as connection:
        document = _live(connection, caller, document_id)
    job_id = service.removal.document(document)
    gone = Accepted(
        id=document.id,
        external_id=document.external_id,
        version=document.version,
        status=DocumentStatus.DELETED,
        job_id=job_id,
        deduplicated=False,
    )
    return located(response, gone)


def _live(connection: Connection, caller: Caller, document_id: str) -> Document:
    document = documents.get(connection, caller.team, document_id)
    if document.is_deleted:
        raise NotFound(documents.UNKNOWN)
    return document


def _refuse_of_source(connection: Connection, document: Document) -> None:
    if not document.source_id:
        return
    try:
        sources.get(connection, document.team_id, document.source_id)
    except NotFound:
        raise Conflict(
            "The source of this document is gone. Delete it, and send its content with POST /v1/documents.",
            code="source_gone",
        ) from None
    raise Conflict("This document comes from a source. Change it there and sync.", code="owned_by_source")
