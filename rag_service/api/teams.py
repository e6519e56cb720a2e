"""Teams and their keys."""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag_service.api.auth import Administrator, AnyKey, Caller, KeyScope
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Moment, Name, PersonName, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import teams
from rag_service.errors import InvalidRequest, NotFound, NotPermitted
from rag_service.types import ApiKey, Team, new_id, utc_now

router = APIRouter(prefix="/v1/teams", tags=["teams"], route_class=StrictRoute)

_LONGEST_ID = 63
TeamId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class TeamIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Human Resources"}]})

    id: TeamId | None = Field(None, description="Small letters, digits and hyphens; made from the name when not given.")
    name: Name


class TeamRecord(BaseModel):
    id: str
    name: str
    created_at: datetime

    @classmethod
    def of(cls, team: Team) -> TeamRecord:
        return cls(id=team.id, name=team.name, created_at=team.created_at)


class KeyIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "the intranet's search box", "scopes": ["query", "impersonate"]},
                {"name": "Ada's notebook", "scopes": ["query"], "user": "ada@example.com", "groups": ["hr"]},
            ]
        }
    )

    name: Name
    scopes: list[KeyScope] = Field(min_length=1, max_length=5)
    user: PersonName | None = Field(None, description="The one person as whom this key asks.")
    groups: list[PersonName] | None = Field(None, max_length=1_000, description="The groups of that person.")
    expires_at: Moment | None = None


class KeyRecord(BaseModel):
    """A key without its secret; `prefix` is how the secret begins."""

    id: str
    team_id: str | None
    name: str
    prefix: str
    scopes: list[str]
    user: str | None
    groups: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> KeyRecord:
        return cls(
            id=key.id,
            team_id=key.team_id,
            name=key.name,
            prefix=key.prefix,
            scopes=list(key.scopes),
            user=key.user,
            groups=None if key.groups is None else list(key.groups),
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
        )


class NewKey(KeyRecord):
    key: str = Field(description="The secret. It is shown here and never again.", examples=["rag_Zt9k..."])


@router.post("", status_code=201)
def create_team(service: Service, _: Administrator, team: TeamIn) -> TeamRecord:
    """Make a team; it starts with the collection `default`. Needs an admin key."""
    return TeamRecord.of(service.catalogue.create_team(team.id or _slug(team.name), team.name))


@router.get("")
def list_teams(service: Service, _: Administrator, limit: Limit = 50, after: After = None) -> Listing[TeamRecord]:
    """List the teams. Needs an admin key."""
    with service.database.read() as connection:
        return Listing[TeamRecord].of(teams.page(connection, limit=limit, after=after), TeamRecord.of)


@router.post("/{team_id}/keys", status_code=201)
def create_key(service: Service, caller: AnyKey, team_id: Id, key: KeyIn) -> NewKey:
    """Make a key of a team. Needs an admin key, or a `manage` key of that team; only an admin key gives `admin`."""
    _check_manages(caller, team_id)
    if "admin" in key.scopes and not caller.administrator:
        raise NotPermitted("Only an admin key of the service gives the scope admin.")
    if key.expires_at is not None and key.expires_at <= utc_now():
        raise InvalidRequest("expires_at lies in the past. Give a later time, or leave it out.")
    secret = f"rag_{secrets.token_urlsafe(32)}"
    with service.database.transaction() as transaction:
        teams.get(transaction.connection, team_id)
        stored = teams.add_key(
            transaction.connection,
            secret,
            team_id=team_id,
            name=key.name,
            scopes=list(dict.fromkeys(key.scopes)),
            user=key.user,
            groups=key.groups,
            expires_at=key.expires_at,
        )
        transaction.audit("key.created", stored.id, team=team_id, after=_rights(stored))
    return NewKey(**KeyRecord.of(stored).model_dump(), key=secret)


@router.get("/{team_id}/keys")
def list_keys(
    service: Service, caller: AnyKey, team_id: Id, limit: Limit = 50, after: After = None
) -> Listing[KeyRecord]:
    """List the keys of a team, revoked ones too."""
    _check_manages(caller, team_id)
    with service.database.read() as connection:
        teams.get(connection, team_id)
        return Listing[KeyRecord].of(teams.page_of_keys(connection, team_id, limit=limit, after=after), KeyRecord.of)


@router.delete("/{team_id}/keys/{key_id}")
def revoke_key(service: Service, caller: AnyKey, team_id: Id, key_id: Id) -> KeyRecord:
    """Revoke a key; it is refused from the next request on."""
    _check_manages(caller, team_id)
    with service.database.transaction() as transaction:
        teams.get(transaction.connection, team_id)
        key = teams.revoke_key(transaction.connection, team_id, key_id)
        transaction.audit("key.revoked", key.id, team=team_id, before=_rights(key))
        return KeyRecord.of(key)


def _rights(key: ApiKey) -> dict[str, Any]:
    """What a key may do, for the audit log."""
    shown = KeyRecord.of(key).model_dump(mode="json")
    return {name: shown[name] for name in ("name", "scopes", "user", "groups", "expires_at")}


def _check_manages(caller: Caller, team_id: str) -> None:
    """Another team looks like none at all."""
    if caller.administrator:
        return
    if caller.team != team_id:
        raise NotFound("There is no such team. `GET /v1/teams` lists the teams.")
    if "manage" not in caller.scopes:
        raise NotPermitted("This needs a key with the scope manage.")


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_ID].strip("-") or new_id("team").replace("_", "-")
