"""Index versions as they come about and go: how far each is, how it is built, how long it stays."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, or_, select, update

from rag_service.db.collections import IS_LIVE, index_of
from rag_service.db.documents import Document, document_of
from rag_service.db.indexed import answering, select_outdated
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import chunks, collections, documents, index_versions, indexed_documents, jobs
from rag_service.errors import NotFound
from rag_service.types import DocumentFailure, IndexState, IndexVersion, JobKind, JobState, utc_now

UNKNOWN = "There is no such index version in this team. `GET /v1/admin/index-versions` lists them."

UNDER_WAY = (IndexState.BUILDING, IndexState.CATCHING_UP)
# In which building may stop and go on.
WRITTEN_TO = (*UNDER_WAY, IndexState.READY, IndexState.SOAKING)
_OVER = (IndexState.RETIRED, IndexState.FAILED)


@dataclass(frozen=True, slots=True)
class Build:
    """An index version of a team's collection with all that its administrator is told.

    `progress` holds what the builder measured of its own pace; `quality` the newest comparison. `retired_at` says when
    its files went.
    """

    index: IndexVersion
    team_id: str
    collection: str
    note: str
    paused: bool
    priority: str
    max_concurrency: int
    progress: Mapping[str, Any]
    quality: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    built_at: datetime | None
    activated_at: datetime | None
    retire_at: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """What an index version answers with."""

    documents: int = 0
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """Of the collection's documents, with the chunks that they have in the active index version: all, and those that
    the index version has still to build."""

    documents: int
    chunks: int
    waiting: int
    waiting_chunks: int


_ALL = (
    select(index_versions, collections.c.team_id, collections.c.name.label("collection"))
    .select_from(index_versions.join(collections, collections.c.id == index_versions.c.collection_id))
    .order_by(None)
)
# Asked for every document: made once.
_OTHERS = select(index_versions.c.id).where(
    index_versions.c.collection_id == bindparam("collection"),
    index_versions.c.id != bindparam("one"),
    IS_LIVE,
    index_versions.c.paused.is_(False),
)


def get(connection: Connection, team_id: str, index: str) -> Build:
    """Raises NotFound, also for another team's."""
    found = find(connection, index)
    if found is None or found.team_id != team_id:
        raise NotFound(UNKNOWN)
    return found


def find(connection: Connection, index: str) -> Build | None:
    row = connection.execute(_ALL.where(index_versions.c.id == index)).first()
    return None if row is None else _build(row)


def page(
    connection: Connection,
    team_id: str,
    *,
    collection_id: str | None,
    state: IndexState | None,
    limit: int,
    after: str | None,
) -> Page[Build]:
    """A team's, newest first."""
    query = _ALL.where(collections.c.team_id == team_id)
    if collection_id is not None:
        query = query.where(index_versions.c.collection_id == collection_id)
    if state is not None:
        query = query.where(index_versions.c.state == state)
    return fetch_page(connection, query, index_versions, _build, limit=limit, after=after)


def change(connection: Connection, index: str, states: Several[IndexState], **values: object) -> bool:
    """Set columns of an index version if it is in one of these states; says whether it was."""
    mine = and_(index_versions.c.id == index, index_versions.c.state.in_(list(states)))
    return bool(connection.execute(update(index_versions).where(mine).values(**values)).rowcount)


def to_look_at(connection: Connection) -> list[Build]:
    """Neither answering nor gone, nor paused before their time is over: a builder may have something to do for them."""
    row = index_versions.c
    coming = and_(IS_LIVE, row.state != IndexState.ACTIVE, row.paused.is_(False))
    due = and_(row.state == IndexState.SOAKING, row.retire_at <= utc_now())
    going = and_(row.state.in_(_OVER), row.retired_at.is_(None))
    return [_build(one) for one in connection.execute(_ALL.where(or_(coming, due, going)).order_by(row.id))]


def is_at_work(connection: Connection, index: str) -> bool:
    """Whether a job that is to build it is not over yet."""
    mine = and_(jobs.c.kind == JobKind.BUILD, jobs.c.payload["index"].as_string() == index)
    waiting = jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
    return connection.execute(select(jobs.c.id).where(waiting, mine).limit(1)).first() is not None


def others(connection: Connection, index: IndexVersion) -> list[str]:
    """The other index versions of its collection that are to get what is written, but for those that are paused."""
    return list(connection.execute(_OTHERS, {"collection": index.collection_id, "one": index.id}).scalars())


def held(connection: Connection, indexes: Sequence[str]) -> dict[str, Held]:
    """By index version, what it answers with."""
    row = indexed_documents.c
    query = (
        select(row.index_version, func.count().label("documents"), func.sum(row.chunk_count).label("chunks"))
        .where(row.index_version.in_(list(indexes)), row.error.is_(None))
        .group_by(row.index_version)
    )
    found = {one.index_version: Held(int(one.documents), int(one.chunks)) for one in connection.execute(query)}
    return {index: found.get(index, Held()) for index in indexes}


def left(connection: Connection, index: IndexVersion) -> Left:
    """What there is to build, and what of it is still to be done."""
    counts = (func.count(), func.coalesce(func.sum(documents.c.chunk_count), 0))
    everything = connection.execute(select(*counts).where(answering(index.collection_id))).one()
    waiting = connection.execute(select_outdated(index, *counts)).one()
    return Left(*(int(count) for count in (*everything, *waiting)))


def failures(connection: Connection, index: str, limit: int) -> tuple[int, list[tuple[str, DocumentFailure]]]:
    """How many documents could not be built, and why the first of them could not."""
    row = indexed_documents.c
    mine = and_(row.index_version == index, row.error.is_not(None))
    count = connection.execute(select(func.count()).select_from(indexed_documents).where(mine)).scalar_one()
    if not count:
        return 0, []
    first = connection.execute(select(row.document_id, row.error).where(mine).order_by(row.document_id).limit(limit))
    return int(count), [(one.document_id, DocumentFailure(**one.error)) for one in first]


def forget_failures(connection: Connection, index: str) -> None:
    """What could not be built is to be tried once more."""
    row = indexed_documents.c
    mine = and_(row.index_version == index, row.error.is_not(None))
    connection.execute(delete(indexed_documents).where(mine))


def lost_documents(connection: Connection, target: IndexVersion) -> int:
    """Documents that answer now and could not be built into `target`: a switch would take them out of all answers."""
    mine = and_(indexed_documents.c.index_version == target.id, indexed_documents.c.document_id == documents.c.id)
    pair = documents.join(indexed_documents, mine)
    here = and_(documents.c.deleted_at.is_(None), documents.c.indexed_version.is_not(None))
    query = select(func.count()).select_from(pair).where(here, indexed_documents.c.error.is_not(None))
    return int(connection.execute(query).scalar_one())


def former(connection: Connection, collection_id: str) -> IndexVersion | None:
    """The one that answered last before the active one and is still kept up to date."""
    query = select(index_versions).where(
        index_versions.c.collection_id == collection_id, index_versions.c.state == IndexState.SOAKING
    )
    newest = query.order_by(index_versions.c.retire_at.desc(), index_versions.c.id.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else index_of(row)


def count_live(connection: Connection, collection_id: str) -> int:
    query = select(func.count()).select_from(index_versions)
    return int(connection.execute(query.where(index_versions.c.collection_id == collection_id, IS_LIVE)).scalar_one())


def forget_some(connection: Connection, index: str, limit: int) -> int:
    """Delete up to `limit` chunks of an index version that is over, and then what it answered with."""
    some = select(chunks.c.id).where(chunks.c.index_version == index).limit(limit)
    gone = connection.execute(delete(chunks).where(chunks.c.id.in_(some))).rowcount
    if gone < limit:
        connection.execute(delete(indexed_documents).where(indexed_documents.c.index_version == index))
    return int(gone)


def give_up(connection: Connection, index: str, error: Mapping[str, Any]) -> None:
    """Its job is a dead letter. What may pass is waited for until somebody resumes it; else the build has failed.

    One that was built already is not thrown away for what it cannot be brought up to: it waits too.
    """
    if error.get("retryable") or not change(connection, index, UNDER_WAY, state=IndexState.FAILED, error=dict(error)):
        change(connection, index, WRITTEN_TO, paused=True, error=dict(error))


def resume(connection: Connection, index: str) -> bool:
    """Let building go on, whoever or whatever stopped it. False where it answers, or is over."""
    return change(connection, index, WRITTEN_TO, paused=False, error=None)


def measured(connection: Connection) -> dict[tuple[str, str], Mapping[str, Any]]:
    """By model and chunker, what the newest build of that kind measured of its pace."""
    query = select(index_versions).where(index_versions.c.built_at.is_not(None)).order_by(index_versions.c.id)
    found = [(index_of(row), row.progress) for row in connection.execute(query)]
    return {(str(index.embedder), index.chunker): progress for index, progress in found}


def sampled(connection: Connection, collection_id: str, limit: int) -> list[Document]:
    """Some documents that answer, spread over the collection."""
    here = select(documents.c.id).where(answering(collection_id))
    ids = list(connection.execute(here.order_by(documents.c.id)).scalars())
    chosen = ids[:: max(1, len(ids) // limit)][:limit]
    return [document_of(row) for row in connection.execute(select(documents).where(documents.c.id.in_(chosen)))]


def now_past(moment: datetime | None) -> bool:
    return moment is not None and moment <= utc_now()


def _build(row: Row[Any]) -> Build:
    return Build(
        index=index_of(row),
        team_id=row.team_id,
        collection=row.collection,
        note=row.note,
        paused=row.paused,
        priority=row.priority,
        max_concurrency=row.max_concurrency,
        progress=row.progress,
        quality=row.quality,
        error=row.error,
        built_at=row.built_at,
        activated_at=row.activated_at,
        retire_at=row.retire_at,
        retired_at=row.retired_at,
    )
