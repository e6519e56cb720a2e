"""Which documents are worked on anew, and what that needs of the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from rag_service.db.acls import store_tokens
from rag_service.db.documents import Document, document_of, tokens
from rag_service.db.tables import chunks, documents, indexed_documents
from rag_service.types import DocumentStatus


@dataclass(frozen=True, slots=True)
class Selection:
    """Which documents; None means any. Deleted ones are never among them."""

    team_id: str | None = None
    collection_id: str | None = None
    source_id: str | None = None
    failed_only: bool = False
    created_before: datetime | None = None


def teams(connection: Connection, selection: Selection) -> list[str]:
    """The teams that have such documents."""
    query = select(documents.c.team_id).where(*_chosen(selection)).distinct()
    return sorted(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Kept:
    """A document, and whether all that its parser told of the version that answers is kept."""

    document: Document
    parsed: bool


def some(connection: Connection, selection: Selection, *, after: str, limit: int) -> list[Kept]:
    """The next of them in the order of their ids, beyond `after` ("" for the first)."""
    query = select(documents).where(*_chosen(selection), documents.c.id > after)
    page = [document_of(row) for row in connection.execute(query.order_by(documents.c.id).limit(limit))]
    mine = and_(
        documents.c.id == indexed_documents.c.document_id,
        documents.c.index_version == indexed_documents.c.index_version,
        documents.c.indexed_version == indexed_documents.c.version,
    )
    told = and_(indexed_documents.c.outline.is_not(None), indexed_documents.c.text_key.is_not(None))
    among = documents.c.id.in_([document.id for document in page])
    kept = set(connection.execute(select(documents.c.id).join(indexed_documents, mine).where(among, told)).scalars())
    return [Kept(document, document.id in kept) for document in page]


def renew_access(connection: Connection, document: Document) -> Document | None:
    """Write a document's access tokens anew from its ACL. None when it has moved on: whoever moved it wrote them.

    Counts as a change, so that whoever read the former tokens looks again; its other times and fields stay.
    """
    mine = (documents.c.id == document.id) & (documents.c.revision == document.revision)
    row = connection.execute(
        update(documents).where(mine).values(revision=document.revision + 1).returning(*documents.c)
    ).first()
    if row is None:
        return None
    stored = document_of(row)
    store_tokens(connection, stored.id, tokens(connection, stored))
    return stored


def tokens_of(connection: Connection, document: Document) -> int:
    """How many tokens the chunks hold that answer for the document, as the model of their index version counts."""
    mine = (chunks.c.document_id == document.id) & (chunks.c.index_version == document.index_version)
    return int(connection.execute(select(func.sum(chunks.c.tokens)).where(mine)).scalar() or 0)


def _chosen(selection: Selection) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [documents.c.deleted_at.is_(None)]
    for column in ("team_id", "collection_id", "source_id"):
        if (value := getattr(selection, column)) is not None:
            conditions.append(documents.c[column] == value)
    if selection.failed_only:
        conditions.append(documents.c.status == DocumentStatus.FAILED)
    if selection.created_before is not None:
        conditions.append(documents.c.created_at <= selection.created_before)
    return conditions
