"""What each index version answers with, document by document, and the switch from one index version to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from rag_service.db.documents import Document, document_of
from rag_service.db.tables import chunks, collections, documents, index_versions, indexed_documents
from rag_service.types import (
    DocumentFailure,
    DocumentStatus,
    IndexState,
    IndexVersion,
    PageStart,
    ParsedDocument,
    utc_now,
)

# What a document's own row repeats of its row in the active index version.
_REPEATED = {
    "index_version": "index_version",
    "indexed_version": "version",
    "indexed_hash": "content_hash",
    "text_key": "text_key",
    "parser": "parser",
    "chunk_count": "chunk_count",
    "searchable_at": "searchable_at",
}
LEFT_OUT = "left_out"
_LEFT_OUT = DocumentFailure(
    stage="index",
    code=LEFT_OUT,
    message="It could not be built into the index version that answers now. Upload it again, or re-index it.",
    retryable=True,
)


def _row(index: str | BindParameter[str], document_id: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(indexed_documents.c.index_version == index, indexed_documents.c.document_id == document_id)


# Run for every document: made once.
_NOTED = update(indexed_documents).where(_row(bindparam("of"), bindparam("one")))
_HOLDING = select(index_versions.c.holding_until).where(index_versions.c.id == bindparam("index"))


def note(connection: Connection, index: IndexVersion, document_id: str, values: Mapping[str, Any]) -> None:
    """This is what `index` answers with for the document from here on."""
    row = {"error": None, **values}
    if not connection.execute(_NOTED, {**row, "of": index.id, "one": document_id}).rowcount:
        keys = {"index_version": index.id, "document_id": document_id}
        connection.execute(insert(indexed_documents), {**keys, **row})


def repeated(index: IndexVersion, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the document's own row says of these values, when `index` is the active one."""
    return {name: values[of] for name, of in _REPEATED.items() if of != "index_version"} | {"index_version": index.id}


def note_failed(connection: Connection, index: IndexVersion, document: Document, failure: DocumentFailure) -> None:
    """The version of the document that answers could not be built into `index`: nobody tries until there is another."""
    nothing = {"content_hash": None, "text_key": None, "outline": None, "parser": "", "searchable_at": None}
    counts = {"chunk_count": 0, "term_count": 0, "calibration": index.calibration}
    values = {**nothing, **counts, "version": document.indexed_version, "error": asdict(failure)}
    note(connection, index, document.id, values)


def unchanged(connection: Connection, document: Document) -> bool:
    """Whether the document is as it was read; if so it stays so until the transaction ends."""
    same = (documents.c.id == document.id) & (documents.c.revision == document.revision)
    held = update(documents).where(same, documents.c.deleted_at.is_(None)).values(revision=documents.c.revision)
    return bool(connection.execute(held).rowcount)


def version_in(connection: Connection, index: str, document_id: str) -> int | None:
    """The version of a document that an index version answers with, if any."""
    found = select(indexed_documents.c.version).where(_row(index, document_id), indexed_documents.c.error.is_(None))
    return connection.execute(found).scalar()


def kept_text(connection: Connection, document: Document) -> tuple[str, ParsedDocument] | None:
    """The key of the text that answers for a document, and what else its parser told (its own text is empty here).

    None where that was not kept: the bytes are to be parsed again.
    """
    mine = _row(document.index_version or "", document.id)
    row = connection.execute(select(indexed_documents).where(mine, indexed_documents.c.error.is_(None))).first()
    if row is None or row.outline is None or row.text_key is None or row.version != document.indexed_version:
        return None
    pages = tuple(PageStart(start, page) for start, page in row.outline["pages"])
    return row.text_key, ParsedDocument("", row.outline["title"], pages, row.outline["layout"], row.parser)


def outline_of(parsed: ParsedDocument) -> dict[str, Any]:
    """What `kept_text` makes a parsed document of, beside its text."""
    return {"title": parsed.title, "layout": parsed.layout, "pages": [[at.start, at.page] for at in parsed.pages]}


def answering(collection_id: str) -> ColumnElement[bool]:
    """The documents of a collection that answer with some version."""
    return and_(
        documents.c.collection_id == collection_id,
        documents.c.deleted_at.is_(None),
        documents.c.indexed_version.is_not(None),
    )


def select_outdated(index: IndexVersion, *columns: Any) -> Select[Any]:
    """Over the documents whose answering version `index` neither has nor has failed with."""
    mine = and_(indexed_documents.c.index_version == index.id, indexed_documents.c.document_id == documents.c.id)
    older = or_(indexed_documents.c.version.is_(None), indexed_documents.c.version != documents.c.indexed_version)
    pair = documents.outerjoin(indexed_documents, mine)
    return select(*columns).select_from(pair).where(answering(index.collection_id), older)


def outdated(connection: Connection, index: IndexVersion, limit: int) -> list[Document]:
    """Documents whose answering version `index` does not have yet, in order of id."""
    query = select_outdated(index, *documents.c).order_by(documents.c.id).limit(limit)
    return [document_of(row) for row in connection.execute(query)]


def behind(connection: Connection, index: IndexVersion) -> int:
    """How many documents answer with a version that `index` does not have and has not failed with."""
    return int(connection.execute(select_outdated(index, func.count())).scalar_one())


def average_length(connection: Connection, index: IndexVersion) -> float | None:
    """Terms per chunk over all that the index version answers with; None while that is nothing."""
    counts = (func.sum(indexed_documents.c.term_count), func.sum(indexed_documents.c.chunk_count))
    terms, made = connection.execute(_of(index, *counts)).one()
    return terms / made if terms else None


def encoded_before(connection: Connection, index: IndexVersion, limit: int) -> list[tuple[Document, int]]:
    """Documents whose lexical vectors are of another calibration than the index version's, with their version in it."""
    query = _of(index, *documents.c, indexed_documents.c.version.label("held")).where(
        indexed_documents.c.calibration != index.calibration, indexed_documents.c.error.is_(None)
    )
    found = []
    for row in connection.execute(query.limit(limit)):
        values = row._mapping
        found.append((document_of(row, leave_out="held"), int(values["held"])))
    return found


def note_encoded(connection: Connection, index: IndexVersion, document_id: str, version: int, term_count: int) -> None:
    """Its lexical vectors are of `index`'s calibration now; of no effect when another version answers meanwhile."""
    same = _row(index.id, document_id) & (indexed_documents.c.version == version)
    values = {"calibration": index.calibration, "term_count": term_count}
    connection.execute(update(indexed_documents).where(same).values(values))


def hold(connection: Connection, index: IndexVersion, until: datetime | None) -> None:
    """Commits to `index` wait until then; None: no longer."""
    connection.execute(update(index_versions).where(index_versions.c.id == index.id).values(holding_until=until))


def is_held(connection: Connection, index: IndexVersion) -> bool:
    held = connection.execute(_HOLDING, {"index": index.id}).scalar()
    return held is not None and held > utc_now()


def switch(connection: Connection, former: IndexVersion, target: IndexVersion, *, soak_s: float) -> bool:
    """Make `target` the active index version of its collection in place of `former`, which soaks for `soak_s` seconds.

    False, and nothing is done, when `former` is not the active one any more, or documents answer with versions that
    `target` does not have. Ready documents that could not be built into `target` fail; a switch back revives them.
    """
    collection = target.collection_id
    now = utc_now()
    # Whoever commits to either of them does so before this or after it.
    both = index_versions.c.id.in_([former.id, target.id])
    connection.execute(update(index_versions).where(both).values(holding_until=None))
    active = collections.c.active_index
    mine = (collections.c.id == collection) & (active == former.id)
    language = {"language": target.pipeline["language"]} if "language" in target.pipeline else {}
    if not connection.execute(update(collections).where(mine).values(active_index=active)).rowcount:
        return False
    if behind(connection, target):
        return False
    connection.execute(update(collections).where(mine).values(active_index=target.id, **language))
    _set(connection, former, state=IndexState.SOAKING, retire_at=now + timedelta(seconds=soak_s))
    _set(connection, target, state=IndexState.ACTIVE, activated_at=now, retire_at=None)
    _repeat(connection, collection, target)
    return True


def forget_others(connection: Connection) -> None:
    """Keep only what active index versions answer with: the others are built again, or are over."""
    others = select(index_versions.c.id).where(index_versions.c.state != IndexState.ACTIVE)
    connection.execute(delete(chunks).where(chunks.c.index_version.in_(others)))
    connection.execute(delete(indexed_documents).where(indexed_documents.c.index_version.in_(others)))
    under_way = index_versions.c.state.in_([IndexState.BUILDING, IndexState.CATCHING_UP, IndexState.READY])
    connection.execute(update(index_versions).where(under_way).values(state=IndexState.BUILDING))
    soaking = index_versions.c.state == IndexState.SOAKING
    connection.execute(update(index_versions).where(soaking).values(state=IndexState.RETIRED, retired_at=utc_now()))


def forget_document(connection: Connection, index: IndexVersion, document_id: str) -> None:
    """The index version answers with nothing of it, until it is built again."""
    connection.execute(delete(indexed_documents).where(_row(index.id, document_id)))


def forget_in_coming(connection: Connection, index: IndexVersion, document_id: str) -> None:
    """As if the versions on their way to replace `index` did not have the document: they build it once more."""
    coming = (IndexState.BUILDING, IndexState.CATCHING_UP, IndexState.READY)
    theirs = select(index_versions.c.id).where(
        index_versions.c.collection_id == index.collection_id, index_versions.c.state.in_(coming)
    )
    mine = and_(indexed_documents.c.document_id == document_id, indexed_documents.c.index_version.in_(theirs))
    connection.execute(delete(indexed_documents).where(mine))


def _of(index: IndexVersion, *columns: Any) -> Select[Any]:
    """Over the live documents that `index` holds."""
    pair = indexed_documents.join(documents, documents.c.id == indexed_documents.c.document_id)
    mine = indexed_documents.c.index_version == index.id
    return select(*columns).select_from(pair).where(mine, documents.c.deleted_at.is_(None))


def _set(connection: Connection, index: IndexVersion, **values: object) -> None:
    connection.execute(update(index_versions).where(index_versions.c.id == index.id).values(**values))


def _repeat(connection: Connection, collection_id: str, target: IndexVersion) -> None:
    """Bring the collection's documents up to what `target` answers with; whoever has read one looks at it again."""
    ours = and_(documents.c.collection_id == collection_id, documents.c.deleted_at.is_(None))
    held = and_(
        indexed_documents.c.index_version == target.id,
        indexed_documents.c.document_id == documents.c.id,
        indexed_documents.c.error.is_(None),
    )
    taken = {name: indexed_documents.c[of] for name, of in _REPEATED.items()}
    newer = {"revision": documents.c.revision + 1}
    connection.execute(update(documents).where(ours, held).values({**taken, **newer}))
    revived = and_(documents.c.status == DocumentStatus.FAILED, documents.c.error["code"].as_string() == LEFT_OUT)
    back = {"status": DocumentStatus.READY, "error": null()}
    connection.execute(update(documents).where(ours, documents.c.index_version == target.id, revived).values(back))
    lacking = and_(documents.c.indexed_version.is_not(None), documents.c.index_version != target.id)
    nothing = {"indexed_version": None, "text_key": None, "chunk_count": 0, "searchable_at": None}
    # What is on its way, or failed with a newer version, says so itself.
    failed = {"status": DocumentStatus.FAILED, "error": asdict(_LEFT_OUT)}
    connection.execute(
        update(documents).where(ours, lacking, documents.c.status == DocumentStatus.READY).values(failed)
    )
    connection.execute(update(documents).where(ours, lacking).values({**nothing, **newer}))
