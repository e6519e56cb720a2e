"""The tables of what is told to the world outside, and of what it says about answers."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from rag_service.db.tables import Json, UtcDateTime, metadata

# `team_id` "": the events of all teams.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("team_id", String(80), nullable=False, index=True),
    Column("url", String(2048), nullable=False),
    Column("events", Json, nullable=False),
    Column("description", Text, nullable=False),
    Column("secrets", Json, nullable=False),  # newest first: {"key": id, "ciphertext": base64, "until": time or null}
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", String(40)),
    Column("failing_since", UtcDateTime),  # of the first failure after the last success
    Column("resume_at", UtcDateTime),  # it answers nothing at the moment: it is left alone until then
    Column("created_at", UtcDateTime, nullable=False),
)

# Events that somebody wants to be told of, written in the transaction that made them true.
outbox = Table(
    "outbox",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("team_id", String(80), nullable=False),
    Column("type", String(40), nullable=False),
    Column("data", Json, nullable=False),
    Column("at", UtcDateTime, nullable=False, index=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("webhook_id", String(80), nullable=False),
    Column("event_id", String(80), nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("history", Json, nullable=False),  # the newest attempts: when, status, reason, milliseconds
    Column("next_at", UtcDateTime),  # of one that waits: when it is due, or when whoever has it is taken for dead
    Column("created_at", UtcDateTime, nullable=False),
    Column("delivered_at", UtcDateTime),
    UniqueConstraint("event_id", "webhook_id"),
    Index(None, "webhook_id", "id"),
    Index(None, "state", "next_at"),
)

# What was said of an answer, with what it takes of the answer's trace: it outlives that. "" for what does not apply,
# where null would escape the unique rule.
feedback = Table(
    "feedback",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("team_id", String(80), nullable=False),
    Column("query_id", String(80), nullable=False),
    Column("document_id", String(80), nullable=False),  # "": of the answer as a whole
    Column("chunk_id", String(80), nullable=False),
    Column("key_id", String(80), nullable=False),  # of whoever says it; "": an admin key
    Column("rating", String(20)),
    Column("reasons", Json, nullable=False),
    Column("signals", Json, nullable=False),
    Column("comment", Text),
    Column("expected_document_id", String(80)),
    Column("collection_id", String(80)),
    Column("source_id", String(80)),  # "": an upload
    Column("query", Text),  # null: its trace did not keep it
    Column("as_user", Json),  # null: asked as the key's own identity
    Column("asked_at", UtcDateTime, nullable=False),
    Column("rank", Integer),
    Column("score", Float),
    Column("version", Integer),  # of the document
    Column("index_version", String(80)),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("query_id", "document_id", "chunk_id", "key_id"),
    Index(None, "team_id", "id"),
    Index(None, "team_id", "at"),
)
