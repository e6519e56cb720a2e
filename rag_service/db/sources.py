"""Sources: configured places to read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Text, and_, bindparam, cast, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from connectors.base import Acl
from rag_service.db import dead_letters
from rag_service.db.acls import acl_from_json, acl_to_json
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import jobs, sources
from rag_service.errors import Conflict, NotFound
from rag_service.types import new_id, utc_now

_NONE = "There is no such source in this team. `GET /v1/sources` lists them."
_HAS_SECRETS = cast(sources.c.secrets, Text) != "{}"
_THIS_LISTING = and_(sources.c.id == bindparam("source"), sources.c.listing == bindparam("number"))
_LISTED = select(sources).where(_THIS_LISTING, sources.c.paused.is_(False)).with_for_update(read=True)


@dataclass(frozen=True, slots=True)
class Source:
    """`config` is without its secrets; `secrets` are their envelopes, by field."""

    id: str
    team_id: str
    collection_id: str
    name: str
    type: str
    config: Mapping[str, Any]
    secrets: Mapping[str, Mapping[str, str]]
    acl: Acl
    schedule_s: int | None
    max_deleted_percent: float
    paused: bool
    cursor: Mapping[str, Any] | None
    listing: int
    held_deletions: int
    last_error: Mapping[str, Any] | None
    last_success_at: datetime | None
    next_run_at: datetime | None
    created_at: datetime


def create(
    connection: Connection,
    *,
    team_id: str,
    collection_id: str,
    name: str,
    source_type: str,
    config: Mapping[str, Any],
    acl: Acl,
    schedule_s: int | None,
    max_deleted_percent: float,
) -> Source:
    """Raises Conflict when the team has a source of that name."""
    now = utc_now()
    row = {
        "id": new_id("src"),
        "team_id": team_id,
        "collection_id": collection_id,
        "name": name,
        "type": source_type,
        "config": dict(config),
        "acl": acl_to_json(acl),
        "schedule_s": schedule_s,
        "max_deleted_percent": max_deleted_percent,
        "next_run_at": now if schedule_s else None,
        "created_at": now,
    }
    try:
        return _source(connection.execute(insert(sources).values(row).returning(*sources.c)).one())
    except IntegrityError:
        raise Conflict(f"There is a source {name!r} already. Choose another name.", code="source_exists") from None


class ListingOverError(Exception):
    """What a sync has listed is not for this source any more: it stops before it writes another document."""


def get(connection: Connection, team_id: str, source_id: str, *, held: bool = False) -> Source:
    """Raises NotFound, also for another team's. `held`: nobody changes it and no sync writes until the commit."""
    query = select(sources).where(sources.c.id == source_id, sources.c.team_id == team_id)
    row = connection.execute(query.with_for_update() if held else query).first()
    if row is None:
        raise NotFound(_NONE)
    return _source(row)


def check_known(connection: Connection, team_id: str | None, source_id: str | None) -> None:
    """Raises NotFound for what is no source of this team (None: of any), and never was: one that is gone left jobs.

    "" is known, which stands for uploads, and so is None, which names none.
    """
    if not source_id:
        return
    for table, column in ((sources, sources.c.id), (jobs, jobs.c.source_id)):
        named = select(column).where(column == source_id).limit(1)
        mine = named if team_id is None else named.where(table.c.team_id == team_id)
        if connection.execute(mine).first() is not None:
            return
    raise NotFound(_NONE)


def being_listed(connection: Connection, source_id: str, listing: int) -> Source:
    """The source that documents of a listing are about to be written for: it stays as it is until the commit.

    Raises ListingOverError once it is gone, paused, or listed anew.
    """
    row = connection.execute(_LISTED, {"source": source_id, "number": listing}).first()
    if row is None:
        raise ListingOverError(source_id)
    return _source(row)


def page(connection: Connection, team_id: str, *, limit: int, after: str | None) -> Page[Source]:
    query = select(sources).where(sources.c.team_id == team_id)
    return fetch_page(connection, query, sources, _source, limit=limit, after=after)


def change(connection: Connection, source_id: str, **values: Any) -> None:
    """Set columns of a source. Raises Conflict when a new name is taken."""
    if isinstance(values.get("acl"), Acl):
        values["acl"] = acl_to_json(values["acl"])
    try:
        connection.execute(update(sources).where(sources.c.id == source_id).values(**values))
    except IntegrityError:
        raise Conflict("There is a source of that name already. Choose another.", code="source_exists") from None


def begin_listing(connection: Connection, source_id: str) -> int:
    """Start a new full listing; returns its number. Documents it sees will carry it. A former one is over."""
    number = connection.execute(
        update(sources)
        .where(sources.c.id == source_id)
        .values(listing=sources.c.listing + 1, cursor=None)
        .returning(sources.c.listing)
    ).scalar_one()
    return int(number)


def remove(connection: Connection, source_id: str) -> None:
    dead_letters.supersede_syncs(connection, source_id)
    connection.execute(delete(sources).where(sources.c.id == source_id))


def of_collection(connection: Connection, collection_id: str) -> list[Source]:
    return [_source(row) for row in connection.execute(select(sources).where(sources.c.collection_id == collection_id))]


def all_secrets(connection: Connection) -> list[Mapping[str, Mapping[str, str]]]:
    """The envelopes of every source that keeps credentials, by field."""
    return list(connection.execute(select(sources.c.secrets).where(_HAS_SECRETS)).scalars())


def with_secrets(connection: Connection, *, after: str, limit: int) -> list[Source]:
    """Sources that keep credentials, in order of their ids; nobody else changes them until the commit."""
    query = select(sources).where(_HAS_SECRETS, sources.c.id > after).order_by(sources.c.id).limit(limit)
    return [_source(row) for row in connection.execute(query.with_for_update())]


def take_due(connection: Connection) -> list[Source]:
    """Sources whose schedule says now; each is given its next time, so that no two callers get it."""
    now = utc_now()
    due = connection.execute(
        select(sources).where(
            sources.c.next_run_at <= now, sources.c.paused.is_(False), sources.c.schedule_s.is_not(None)
        )
    ).all()
    taken = []
    for row in due:
        mine = (sources.c.id == row.id) & (sources.c.next_run_at == row.next_run_at)
        later = now + timedelta(seconds=row.schedule_s)
        if connection.execute(update(sources).where(mine).values(next_run_at=later)).rowcount:
            taken.append(_source(row))
    return taken


def _source(row: Row[Any]) -> Source:
    return Source(
        id=row.id,
        team_id=row.team_id,
        collection_id=row.collection_id,
        name=row.name,
        type=row.type,
        config=row.config,
        secrets=row.secrets,
        acl=acl_from_json(row.acl),
        schedule_s=row.schedule_s,
        max_deleted_percent=row.max_deleted_percent,
        paused=row.paused,
        cursor=row.cursor,
        listing=row.listing,
        held_deletions=row.held_deletions,
        last_error=row.last_error,
        last_success_at=row.last_success_at,
        next_run_at=row.next_run_at,
        created_at=row.created_at,
    )
