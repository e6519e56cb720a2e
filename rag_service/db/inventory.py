"""What the catalogue says must be in the blobs and in the index, for backups and for reconciling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select

from rag_service.access import AccessTokens
from rag_service.db.documents import Document, change, document_of
from rag_service.db.tables import chunks, document_access, documents, jobs
from rag_service.types import JobKind, JobState

_PAGE = 500
_CHUNKS = chunks.join(documents, documents.c.id == chunks.c.document_id)


def live_documents(connection: Connection, index: str | None = None) -> Iterator[list[Document]]:
    """Documents that are not deleted, a page at a time: all, or those that answer from one index version."""
    where = documents.c.deleted_at.is_(None) if index is None else _answering(index)
    after = ""
    while True:
        query = select(documents).where(where, documents.c.id > after).order_by(documents.c.id).limit(_PAGE)
        page = [document_of(row) for row in connection.execute(query)]
        if not page:
            return
        yield page
        after = page[-1].id


def answering_chunks(connection: Connection, index: str) -> int:
    """How many chunks an index version answers with: so many points it must have."""
    return int(connection.execute(select(func.count()).select_from(_CHUNKS).where(*_answered_by(index))).scalar_one())


def among(connection: Connection, index: str, chunk_ids: Sequence[str]) -> set[str]:
    """Of these chunks, those that the index version answers with."""
    query = select(chunks.c.id).select_from(_CHUNKS).where(*_answered_by(index), chunks.c.id.in_(chunk_ids))
    return set(connection.execute(query).scalars())


def _answered_by(index: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    current = and_(chunks.c.version == documents.c.indexed_version, chunks.c.index_version == index)
    return _answering(index), current


def _answering(index: str) -> ColumnElement[bool]:
    return (
        (documents.c.index_version == index)
        & documents.c.indexed_version.is_not(None)
        & documents.c.deleted_at.is_(None)
    )


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What the catalogue says of one document. `busy`: work on it is open or it was changing, so its index may differ.

    `document` None: there is no such row. `chunk_ids` are those of the version that answers.
    """

    document: Document | None
    purged: bool
    access: AccessTokens
    chunk_ids: frozenset[str]
    busy: bool


def states(connection: Connection, document_ids: Sequence[str]) -> dict[str, DocumentState]:
    """The state of each of these documents (a few hundred at most)."""
    rows = {row.id: row for row in connection.execute(select(documents).where(documents.c.id.in_(document_ids)))}
    access = _access(connection, document_ids)
    held = _chunk_ids(connection, rows)
    working, removing = _work(connection, document_ids)
    # Last: whoever changed a document while it was looked at has raised its revision by now.
    again = select(documents.c.id, documents.c.revision).where(documents.c.id.in_(document_ids))
    now = {row.id: row.revision for row in connection.execute(again)}
    found = {}
    for document_id in document_ids:
        row = rows.get(document_id)
        changed = now.get(document_id) != (None if row is None else row.revision)
        found[document_id] = DocumentState(
            document=None if row is None else document_of(row),
            purged=row is not None and row.purged_at is not None,
            access=access[document_id],
            chunk_ids=frozenset(held[document_id]),
            busy=changed or document_id in working or (row is not None and row.team_id in removing),
        )
    return found


def unpurged(connection: Connection) -> list[str]:
    """Deleted documents whose content nobody has erased yet."""
    query = select(documents.c.id).where(documents.c.deleted_at.is_not(None), documents.c.purged_at.is_(None))
    return list(connection.execute(query).scalars())


def forget_content(connection: Connection, document: Document) -> bool:
    """Its bytes are lost: whatever comes in next under its name is new. False when it has changed meanwhile."""
    return change(connection, document, {"version_tag": "", "content_hash": ""}) is not None


def _access(connection: Connection, document_ids: Sequence[str]) -> dict[str, AccessTokens]:
    query = select(document_access).where(document_access.c.document_id.in_(document_ids))
    named: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for row in connection.execute(query.order_by(document_access.c.token)):
        named[row.document_id, row.deny].append(row.token)
    return {one: AccessTokens(tuple(named[one, False]), tuple(named[one, True])) for one in document_ids}


def _chunk_ids(connection: Connection, rows: Mapping[str, Row[Any]]) -> dict[str, list[str]]:
    query = select(chunks.c.id, chunks.c.document_id, chunks.c.version, chunks.c.index_version).where(
        chunks.c.document_id.in_(list(rows))
    )
    held: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(query):
        document = rows[row.document_id]
        if (row.version, row.index_version) == (document.indexed_version, document.index_version):
            held[row.document_id].append(row.id)
    return held


def _work(connection: Connection, document_ids: Sequence[str]) -> tuple[set[str], set[str]]:
    """(documents with an open job of their own, teams with an open removal of many)."""
    is_open = jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
    own = select(jobs.c.document_id).where(is_open, jobs.c.document_id.in_(document_ids))
    many = select(jobs.c.team_id).where(is_open, jobs.c.kind == JobKind.REMOVE, jobs.c.document_id.is_(None))
    return {str(one) for one in connection.execute(own).scalars()}, set(connection.execute(many).scalars())
