"""Webhooks: addresses that are told when something happens, with messages signed as Standard Webhooks says.

A team's managers keep the team's. Those of all teams are kept by admin keys of the service.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints

from rag_service.api.auth import Caller, any_key, require
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Moment, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, Transaction, deliveries, webhooks
from rag_service.db.deliveries import Delivery
from rag_service.db.outbox import ALL_TEAMS
from rag_service.db.webhooks import Webhook
from rag_service.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from rag_service.runtime import Runtime
from rag_service.types import EventType
from rag_service.webhooks.addresses import MOST_URL, is_refused_literal, parsed
from rag_service.webhooks.post import DELIVERED

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)

_MOST = 50
_DAY_S = 86_400


def _checked(url: str) -> str:
    parsed(url)
    return url


Url: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=MOST_URL), AfterValidator(_checked)]
Events: TypeAlias = Annotated[
    list[EventType],
    Field(min_length=1, max_length=len(EventType)),
    AfterValidator(lambda events: list(dict.fromkeys(events))),
]
Description: TypeAlias = Annotated[str, StringConstraints(max_length=500)]


async def _keeper(request: Request) -> Caller:
    """A dependency: who manages a team, or an administrator, who need not name one."""
    who = await any_key(request)
    return who if who.administrator else await require("manage")(request)


Keeper: TypeAlias = Annotated[Caller, Depends(_keeper)]


class WebhookIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://hooks.example/rag", "events": ["document.failed", "source.degraded"]}]
        }
    )

    url: Url = Field(description="Where messages are posted. Redirects are not followed.")
    events: Events
    description: Description = ""
    all_teams: StrictBool = Field(False, description="The events of all teams; takes an admin key of the service.")


class WebhookChange(Model):
    """What is not given stays. Enabling it takes up again what it was not told."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: StrictBool | None = None


class RotateIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: Annotated[StrictInt, Field(ge=0, le=7 * _DAY_S)] = Field(
        _DAY_S, description="Seconds for which messages are signed with the former secret as well."
    )


class RecoverIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"since": "2026-01-31T12:00:00Z"}]})

    since: Moment
    delivered: StrictBool = Field(False, description="Those too that it has accepted already.")


class WebhookRecord(BaseModel):
    """`disabled_reason`: failing (it accepted nothing for a day), gone (it answered 410) or manual."""

    id: str
    url: str
    events: list[EventType]
    description: str
    all_teams: bool
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    secrets: int = Field(description="How many secrets sign at the moment, counting one that is being replaced.")
    created_at: datetime


class NewWebhook(WebhookRecord):
    secret: str = Field(description="Verifies signatures. It is shown this once.")


class NewSecret(BaseModel):
    secret: str = Field(description="Verifies signatures. It is shown this once.")


class Attempt(BaseModel):
    """`status` null: there was no answer, for the `reason` given."""

    at: datetime
    status: int | None
    reason: str
    ms: float


class DeliveryRecord(BaseModel):
    """One event on its way to the webhook. `event_id` is the `webhook-id` of every attempt; `next_at`: the next one."""

    id: str
    event_id: str
    type: EventType
    team_id: str
    at: datetime
    data: dict[str, Any]
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    history: list[Attempt] = Field(description="The newest attempts, at most ten.")
    next_at: datetime | None
    delivered_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryRecord:
        return cls.model_validate({name: getattr(delivery, name) for name in cls.model_fields})


class Tried(BaseModel):
    delivered: bool
    status: int | None
    reason: str
    ms: float


class Recovered(BaseModel):
    queued: int


@router.post("", status_code=201)
def create_webhook(service: Service, caller: Keeper, webhook: WebhookIn) -> NewWebhook:
    """Make a webhook. Its secret is in this answer and nowhere else."""
    _check_address(service, webhook.url)
    team = _of(caller, all_teams=webhook.all_teams)
    with service.database.transaction() as transaction:
        connection = transaction.connection
        if webhooks.count(connection, team) >= _MOST:
            raise Conflict(f"There are {_MOST} webhooks already. Delete one first.", code="too_many_webhooks")
        made = webhooks.add(connection, team, url=webhook.url, events=webhook.events, description=webhook.description)
        secret = service.courier.secrets.renew(connection, made)
        transaction.audit("webhook.created", made.id, team=team or None, after=_decisive(made))
        made = webhooks.get(connection, team, made.id)
    return NewWebhook(**_shown(made), secret=secret)


@router.get("")
def list_webhooks(
    service: Service,
    caller: Keeper,
    *,
    all_teams: Annotated[bool, Query(description="Those of all teams; takes an admin key of the service.")] = False,
    limit: Limit = 50,
    after: After = None,
) -> Listing[WebhookRecord]:
    """List the team's webhooks."""
    team = _of(caller, all_teams=all_teams)
    with service.database.read() as connection:
        page = webhooks.page(connection, team, limit=limit, after=after)
    return Listing[WebhookRecord].of(page, lambda one: WebhookRecord(**_shown(one)))


# Before the routes of a webhook itself, whose id would take the name of the action for a part of it.
@router.post("/{webhook_id}:rotate")
def rotate_webhook_secret(
    service: Service, caller: Keeper, webhook_id: Id, wanted: RotateIn | None = None
) -> NewSecret:
    """Give it a new secret. For a day, or as said, messages carry a signature with the former one too."""
    overlap = timedelta(seconds=(wanted or RotateIn.model_validate({})).overlap_s)
    with service.database.transaction() as transaction:
        webhook = _found(transaction.connection, caller, webhook_id)
        secret = service.courier.secrets.renew(transaction.connection, webhook, overlap)
        _audit(transaction, "webhook.secret_rotated", webhook, overlap_s=overlap.total_seconds())
    return NewSecret(secret=secret)


@router.post("/{webhook_id}:test")
def test_webhook(service: Service, caller: Keeper, webhook_id: Id) -> Tried:
    """Send one message of the type `webhook.test` and say how it was answered."""
    with service.database.read() as connection:
        webhook = _found(connection, caller, webhook_id)
    answer = service.courier.try_out(webhook)
    return Tried(delivered=answer.reason == DELIVERED, status=answer.status, reason=answer.reason, ms=answer.ms)


@router.post("/{webhook_id}:recover", status_code=202)
def recover_webhook(service: Service, caller: Keeper, webhook_id: Id, wanted: RecoverIn) -> Recovered:
    """Tell it again what it did not accept since then, with the same ids. Also what came while it was disabled."""
    with service.database.transaction() as transaction:
        webhook = _found(transaction.connection, caller, webhook_id)
        if not webhook.enabled:
            raise Conflict("This webhook is disabled. Enable it first.", code="webhook_disabled")
        since = wanted.since.isoformat()
        _audit(transaction, "webhook.replayed", webhook, since=since, delivered=wanted.delivered)
    queued, last = 0, ""
    while True:  # some at a time: others write in between
        with service.database.transaction() as transaction:
            some, next_after = deliveries.replay(transaction, webhook, wanted.since, last, repeat=wanted.delivered)
        queued += some
        if next_after is None:
            return Recovered(queued=queued)
        last = next_after


@router.get("/{webhook_id}")
def get_webhook(service: Service, caller: Keeper, webhook_id: Id) -> WebhookRecord:
    """One webhook, and since when it fails if it does."""
    with service.database.read() as connection:
        return WebhookRecord(**_shown(_found(connection, caller, webhook_id)))


@router.patch("/{webhook_id}")
def update_webhook(service: Service, caller: Keeper, webhook_id: Id, change: WebhookChange) -> WebhookRecord:
    """Change a webhook, disable or enable it."""
    if change.url is not None:
        _check_address(service, change.url)
    with service.database.transaction() as transaction:
        connection = transaction.connection
        before = _found(connection, caller, webhook_id)
        values: dict[str, Any] = change.model_dump(exclude_none=True)
        if change.enabled is not None:
            well = {"failing_since": None, "resume_at": None} if change.enabled else {}
            values |= {"disabled_reason": None if change.enabled else "manual", **well}
        if values:
            webhooks.change(connection, webhook_id, **values)
        if change.enabled:
            transaction.told.add(webhook_id)
        after = _found(connection, caller, webhook_id)
        _audit(transaction, "webhook.changed", after, before=_decisive(before), after=_decisive(after))
    return WebhookRecord(**_shown(after))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(service: Service, caller: Keeper, webhook_id: Id) -> None:
    """Delete a webhook, with all that it was yet to be told."""
    with service.database.transaction() as transaction:
        webhook = _found(transaction.connection, caller, webhook_id)
        webhooks.remove(transaction.connection, webhook.id)
        _audit(transaction, "webhook.deleted", webhook, before=_decisive(webhook))


@router.get("/{webhook_id}/deliveries")
def list_webhook_deliveries(
    service: Service,
    caller: Keeper,
    webhook_id: Id,
    *,
    state: Literal["waiting", "delivered", "failed"] | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[DeliveryRecord]:
    """What it was told, is to be told and could not be told, newest first. Kept as long as events are."""
    with service.database.read() as connection:
        webhook = _found(connection, caller, webhook_id)
        page = deliveries.page(connection, webhook.id, state, limit=limit, after=after)
    return Listing[DeliveryRecord].of(page, DeliveryRecord.of)


def _of(caller: Caller, *, all_teams: bool) -> str:
    """Whose webhooks are meant. Raises NotPermitted, InvalidRequest."""
    if all_teams:
        if not caller.administrator:
            raise NotPermitted("The events of all teams take an admin key of the service.")
        return ALL_TEAMS
    if not caller.team:
        raise InvalidRequest(
            "An admin key names its team: send the header X-Rag-Team, or all_teams.", code="team_required"
        )
    return caller.team


def _found(connection: Connection, caller: Caller, webhook_id: str) -> Webhook:
    """Of the caller's team, or for an administrator of all teams. Raises NotFound."""
    webhook = webhooks.load(connection, webhook_id)
    theirs = {caller.team, ALL_TEAMS} if caller.administrator else {caller.team}
    if webhook is None or webhook.team_id not in theirs:
        raise NotFound(webhooks.UNKNOWN)
    return webhook


def _check_address(service: Runtime, url: str) -> None:
    if is_refused_literal(parsed(url)) and not service.settings.webhook_private_addresses:
        raise InvalidRequest(
            "url: webhooks lead to public addresses only, unless RAG_WEBHOOK_PRIVATE_ADDRESSES allows others.",
            code="address_refused",
        )


def _audit(transaction: Transaction, action: str, webhook: Webhook, **more: Any) -> None:
    transaction.audit(action, webhook.id, team=webhook.team_id or None, **more)


def _decisive(webhook: Webhook) -> dict[str, Any]:
    """What decides on who is told what, for the audit log: of the address only the host, for the rest may be secret."""
    return {"host": parsed(webhook.url).hostname, "events": list(webhook.events), "enabled": webhook.enabled}


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "description": webhook.description,
        "all_teams": webhook.team_id == ALL_TEAMS,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "failing_since": webhook.failing_since,
        "secrets": len(webhook.secrets),
        "created_at": webhook.created_at,
    }
