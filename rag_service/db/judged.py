"""The tables of query sets: questions with known answers."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Integer, String, Table, Text, UniqueConstraint

from rag_service.db.tables import Json, UtcDateTime, metadata

# Each is about one collection.
query_sets = Table(
    "query_sets",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("team_id", String(80), nullable=False),
    Column("collection_id", String(80), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("query_count", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("team_id", "name"),
)

labelled_queries = Table(
    "labelled_queries",
    metadata,
    Column("set_id", String(80), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),  # counted from 1, in the order given
    Column("id", String(200), nullable=False),  # the caller's own
    Column("query", Text, nullable=False),
    Column("expected", Json, nullable=False),
    Column("expect_nothing", Boolean, nullable=False, default=False),
    Column("as_user", Json),  # null: asked by who reads the whole team
    Column("filter", Json),
    Column("min_score", Float),
    UniqueConstraint("set_id", "id"),
)
