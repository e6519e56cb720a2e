"""Requests that have one effect however often they are sent, by a key that their sender chose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import JSON, Column, Connection, String, Table, delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from rag_service.db.tables import UtcDateTime, metadata
from rag_service.errors import InvalidRequest
from rag_service.types import utc_now

# Whoever repeats a request does so within minutes; in a day nobody remembers it.
KEPT = timedelta(days=1)

# Requests that came with a key of their sender's, what was asked (as a digest) and what was answered.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", String(80), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("answer", JSON(none_as_null=True)),
    Column("at", UtcDateTime, nullable=False, index=True),
)


def once(
    connection: Connection, caller: str, key: str, asked: Mapping[str, Any], do: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `do` answers, or what it answered when this caller first sent this key; all in the caller's transaction.

    Of two that arrive at once one waits for the other. Raises InvalidRequest when the key came with another request.
    """
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.at < utc_now() - KEPT))
    make = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    row = {"caller": caller, "key": key, "digest": digest, "at": utc_now()}
    mine = (idempotency_keys.c.caller == caller) & (idempotency_keys.c.key == key)
    first = make(idempotency_keys).values(row).on_conflict_do_nothing().returning(idempotency_keys.c.key)
    if connection.execute(first).first() is not None:
        answer = do()
        connection.execute(update(idempotency_keys).where(mine).values(answer=answer))
        return answer
    known = connection.execute(select(idempotency_keys).where(mine)).one()
    if known.digest != digest:
        raise InvalidRequest(
            "This Idempotency-Key came with another request before. Give every request a key of its own.",
            code="idempotency_key_reused",
        )
    return dict(known.answer)
