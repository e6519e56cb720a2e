"""Documents: the rows that say what exists, in which version, who may read it and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, and_, bindparam, cast, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from connectors.base import Acl
from rag_service.access import AccessScope, AccessTokens, tokens_of
from rag_service.db import dead_letters
from rag_service.db.acls import acl_from_json, acl_to_json, readable, store_tokens
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import document_access, document_events, documents, indexed_documents, sources
from rag_service.errors import Conflict, NotFound
from rag_service.types import DocumentEvent, DocumentFailure, DocumentStatus, Metadata, new_id, utc_now

NO_SOURCE = ""
_ENDED = (DocumentStatus.READY, DocumentStatus.FAILED, DocumentStatus.DELETED)
UNDER_WAY = tuple(status for status in DocumentStatus if status not in _ENDED)
UNKNOWN = "There is no such document in this team."


@dataclass(frozen=True, slots=True)
class Document:
    """`acl` None: the default of its source applies. `indexed_version` is the version that answers."""

    id: str
    team_id: str
    collection_id: str
    source_id: str
    external_id: str
    given_title: str
    title: str
    file_name: str
    uri: str | None
    media_type: str | None
    metadata: Metadata
    acl: Acl | None
    revision: int
    version: int
    version_tag: str
    content_hash: str
    blob_key: str
    size_bytes: int
    status: DocumentStatus
    error: DocumentFailure | None
    listing: int
    indexed_version: int | None
    indexed_hash: str | None
    index_version: str | None
    text_key: str | None
    parser: str
    chunk_count: int
    searchable_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """What a listing of documents is narrowed to; None means any."""

    status: DocumentStatus | None = None
    source_id: str | None = None
    collection_id: str | None = None
    external_id: str | None = None
    metadata: Mapping[str, str] | None = None


# Values go beside a statement, not into it: SQLAlchemy looks at each value in it, which took longer than the database.
_INSERTED = insert(documents).returning(*documents.c)
_CHANGED = (
    update(documents)
    .where(documents.c.id == bindparam("changed"), documents.c.revision == bindparam("as_read"))
    .returning(*documents.c)
)
_DEFAULT_ACL = select(sources.c.acl).where(sources.c.id == bindparam("source"))
_LOADED = select(documents).where(documents.c.id == bindparam("document"))


def add(connection: Connection, document_id: str, values: Mapping[str, Any], tokens: AccessTokens) -> Document | None:
    """Insert version 1. None when another writer was first: (collection, source, external id) is unique."""
    now = utc_now()
    fixed = {"id": document_id, "version": 1, "revision": 1, "status": DocumentStatus.ACCEPTED}
    row = {**_columns(values), **fixed, "created_at": now, "updated_at": now}
    try:
        with connection.begin_nested():
            stored = connection.execute(_INSERTED, row).one()
    except IntegrityError:
        return None
    store_tokens(connection, document_id, tokens)
    return document_of(stored)


def change(
    connection: Connection, document: Document, values: Mapping[str, Any], tokens: AccessTokens | None = None
) -> Document | None:
    """Compare-and-set on the revision: None when somebody else changed the document since it was read.

    It counts as updated now, unless `values` say otherwise.
    """
    row = {"updated_at": utc_now(), **_columns(values), "revision": document.revision + 1}
    stored = connection.execute(_CHANGED, {**row, "changed": document.id, "as_read": document.revision}).first()
    if stored is None:
        return None
    if tokens is not None:
        store_tokens(connection, document.id, tokens)
    return document_of(stored)


def revive(
    connection: Connection, deleted: Document, values: Mapping[str, Any], tokens: AccessTokens
) -> Document | None:
    """A deleted document is there again, with nothing that answers. None when somebody else changed it meanwhile."""
    blank = {"indexed_version": None, "text_key": None, "chunk_count": 0, "searchable_at": None}
    alive = {"status": DocumentStatus.ACCEPTED, "deleted_at": None, "purged_at": None}
    return change(connection, deleted, {**values, **blank, **alive, "version": deleted.version + 1}, tokens)


def load(connection: Connection, document_id: str) -> Document | None:
    """The row as it is now, whoever's it is; for workers."""
    row = connection.execute(_LOADED, {"document": document_id}).first()
    return None if row is None else document_of(row)


def get(connection: Connection, team_id: str, document_id: str) -> Document:
    """Raises NotFound, also for another team's."""
    document = load(connection, document_id)
    if document is None or document.team_id != team_id:
        raise NotFound(UNKNOWN)
    return document


def get_readable(connection: Connection, document_id: str, scope: AccessScope) -> Document:
    """Raises NotFound, also for a document that exists but that `scope` may not read."""
    row = connection.execute(select(documents).where(documents.c.id == document_id, readable(scope))).first()
    if row is None:
        raise NotFound(UNKNOWN)
    return document_of(row)


def matching(
    connection: Connection,
    team_id: str,
    *,
    scope: AccessScope | None,
    document_id: str | None = None,
    external_id: str | None = None,
    collection_ids: Collection[str] = (),
) -> list[Document]:
    """The team's documents of this id, or of this external id in these collections: one of each source at most.

    With a scope only those that it may read now, in one statement: what it may not read is as if it were not there.
    """
    query = select(documents).where(documents.c.team_id == team_id)
    if scope is not None:
        query = query.where(readable(scope))
    if document_id is not None:
        query = query.where(documents.c.id == document_id)
    else:
        query = query.where(documents.c.external_id == external_id, documents.c.collection_id.in_(collection_ids))
    return [document_of(row) for row in connection.execute(query.order_by(documents.c.id.desc()))]


def find(
    connection: Connection, collection_id: str, source_id: str, external_ids: Collection[str]
) -> dict[str, Document]:
    """Rows by external id, deleted ones too."""
    query = select(documents).where(
        documents.c.collection_id == collection_id,
        documents.c.source_id == source_id,
        documents.c.external_id.in_(external_ids),
    )
    return {row.external_id: document_of(row) for row in connection.execute(query)}


def page(
    connection: Connection,
    team_id: str,
    narrowing: DocumentFilter,
    *,
    scope: AccessScope | None,
    limit: int,
    after: str | None,
) -> Page[Document]:
    """Documents of a team, newest first; with a scope, only those that it may read. Deleted ones on request only."""
    query = select(documents).where(documents.c.team_id == team_id)
    if scope is not None:
        query = query.where(readable(scope))
    if narrowing.status is None:
        query = query.where(documents.c.deleted_at.is_(None))
    for column in ("status", "source_id", "collection_id", "external_id"):
        if (value := getattr(narrowing, column)) is not None:
            query = query.where(documents.c[column] == value)
    for key, value in (narrowing.metadata or {}).items():
        query = query.where(_says(key, value))
    return fetch_page(connection, query, documents, document_of, limit=limit, after=after)


def show_progress(connection: Connection, document_id: str, version: int, status: DocumentStatus) -> None:
    """Note how far a version is; of no effect when it has ended or the document has moved on."""
    mine = (documents.c.id == document_id) & (documents.c.version == version) & documents.c.status.in_(UNDER_WAY)
    connection.execute(update(documents).where(mine).values(status=status))


def fail(connection: Connection, document_id: str, version: int, failure: DocumentFailure) -> bool:
    """Put the reason on the document; False if it has moved on. A version indexed before goes on answering."""
    mine = (documents.c.id == document_id) & (documents.c.version == version) & documents.c.deleted_at.is_(None)
    values = {"status": DocumentStatus.FAILED, "error": asdict(failure)}
    if not connection.execute(update(documents).where(mine).values(values)).rowcount:
        return False
    record(connection, document_id, version, "failed", stage=failure.stage, code=failure.code)
    return True


def note_seen(connection: Connection, document_ids: Sequence[str], listing: int) -> None:
    """Unchanged and still there: of no consequence to the index, so the revision stays."""
    if document_ids:
        connection.execute(update(documents).where(documents.c.id.in_(document_ids)).values(listing=listing))


def note_tag(connection: Connection, document_id: str, version_tag: str) -> None:
    """Another tag over the same content."""
    connection.execute(update(documents).where(documents.c.id == document_id).values(version_tag=version_tag))


def count_listed(connection: Connection, source_id: str, listing: int) -> tuple[int, int]:
    """(live documents of the source, those of them that this listing did not see)."""
    live = (documents.c.source_id == source_id) & documents.c.deleted_at.is_(None)
    total = connection.execute(select(func.count()).where(live)).scalar_one()
    unseen = connection.execute(select(func.count()).where(live, documents.c.listing < listing)).scalar_one()
    return int(total), int(unseen)


def mark_deleted(
    connection: Connection,
    *,
    document_id: str | None = None,
    source_id: str | None = None,
    collection_id: str | None = None,
    not_in_listing: int | None = None,
) -> list[str]:
    """Hide documents from this commit on; returns their ids. Purging their content is a job's work."""
    which: ColumnElement[bool] = documents.c.deleted_at.is_(None)
    for column, value in (("id", document_id), ("source_id", source_id), ("collection_id", collection_id)):
        if value is not None:
            which = which & (documents.c[column] == value)
    if document_id is None and source_id is None and collection_id is None:
        raise ValueError("say which documents")
    if not_in_listing is not None:
        which = which & (documents.c.listing < not_in_listing)
    now = utc_now()
    values = {"status": DocumentStatus.DELETED, "deleted_at": now, "updated_at": now, "purged_at": None}
    gone = connection.execute(
        update(documents).where(which).values(**values, revision=documents.c.revision + 1).returning(documents.c.id)
    )
    ids = [row.id for row in gone]
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        connection.execute(delete(document_access).where(document_access.c.document_id.in_(part)))
        connection.execute(delete(indexed_documents).where(indexed_documents.c.document_id.in_(part)))
        dead_letters.discard_of_documents(connection, part)
    return ids


def unpurged(connection: Connection, source_id: str | None, collection_id: str | None, limit: int) -> list[Document]:
    """Deleted documents whose content is still there."""
    query = select(documents).where(documents.c.deleted_at.is_not(None), documents.c.purged_at.is_(None))
    if source_id is not None:
        query = query.where(documents.c.source_id == source_id)
    if collection_id is not None:
        query = query.where(documents.c.collection_id == collection_id)
    return [document_of(row) for row in connection.execute(query.limit(limit))]


def mark_purged(connection: Connection, document: Document) -> bool:
    """Leave only the tombstone: ids, version and times. False when the document came back meanwhile."""
    still = (documents.c.id == document.id) & (documents.c.revision == document.revision)
    blank: dict[str, Any] = {"title": "", "given_title": "", "file_name": "", "uri": None, "metadata": {}}
    blank |= {"media_type": None, "acl": None, "error": None}
    content: dict[str, Any] = {"version_tag": "", "content_hash": "", "blob_key": "", "size_bytes": 0}
    indexed: dict[str, Any] = {"indexed_version": None, "indexed_hash": None, "text_key": None, "chunk_count": 0}
    values = {**blank, **content, **indexed, "purged_at": utc_now(), "searchable_at": None}
    return bool(connection.execute(update(documents).where(still).values(**values)).rowcount)


def release(connection: Connection, source_id: str, acl: Acl) -> list[Document]:
    """Make uploads of a source's documents before it goes, with its default ACL where they have none; returns them.

    Deleted ones stay for their purge, and so does one whose external id an upload has. Raises Conflict.
    """
    of_source = and_(documents.c.source_id == source_id, documents.c.deleted_at.is_(None))
    newer = {"revision": documents.c.revision + 1}
    connection.execute(
        update(documents).where(of_source, documents.c.acl.is_(None)).values(acl=acl_to_json(acl), **newer)
    )
    upload = documents.alias()
    same = and_(*(upload.c[name] == documents.c[name] for name in ("collection_id", "external_id")))
    taken = select(upload.c.id).where(same, upload.c.source_id == NO_SOURCE).exists()
    ours = update(documents).where(of_source, ~taken)
    try:
        released = connection.execute(ours.values(source_id=NO_SOURCE, **newer).returning(*documents.c))
    except IntegrityError:
        raise Conflict("A document of the same id was uploaded at the same time. Try again.", code="busy") from None
    return [document_of(row) for row in released]


def inheriting(connection: Connection, source_id: str) -> list[Document]:
    """Live documents of a source that have no ACL of their own."""
    query = select(documents).where(
        documents.c.source_id == source_id, documents.c.acl.is_(None), documents.c.deleted_at.is_(None)
    )
    return [document_of(row) for row in connection.execute(query)]


def tokens(connection: Connection, document: Document) -> AccessTokens:
    """The document's tokens: of its own ACL, or of its source's default; nobody's when there is neither."""
    if document.acl is not None:
        return tokens_of(document.acl)
    row = connection.execute(_DEFAULT_ACL, {"source": document.source_id}).first()
    return tokens_of(Acl() if row is None else acl_from_json(row.acl))


def record(connection: Connection, document_id: str, version: int, kind: str, **detail: object) -> None:
    """Add a line to the document's history."""
    row = {"id": new_id("evt"), "document_id": document_id, "version": version, "kind": kind}
    connection.execute(insert(document_events), {**row, "detail": detail, "at": utc_now()})


def events(connection: Connection, document_id: str, *, limit: int, after: str | None) -> Page[DocumentEvent]:
    query = select(document_events).where(document_events.c.document_id == document_id)
    return fetch_page(connection, query, document_events, _event, limit=limit, after=after)


def count_by_status(connection: Connection, team_id: str | None = None, source_id: str | None = None) -> dict[str, int]:
    query = select(documents.c.status, func.count()).group_by(documents.c.status)
    if team_id is not None:
        query = query.where(documents.c.team_id == team_id)
    if source_id is not None:
        query = query.where(documents.c.source_id == source_id)
    return {status: int(count) for status, count in connection.execute(query)}


def _says(key: str, value: str) -> ColumnElement[bool]:
    """Metadata `key` is `value`: a string, a number written like it, or the word for a boolean."""
    if value in ("true", "false"):
        # SQLite reads JSON booleans as 1 and 0; the arrow leaves them as they are written, as Postgres does.
        written = cast(documents.c.metadata.op("->")(key), Text)
        return written.in_([value, f'"{value}"'])
    same: ColumnElement[bool] = documents.c.metadata[key].as_string() == value
    return same


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = dict(values)
    if isinstance(changed.get("error"), DocumentFailure):
        changed["error"] = asdict(changed["error"])
    if isinstance(changed.get("acl"), Acl):
        changed["acl"] = acl_to_json(changed["acl"])
    return changed


def _event(row: Row[Any]) -> DocumentEvent:
    return DocumentEvent(at=row.at, kind=row.kind, version=row.version, detail=row.detail)


def document_of(row: Row[Any], *, leave_out: str = "") -> Document:
    """Of a row of the table; `leave_out` names a column that was selected besides."""
    values = {name: value for name, value in row._mapping.items() if name not in ("purged_at", leave_out)}
    values["status"] = DocumentStatus(row.status)
    values["acl"] = None if row.acl is None else acl_from_json(row.acl)
    values["error"] = None if row.error is None else DocumentFailure(**row.error)
    return Document(**values)
