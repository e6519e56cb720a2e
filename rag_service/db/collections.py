"""Collections and their index versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from rag_service.db import alarms, probes
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import collections, index_versions
from rag_service.errors import Conflict, NotFound
from rag_service.types import Collection, EmbedderIdentity, IndexState, IndexVersion, new_id, utc_now

DEFAULT = "default"
_NEVER = 0

IS_LIVE = index_versions.c.state.in_([state for state in IndexState if state.is_live])

# Run for every question or document: made once.
_NAMED = select(collections).where(
    collections.c.team_id == bindparam("team"),
    or_(collections.c.name == bindparam("name"), collections.c.id == bindparam("name")),
)
_ACTIVE = select(index_versions).where(
    index_versions.c.id
    == select(collections.c.active_index).where(collections.c.id == bindparam("collection")).scalar_subquery()
)
_LIVE = select(index_versions).where(index_versions.c.collection_id == bindparam("collection"), IS_LIVE)
_ONE = select(index_versions).where(index_versions.c.id == bindparam("index"))
_WRITTEN = (
    update(index_versions)
    .where(
        index_versions.c.id == bindparam("index"),
        index_versions.c.calibration == bindparam("calibrated"),
        or_(index_versions.c.holding_until.is_(None), index_versions.c.holding_until < bindparam("now")),
    )
    .values(chunks_written=index_versions.c.chunks_written + bindparam("more"))
    .returning(index_versions.c.chunks_written, index_versions.c.calibrate_at)
)


def create(connection: Connection, team_id: str, name: str, *, description: str, language: str) -> Collection:
    """Raises Conflict when the team has a collection of that name."""
    row = {
        "id": new_id("col"),
        "team_id": team_id,
        "name": name,
        "description": description,
        "language": language,
        "created_at": utc_now(),
    }
    try:
        return _collection(connection.execute(insert(collections).values(row).returning(*collections.c)).one())
    except IntegrityError:
        raise Conflict(
            f"There is a collection {name!r} already. Choose another name.", code="collection_exists"
        ) from None


def get(connection: Connection, team_id: str, name_or_id: str) -> Collection:
    """By name or by id. Raises NotFound, also for another team's."""
    row = connection.execute(_NAMED, {"team": team_id, "name": name_or_id}).first()
    if row is None:
        raise NotFound("There is no such collection in this team. `GET /v1/collections` lists them.")
    return _collection(row)


def page(connection: Connection, team_id: str, *, limit: int, after: str | None) -> Page[Collection]:
    query = select(collections).where(collections.c.team_id == team_id)
    return fetch_page(connection, query, collections, _collection, limit=limit, after=after)


def change(connection: Connection, collection_id: str, **values: object) -> None:
    """Set columns of a collection. Raises Conflict when a new name is taken."""
    try:
        connection.execute(update(collections).where(collections.c.id == collection_id).values(**values))
    except IntegrityError:
        raise Conflict(
            "There is a collection of that name already. Choose another.", code="collection_exists"
        ) from None


def remove(connection: Connection, collection_id: str) -> list[str]:
    """Forget the collection, its index versions and its probes; returns the names of the indexes to drop."""
    gone = connection.execute(
        delete(index_versions).where(index_versions.c.collection_id == collection_id).returning(index_versions.c.id)
    )
    indexes = [row.id for row in gone]
    probes.remove_all(connection, collection_id)
    alarms.forget(connection, collection_id)
    connection.execute(delete(collections).where(collections.c.id == collection_id))
    return indexes


def add_index(
    connection: Connection,
    collection_id: str,
    *,
    embedder: EmbedderIdentity,
    chunker: str,
    analyser: str,
    average_length: float,
    calibrate_at: int = 0,
    state: IndexState = IndexState.ACTIVE,
    pipeline: Mapping[str, Any] | None = None,
    **more: object,
) -> IndexVersion:
    """Record a new index version, by default as the active one; it is measured after `calibrate_at` chunks."""
    numbers = select(func.max(index_versions.c.number)).where(index_versions.c.collection_id == collection_id)
    row = {
        "id": new_id("idx"),
        "collection_id": collection_id,
        "number": (connection.execute(numbers).scalar() or 0) + 1,
        "state": state,
        "pipeline": dict(pipeline or {}),
        "embedding_model": embedder.name,
        "embedding_revision": embedder.revision,
        "dimensions": embedder.dimensions,
        "chunker": chunker,
        "analyser": analyser,
        "average_length": average_length,
        "calibrate_at": calibrate_at,
        "created_at": utc_now(),
        **more,
    }
    made = index_of(connection.execute(insert(index_versions).values(row).returning(*index_versions.c)).one())
    if state == IndexState.ACTIVE:
        change(connection, collection_id, active_index=made.id)
    return made


def index_version(connection: Connection, index: str) -> IndexVersion:
    """Raises NotFound when it is gone."""
    row = connection.execute(_ONE, {"index": index}).first()
    if row is None:
        raise NotFound("This index version is gone.")
    return index_of(row)


def note_written(connection: Connection, index: IndexVersion, chunk_count: int) -> tuple[int, int] | None:
    """Count chunks written under the calibration that `index` has; None when it has another one by now, or is held.

    Returns how many have ever been written, and at how many the average length is to be measured (0: never). Holds
    the row until the transaction ends: a change of calibration waits for what is written under the former one.
    """
    given = {"index": index.id, "calibrated": index.calibration, "now": utc_now(), "more": chunk_count}
    row = connection.execute(_WRITTEN, given).first()
    return None if row is None else (row.chunks_written, row.calibrate_at)


def calibrate_at(connection: Connection, index: str, chunks_written: int) -> None:
    connection.execute(update(index_versions).where(index_versions.c.id == index).values(calibrate_at=chunks_written))


def settle(connection: Connection, index: IndexVersion) -> None:
    """From here on the average length stays as it is."""
    calibrate_at(connection, index.id, _NEVER)


def recalibrate(connection: Connection, index: IndexVersion, *, analyser: str, average_length: float) -> None:
    """Every document written from here on is encoded so; of no effect when somebody else was first."""
    same = (index_versions.c.id == index.id) & (index_versions.c.calibration == index.calibration)
    values = {"analyser": analyser, "average_length": average_length, "calibration": index.calibration + 1}
    connection.execute(update(index_versions).where(same).values(values))


def team_of(connection: Connection, index: IndexVersion) -> str:
    """Raises NotFound when the collection is gone."""
    team = connection.execute(select(collections.c.team_id).where(collections.c.id == index.collection_id)).scalar()
    if team is None:
        raise NotFound("The collection of this index is gone.")
    return str(team)


def active_index(connection: Connection, collection_id: str) -> IndexVersion:
    """Raises NotFound when the collection is gone."""
    row = connection.execute(_ACTIVE, {"collection": collection_id}).first()
    if row is None:
        raise NotFound("The collection of this document is gone.")
    return index_of(row)


def active_indexes(connection: Connection, team_id: str, names: Sequence[str]) -> list[tuple[Collection, IndexVersion]]:
    """The named collections (by name or id) with their active index version, in the order named.

    Raises NotFound for the first that the team does not have.
    """
    pairs = []
    for name in dict.fromkeys(names):
        collection = get(connection, team_id, name)
        pairs.append((collection, active_index(connection, collection.id)))
    return pairs


def all_active(connection: Connection) -> list[IndexVersion]:
    """Every active index version of every team: what a start checks its model against."""
    query = select(index_versions).join(collections, collections.c.active_index == index_versions.c.id)
    return [index_of(row) for row in connection.execute(query)]


def all_active_by_team(connection: Connection) -> list[tuple[IndexVersion, str]]:
    """Every active index version with the team whose collection it is of."""
    pair = index_versions.join(collections, collections.c.active_index == index_versions.c.id)
    query = select(index_versions, collections.c.team_id.label("team")).select_from(pair)
    return [(index_of(row), str(row.team)) for row in connection.execute(query)]


def live_indexes(connection: Connection, collection_id: str) -> list[IndexVersion]:
    """Those of a collection that changes of its documents must reach, the active one first."""
    found = [index_of(row) for row in connection.execute(_LIVE, {"collection": collection_id})]
    return sorted(found, key=lambda index: (index.state != IndexState.ACTIVE, index.id))


def all_live(connection: Connection) -> list[IndexVersion]:
    """The same of every collection of every team."""
    return [index_of(row) for row in connection.execute(select(index_versions).where(IS_LIVE))]


def all_indexes(connection: Connection, collection_id: str) -> list[str]:
    """The names of all indexes of a collection whose files may be there."""
    query = select(index_versions.c.id).where(
        index_versions.c.collection_id == collection_id, index_versions.c.retired_at.is_(None)
    )
    return list(connection.execute(query).scalars())


def named_index(connection: Connection, team_id: str, index: str) -> tuple[Collection, IndexVersion]:
    """An index version of a team with its collection. Raises NotFound, also for another team's."""
    query = select(index_versions).join(collections, collections.c.id == index_versions.c.collection_id)
    row = connection.execute(query.where(index_versions.c.id == index, collections.c.team_id == team_id)).first()
    if row is None:
        raise NotFound("There is no such index version in this team.")
    return get(connection, team_id, row.collection_id), index_of(row)


def live_index(connection: Connection, team_id: str, index: str) -> IndexVersion | None:
    """An index version of a team that can be asked; None where there is no such."""
    query = select(index_versions).join(collections, collections.c.id == index_versions.c.collection_id)
    mine = (index_versions.c.id == index) & (collections.c.team_id == team_id)
    row = connection.execute(query.where(mine, IS_LIVE)).first()
    return None if row is None else index_of(row)


def wished_storage(connection: Connection) -> dict[str, dict[str, Any]]:
    """By live index, what its collection wishes of a server that keeps vectors."""
    pair = index_versions.join(collections, collections.c.id == index_versions.c.collection_id)
    query = select(index_versions.c.id, collections.c.storage).select_from(pair).where(IS_LIVE)
    return {row.id: row.storage for row in connection.execute(query)}


def _collection(row: Row[Any]) -> Collection:
    return Collection(
        id=row.id,
        team_id=row.team_id,
        name=row.name,
        description=row.description,
        language=row.language,
        created_at=row.created_at,
        active_index=row.active_index,
        retrieval=row.retrieval,
        storage=row.storage,
    )


def index_of(row: Row[Any]) -> IndexVersion:
    return IndexVersion(
        id=row.id,
        collection_id=row.collection_id,
        number=row.number,
        state=IndexState(row.state),
        pipeline=row.pipeline,
        embedder=EmbedderIdentity(row.embedding_model, row.embedding_revision, row.dimensions),
        chunker=row.chunker,
        analyser=row.analyser,
        average_length=row.average_length,
        calibration=row.calibration,
        settled=row.calibrate_at == _NEVER,
        created_at=row.created_at,
    )
