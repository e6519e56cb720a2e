"""Chunks of the version that answers, and the last word on which of them a scope may see."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, insert, or_, select

from rag_service.access import AccessScope
from rag_service.db.acls import readable_few, scope_parameters
from rag_service.db.gathered import Gathered
from rag_service.db.pages import Page, number_of
from rag_service.db.tables import chunks, collections, documents, index_versions, indexed_documents
from rag_service.types import Chunk, ChunkText, ConfirmedChunk

# The chunk is of the version that its own index version answers with.
_ANSWERS = and_(
    indexed_documents.c.index_version == chunks.c.index_version,
    indexed_documents.c.document_id == chunks.c.document_id,
    indexed_documents.c.version == chunks.c.version,
)


def confirming(allowed: ColumnElement[bool]) -> Gathered:
    """Of the chunks `chunk_ids`, those that their index version answers with and whose document is `allowed`.

    Whether that index version is the active one is not asked: a question ends on the one that it began on.
    """
    return Gathered(
        select(
            chunks,
            documents.c.external_id,
            documents.c.title,
            documents.c.uri,
            documents.c.media_type,
            documents.c.metadata,
            documents.c.source_id,
            indexed_documents.c.content_hash,
            indexed_documents.c.parser,
            indexed_documents.c.searchable_at,
            collections.c.name.label("collection"),
            index_versions.c.chunker,
            index_versions.c.embedding_model,
        )
        .join(documents, documents.c.id == chunks.c.document_id)
        .join(collections, collections.c.id == documents.c.collection_id)
        .join(indexed_documents, _ANSWERS)
        .join(index_versions, index_versions.c.id == chunks.c.index_version)
        .where(
            chunks.c.id.in_(bindparam("chunk_ids", expanding=True)),
            allowed,
        )
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Chunks of one version of a document, with the key of its text and how that is laid out."""

    text_key: str
    layout: Literal["markdown", "plain", "code"]
    chunks: list[Chunk] = field(default_factory=list)


# Made once: building it anew took a fifth of a query's time.
CONFIRMED = confirming(readable_few())
# Run for every document: made once.
_OF = and_(chunks.c.document_id == bindparam("document"), chunks.c.index_version == bindparam("index"))
_FORGOTTEN = delete(chunks).where(_OF)
_IDS = select(chunks.c.id).where(_OF)
_OF_VERSION = chunks.c.version == bindparam("version")
_IDS_OF_VERSION = _IDS.where(_OF_VERSION)
_ALL_OF_VERSION = select(chunks).where(_OF, _OF_VERSION).order_by(chunks.c.ordinal)
_HOLDING = select(chunks.c.text_hash, chunks.c.index_version, chunks.c.id).where(
    chunks.c.index_version.in_(bindparam("indexes", expanding=True)),
    chunks.c.text_hash.in_(bindparam("hashes", expanding=True)),
)


def replace(connection: Connection, index: str, document_id: str, new: Sequence[Chunk]) -> None:
    """Make `new` the chunks of the document in this index version."""
    connection.execute(_FORGOTTEN, {"document": document_id, "index": index})
    if new:
        connection.execute(insert(chunks), [{**_row(chunk), "index_version": index} for chunk in new])


def forget(connection: Connection, document_id: str, *, up_to: int | None = None) -> None:
    """Delete a document's chunks in all index versions: all, or those of versions up to `up_to`."""
    query = delete(chunks).where(chunks.c.document_id == document_id)
    connection.execute(query if up_to is None else query.where(chunks.c.version <= up_to))


def of_document(connection: Connection, index: str, document_id: str, version: int) -> list[Chunk]:
    """All chunks of one version in one index version, in reading order; none when another version answers."""
    given = {"document": document_id, "index": index, "version": version}
    return [_chunk(row) for row in connection.execute(_ALL_OF_VERSION, given)]


def page(connection: Connection, document_id: str, *, limit: int, after: str | None) -> Page[Chunk]:
    """In the active index version, in reading order; the cursor is the ordinal of the last one shown."""
    query = select(chunks).where(_active(document_id)).order_by(chunks.c.ordinal)
    if after is not None:
        query = query.where(chunks.c.ordinal > number_of(after))
    rows = connection.execute(query.limit(limit + 1)).all()
    shown = [_chunk(row) for row in rows[:limit]]
    return Page(shown, str(shown[-1].ordinal) if len(rows) > limit else None)


def ids_of(connection: Connection, index: str, document_id: str, version: int | None = None) -> frozenset[str]:
    """The chunks of the version that the index version answers with, if it is that one; none while none does."""
    given = {"document": document_id, "index": index}
    if version is None:
        return frozenset(connection.execute(_IDS, given).scalars())
    return frozenset(connection.execute(_IDS_OF_VERSION, {**given, "version": version}).scalars())


def holding(connection: Connection, indexes: Collection[str], hashes: Collection[str]) -> dict[str, tuple[str, str]]:
    """By hash of what was embedded: (index version, chunk) that has a vector of it, where one of `indexes` has."""
    found = connection.execute(_HOLDING, {"indexes": list(indexes), "hashes": list(hashes)})
    return {row.text_hash: (row.index_version, row.id) for row in found}


def _active(document_id: str) -> ColumnElement[bool]:
    active = select(documents.c.index_version).where(documents.c.id == document_id).scalar_subquery()
    return and_(chunks.c.document_id == document_id, chunks.c.index_version == active)


def confirm(connection: Connection, chunk_ids: Sequence[str], scope: AccessScope) -> dict[str, ConfirmedChunk]:
    """Of these chunks, those that `scope` may read now and whose version is the one that answers.

    One statement, independent of the vector store's own filter: a revocation or deletion holds from its commit on.
    """
    rows = CONFIRMED.rows(connection, {"chunk_ids": chunk_ids, **scope_parameters(scope)})
    return {row.id: _confirmed(row) for row in rows}


def around(
    connection: Connection, hits: Sequence[tuple[str, Chunk]], before: int, after: int, scope: AccessScope
) -> dict[str, Surroundings]:
    """By document: its chunks near `hits`, which come with their index version, and where its text is.

    As `confirm`: of documents that `scope` may read now, and of the hit's version while that is the one that answers.
    """
    near = [
        (chunks.c.document_id == hit.document_id)
        & (chunks.c.index_version == index)
        & (chunks.c.version == hit.version)
        & chunks.c.ordinal.between(hit.ordinal - before, hit.ordinal + after)
        for index, hit in hits
    ]
    query = (
        select(chunks, indexed_documents.c.text_key, indexed_documents.c.outline)
        .join(documents, documents.c.id == chunks.c.document_id)
        .join(indexed_documents, _ANSWERS)
        .where(or_(*near), readable_few())
    )
    found: dict[str, Surroundings] = {}
    for row in connection.execute(query, scope_parameters(scope)):
        layout = (row.outline or {}).get("layout", "markdown")  # a former version noted none
        found.setdefault(row.document_id, Surroundings(row.text_key or "", layout)).chunks.append(_chunk(row))
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
        content_hash=row.content_hash,
        parser=row.parser,
        chunker=row.chunker,
        embedding_model=row.embedding_model,
        index_version=row.index_version,
        indexed_at=row.searchable_at,
    )
