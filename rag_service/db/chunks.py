"""Chunks of the version that answers, and the last word on which of them a scope may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, insert, or_, select

from rag_service.access import AccessScope
from rag_service.db.acls import readable_few, scope_parameters
from rag_service.db.documents import Document, change
from rag_service.db.pages import Page
from rag_service.db.tables import chunks, collections, documents, index_versions
from rag_service.types import Chunk, ChunkText, ConfirmedChunk


def confirming(allowed: ColumnElement[bool]) -> Select[Any]:
    """Of the chunks `chunk_ids`, those whose version is the one that answers and whose document is `allowed`."""
    return (
        select(
            chunks,
            documents.c.external_id,
            documents.c.title,
            documents.c.uri,
            documents.c.media_type,
            documents.c.metadata,
            documents.c.source_id,
            documents.c.indexed_hash,
            documents.c.parser,
            documents.c.index_version,
            documents.c.searchable_at,
            collections.c.name.label("collection"),
            index_versions.c.chunker,
            index_versions.c.embedding_model,
        )
        .join(documents, documents.c.id == chunks.c.document_id)
        .join(collections, collections.c.id == documents.c.collection_id)
        .join(index_versions, index_versions.c.id == documents.c.index_version)
        .where(
            chunks.c.id.in_(bindparam("chunk_ids", expanding=True)),
            chunks.c.version == documents.c.indexed_version,
            allowed,
        )
    )


# Made once: building it anew took a fifth of a query's time.
CONFIRMED = confirming(readable_few())


def replace(
    connection: Connection, document: Document, values: Mapping[str, Any], new: Sequence[Chunk]
) -> Document | None:
    """Make `new` the chunks that answer and set `values`, in one step, if the row is as it was read; else None."""
    stored = change(connection, document, values)
    if stored is None:
        return None
    forget(connection, document.id)
    if new:
        connection.execute(insert(chunks), [_row(chunk) for chunk in new])
    return stored


def forget(connection: Connection, document_id: str, *, up_to: int | None = None) -> None:
    """Delete a document's chunks: all, or those of versions up to `up_to`."""
    query = delete(chunks).where(chunks.c.document_id == document_id)
    connection.execute(query if up_to is None else query.where(chunks.c.version <= up_to))


def of_document(connection: Connection, document_id: str, version: int) -> list[Chunk]:
    """All chunks of one version, in reading order; none when another version answers."""
    query = select(chunks).where(chunks.c.document_id == document_id, chunks.c.version == version)
    return [_chunk(row) for row in connection.execute(query.order_by(chunks.c.ordinal))]


def page(connection: Connection, document_id: str, *, limit: int, after: str | None) -> Page[Chunk]:
    """In reading order; the cursor is the ordinal of the last one shown."""
    query = select(chunks).where(chunks.c.document_id == document_id).order_by(chunks.c.ordinal)
    if after is not None:
        query = query.where(chunks.c.ordinal > (int(after) if after.isdecimal() else -1))
    rows = connection.execute(query.limit(limit + 1)).all()
    shown = [_chunk(row) for row in rows[:limit]]
    return Page(shown, str(shown[-1].ordinal) if len(rows) > limit else None)


def ids_of(connection: Connection, document_id: str) -> frozenset[str]:
    """The chunks of the version that answers; none while none does."""
    return frozenset(connection.execute(select(chunks.c.id).where(chunks.c.document_id == document_id)).scalars())


def confirm(connection: Connection, chunk_ids: Sequence[str], scope: AccessScope) -> dict[str, ConfirmedChunk]:
    """Of these chunks, those that `scope` may read now and whose version is the one that answers.

    One statement, independent of the vector store's own filter: a revocation or deletion holds from its commit on.
    """
    rows = connection.execute(CONFIRMED, {"chunk_ids": chunk_ids, **scope_parameters(scope)})
    return {row.id: _confirmed(row) for row in rows}


def around(
    connection: Connection, hits: Sequence[Chunk], before: int, after: int, scope: AccessScope
) -> dict[str, list[tuple[Chunk, str]]]:
    """By document: its chunks near `hits`, each with the key of the text they lie in.

    As `confirm`: of documents that `scope` may read now, and of the hit's version while that is the one that answers.
    """
    near = [
        (chunks.c.document_id == hit.document_id)
        & (chunks.c.version == hit.version)
        & chunks.c.ordinal.between(hit.ordinal - before, hit.ordinal + after)
        for hit in hits
    ]
    query = (
        select(chunks, documents.c.text_key)
        .join(documents, documents.c.id == chunks.c.document_id)
        .where(or_(*near), chunks.c.version == documents.c.indexed_version, readable_few())
    )
    found: dict[str, list[tuple[Chunk, str]]] = {}
    for row in connection.execute(query, scope_parameters(scope)):
        found.setdefault(row.document_id, []).append((_chunk(row), row.text_key or ""))
    return found


def _row(chunk: Chunk) -> dict[str, Any]:
    content = chunk.content
    return {
        "id": chunk.id,
        "document_id": chunk.document_id,
        "version": chunk.version,
        "ordinal": chunk.ordinal,
        "text": content.text,
        "start": content.start,
        "end": content.end,
        "page": content.page,
        "heading_path": list(content.heading_path),
        "tokens": content.tokens,
        "text_hash": chunk.text_hash,
    }


def _chunk(row: Row[Any]) -> Chunk:
    content = ChunkText(row.text, row.start, row.end, row.page, tuple(row.heading_path), row.tokens)
    return Chunk(row.id, row.document_id, row.version, row.ordinal, content, row.text_hash)


def _confirmed(row: Row[Any]) -> ConfirmedChunk:
    return ConfirmedChunk(
        chunk=_chunk(row),
        external_id=row.external_id,
        collection=row.collection,
        title=row.title,
        uri=row.uri,
        media_type=row.media_type or "",
        metadata=row.metadata,
        source_id=row.source_id or None,
        content_hash=row.indexed_hash,
        parser=row.parser,
        chunker=row.chunker,
        embedding_model=row.embedding_model,
        index_version=row.index_version,
        indexed_at=row.searchable_at,
    )
