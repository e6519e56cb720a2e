"""The tables. SQL holds what may not be lost; every time is UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC in Python. SQLite keeps no zone: it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Python's None is SQL's NULL here, not the JSON literal null.
Json = JSON(none_as_null=True)


def _id() -> Column[str]:
    return Column("id", String(80), primary_key=True)


def _time(name: str, *, nullable: bool = True, index: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable, index=index)


teams = Table(
    "teams",
    metadata,
    _id(),
    Column("name", String(200), nullable=False),
    _time("created_at", nullable=False),
)

keys = Table(
    "keys",
    metadata,
    _id(),
    Column("team_id", String(80), index=True),  # null: an admin key
    Column("name", String(200), nullable=False),
    Column("prefix", String(32), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", Json, nullable=False),
    Column("user", String(512)),
    Column("groups", Json),
    _time("created_at", nullable=False),
    _time("expires_at"),
    _time("revoked_at"),
)

collections = Table(
    "collections",
    metadata,
    _id(),
    Column("team_id", String(80), nullable=False),
    Column("name", String(100), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("language", String(32), nullable=False, default="auto"),
    Column("active_index", String(80)),
    Column("retrieval", Json, nullable=False, server_default="{}"),
    Column("storage", Json, nullable=False, server_default="{}"),
    _time("created_at", nullable=False),
    UniqueConstraint("team_id", "name"),
)

index_versions = Table(
    "index_versions",
    metadata,
    _id(),
    Column("collection_id", String(80), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("embedding_model", String(300), nullable=False),
    Column("embedding_revision", String(100), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("chunker", String(200), nullable=False),
    Column("analyser", String(200), nullable=False),
    Column("number", Integer, nullable=False, server_default="1"),  # of its collection's, from 1
    Column("pipeline", Json, nullable=False, server_default="{}"),  # what differs from the settings
    Column("note", Text, nullable=False, server_default=""),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("priority", String(20), nullable=False, server_default="normal"),
    Column("max_concurrency", Integer, nullable=False, server_default="1"),
    Column("progress", Json, nullable=False, server_default="{}"),
    Column("quality", Json),  # the newest comparison with the active one
    Column("error", Json),
    _time("holding_until"),  # commits to it wait until then: another one is about to take its place
    _time("built_at"),
    _time("activated_at"),
    _time("retire_at"),
    _time("retired_at"),
    Column("average_length", Float, nullable=False),
    Column("calibration", Integer, nullable=False, default=0),  # grows with every change of analyser or average length
    Column("chunks_written", Integer, nullable=False, default=0),  # ever: says when to measure the average anew
    Column("calibrate_at", Integer, nullable=False, default=0),  # number of chunks written
    _time("created_at", nullable=False),
)

sources = Table(
    "sources",
    metadata,
    _id(),
    Column("team_id", String(80), nullable=False, index=True),
    Column("collection_id", String(80), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("type", String(50), nullable=False),
    Column("config", Json, nullable=False),
    Column("secrets", Json, nullable=False, server_default="{}"),  # by field: {"key": id, "ciphertext": base64}
    Column("acl", Json, nullable=False),
    Column("schedule_s", Integer),
    Column("max_deleted_percent", Float, nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("cursor", Json),
    Column("listing", Integer, nullable=False, default=0),  # number of the newest listing; documents remember theirs
    Column("held_deletions", Integer, nullable=False, default=0),
    Column("last_error", Json),
    _time("last_success_at"),
    _time("next_run_at", index=True),
    _time("created_at", nullable=False),
    UniqueConstraint("team_id", "name"),
)

documents = Table(
    "documents",
    metadata,
    _id(),
    Column("team_id", String(80), nullable=False),
    Column("collection_id", String(80), nullable=False),
    Column("source_id", String(80), nullable=False, default=""),  # "" for uploads: null would escape the unique rule
    Column("external_id", String(1024), nullable=False),
    Column("given_title", Text, nullable=False, default=""),  # "" lets the document's own title stand
    Column("title", Text, nullable=False, default=""),
    Column("file_name", Text, nullable=False, default=""),
    Column("uri", Text),
    Column("media_type", String(200)),
    Column("metadata", Json, nullable=False),
    Column("acl", Json),  # null: the source's default
    # Grows with every change of content, ACL, fields or existence: the compare-and-set of the indexer's last look.
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_tag", Text, nullable=False, default=""),
    Column("content_hash", String(64), nullable=False),
    Column("blob_key", String(200), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("error", Json),
    Column("listing", Integer, nullable=False, default=0),
    # What the active index version answers with: its row in indexed_documents, repeated.
    Column("indexed_version", Integer),
    Column("indexed_hash", String(64)),
    Column("index_version", String(80)),
    Column("text_key", String(200)),
    Column("parser", String(100), nullable=False, default=""),
    Column("chunk_count", Integer, nullable=False, default=0),
    _time("searchable_at"),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    _time("deleted_at"),
    _time("purged_at"),
    UniqueConstraint("collection_id", "source_id", "external_id"),
    Index(None, "team_id", "id"),
    Index(None, "source_id", "listing"),
    Index(None, "status"),
)

document_access = Table(
    "document_access",
    metadata,
    Column("document_id", String(80), primary_key=True),
    Column("deny", Boolean, primary_key=True),
    Column("token", String(600), primary_key=True),
)

# What each index version answers with. A row with an error: this version of the document could not be built into it.
indexed_documents = Table(
    "indexed_documents",
    metadata,
    Column("index_version", String(80), primary_key=True),
    Column("document_id", String(80), primary_key=True, index=True),
    Column("version", Integer, nullable=False),
    Column("content_hash", String(64)),
    Column("text_key", String(200)),
    Column("outline", Json),  # title, layout and page map of the text, as parsed
    Column("parser", String(100), nullable=False),
    Column("chunk_count", Integer, nullable=False),
    Column("term_count", Integer, nullable=False),  # of all chunks, as the lexical leg measures them
    Column("calibration", Integer, nullable=False),  # the index version's when its vectors were encoded
    _time("searchable_at"),
    Column("error", Json),
)

document_events = Table(
    "document_events",
    metadata,
    _id(),
    Column("document_id", String(80), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("kind", String(30), nullable=False),
    Column("detail", Json, nullable=False),
    _time("at", nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    _id(),
    Column("document_id", String(80), nullable=False),
    Column("version", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("heading_path", Json, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("text_hash", String(64), nullable=False),
    Column("index_version", String(80), nullable=False, server_default=""),
    # Both by equality: with one of them alone SQLite took the index below, and read all chunks of the index version.
    Index(None, "document_id", "index_version", "ordinal"),
    Index(None, "index_version", "text_hash"),
)

# Conditions of partial indexes: a query that contains the very same words is answered from the index alone.
# Rung for and not through; a sync that waits for its documents occupies nobody.
IS_OUT = text("state IN ('queued', 'running') AND rung_at IS NOT NULL AND listed IS FALSE")
IS_WAITING = text("state = 'queued' AND rung_at IS NULL")

jobs = Table(
    "jobs",
    metadata,
    _id(),
    Column("team_id", String(80), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("queue", String(20), nullable=False),
    Column("state", String(30), nullable=False),
    Column("parent_id", String(80)),
    Column("source_id", String(80), index=True),
    Column("document_id", String(80), index=True),
    Column("version", Integer),
    Column("payload", Json, nullable=False),
    Column("counters", Json, nullable=False),
    Column("stages_ms", Json, nullable=False),
    Column("total", Integer),
    Column("listed", Boolean, nullable=False, default=False),
    Column("error", Json),
    Column("fence", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Json, nullable=False, server_default="{}"),  # how many of the attempts failed in which class
    Column("history", Json, nullable=False, server_default="[]"),  # the newest failures, with times
    Column("retried", Json, nullable=False, server_default="[]"),  # what it had given up with before it was retried
    Column("letter", String(20), index=True),  # of a job that gave up: open, discarded or superseded
    Column("worker", String(200)),  # who holds it; stays when its holder dies
    Column("former_worker", String(200)),  # who died holding it before the present holder
    Column("worker_deaths", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    _time("lease_until"),
    _time("run_after", nullable=False),
    _time("rung_at"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("finished_at"),
    # The request and the trace that it follows from, for its worker's log lines and spans.
    Column("origin", Json, nullable=False, server_default="{}"),
    Index(None, "team_id", "id"),
    Index(None, "state", "run_after"),
    Index(None, "state", "kind", "created_at"),
    # Whether any child is open is asked whenever one of a hundred thousand has ended.
    Index(None, "parent_id", "state"),
    Index("ix_jobs_out", "team_id", "queue", sqlite_where=IS_OUT, postgresql_where=IS_OUT),
    Index(
        "ix_jobs_waiting",
        "team_id",
        "queue",
        "worker_deaths",
        "run_after",
        "id",
        sqlite_where=IS_WAITING,
        postgresql_where=IS_WAITING,
    ),
)

# What is true of the whole installation, whichever process asks.
installation = Table(
    "installation",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("value", Text, nullable=False),
)

# What was asked and answered: ids, scores and times, and the question itself only where the settings say so.
queries = Table(
    "queries",
    metadata,
    _id(),
    Column("team_id", String(80), nullable=False),
    Column("key_id", String(80)),  # null: the admin key
    Column("key_name", String(200), nullable=False),
    Column("as_user", Json),  # null: asked as the key's own identity
    Column("query", Text),  # null: not kept
    Column("request", Json, nullable=False),
    Column("plan", Json, nullable=False),
    Column("hits", Json, nullable=False),
    Column("usage", Json, nullable=False),
    Column("degraded", Json, nullable=False),
    _time("at", nullable=False, index=True),
    Index(None, "team_id", "id"),
)

# Append-only: triggers refuse UPDATE and DELETE. `hash` covers the row and the hash before it.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _time("at", nullable=False),
    Column("team_id", String(80)),  # null: of no team
    Column("author", Json, nullable=False),
    Column("action", String(60), nullable=False),
    Column("target", String(200), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("before", Json),
    Column("after", Json),
    Column("detail", Json, nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "team_id", "seq"),
    Index(None, "target"),
    Index(None, "action", "seq"),
)

# One row: where the chain ends. Whoever appends locks it.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

# Work on the service as a whole, asked for by its administrator: backups and reconciling. `until` is its lease: an
# operation whose process died is over when that has passed.
operations = Table(
    "operations",
    metadata,
    _id(),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("progress", Json, nullable=False),
    Column("report", Json),
    Column("error", Json),
    _time("until", nullable=False),
    _time("created_at", nullable=False),
    _time("finished_at"),
    Index(None, "kind", "state"),
)
