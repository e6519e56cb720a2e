"""Teams and their keys. A key is stored as its SHA-256: 256 random bits need no slow hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import keys, teams
from rag_service.errors import Conflict, NotFound
from rag_service.types import ApiKey, Team, new_id, utc_now

# Whoever makes a team may choose its id.
_ID = re.compile(r"[a-z0-9][a-z0-9-]*")
# Asked by every request: made once.
_TEAM = select(teams).where(teams.c.id == bindparam("team"))
_KEY = select(keys).where(keys.c.hash == bindparam("hash"))


def create(connection: Connection, team_id: str, name: str) -> Team:
    """Raises Conflict when the id is taken."""
    team = Team(team_id, name, utc_now())
    try:
        connection.execute(insert(teams).values(id=team.id, name=team.name, created_at=team.created_at))
    except IntegrityError:
        raise Conflict(f"There is a team {team_id!r} already. Choose another id.", code="team_exists") from None
    return team


def get(connection: Connection, team_id: str) -> Team:
    """Raises NotFound."""
    row = connection.execute(_TEAM, {"team": team_id}).first()
    if row is None:
        raise NotFound("There is no such team. `GET /v1/teams` lists the teams.")
    return _team(row)


def page(connection: Connection, *, limit: int, after: str | None) -> Page[Team]:
    return fetch_page(connection, select(teams), teams, _team, limit=limit, after=after, ids=_ID)


def add_key(
    connection: Connection,
    secret: str,
    *,
    team_id: str | None,
    name: str,
    scopes: Sequence[str],
    user: str | None = None,
    groups: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    row = {
        "id": new_id("key"),
        "team_id": team_id,
        "name": name,
        "prefix": secret[:10],
        "hash": key_hash(secret),
        "scopes": list(scopes),
        "user": user,
        "groups": None if groups is None else list(groups),
        "created_at": utc_now(),
        "expires_at": expires_at,
    }
    stored = connection.execute(insert(keys).values(row).returning(*keys.c)).one()
    return _key(stored)


def find_key(connection: Connection, secret: str) -> ApiKey | None:
    """The key with this secret, also when it is expired or revoked."""
    row = connection.execute(_KEY, {"hash": key_hash(secret)}).first()
    return None if row is None else _key(row)


def page_of_keys(connection: Connection, team_id: str, *, limit: int, after: str | None) -> Page[ApiKey]:
    return fetch_page(connection, select(keys).where(keys.c.team_id == team_id), keys, _key, limit=limit, after=after)


def revoke_key(connection: Connection, team_id: str, key_id: str) -> ApiKey:
    """Idempotent: a revoked key stays as it is. Raises NotFound."""
    mine = (keys.c.id == key_id) & (keys.c.team_id == team_id)
    connection.execute(update(keys).where(mine, keys.c.revoked_at.is_(None)).values(revoked_at=utc_now()))
    row = connection.execute(select(keys).where(mine)).first()
    if row is None:
        raise NotFound("There is no such key in this team.")
    return _key(row)


def key_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _team(row: Row[Any]) -> Team:
    return Team(id=row.id, name=row.name, created_at=row.created_at)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        team_id=row.team_id,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        user=row.user,
        groups=None if row.groups is None else tuple(row.groups),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
