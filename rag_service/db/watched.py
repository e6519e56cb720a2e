"""The tables of what is watched: probes and their results, fingerprints of models, what answers are like."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, UniqueConstraint

from rag_service.db.tables import Json, UtcDateTime, metadata

# What a model makes of a few fixed texts (`texts`: their hash), by how it is computed: little-endian 32-bit floats.
fingerprints = Table(
    "fingerprints",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("model", String(300), nullable=False),
    Column("revision", String(100), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("computation", String(80), nullable=False),
    Column("texts", String(64), nullable=False),
    Column("vectors", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("model", "revision", "dimensions", "computation", "texts"),
)

# Questions asked by the clock, with what their answers must be.
probes = Table(
    "probes",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("team_id", String(80), nullable=False),
    Column("collection_id", String(80), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("question", Json, nullable=False),
    Column("expect", Json, nullable=False),
    Column("every_s", Integer, nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("state", String(20), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("job_id", String(80)),  # of the newest run
    Column("last_run", String(80)),  # the newest result
    Column("next_run_at", UtcDateTime, nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("team_id", "name"),
    Index(None, "team_id", "id"),
)

probe_runs = Table(
    "probe_runs",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("probe_id", String(80), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("recall", Float),
    Column("hits", Json, nullable=False),
    Column("failures", Json, nullable=False),
    Column("took_ms", Float, nullable=False),
    Column("newest_at", UtcDateTime),  # when the newest document came in, where that is watched
    Column("at", UtcDateTime, nullable=False),
    Index(None, "probe_id", "id"),
)

# How many answers an index version gave within an hour, by what became of them: see `db.answers`.
answer_counts = Table(
    "answer_counts",
    metadata,
    Column("index_version", String(80), primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("outcome", Integer, primary_key=True, autoincrement=False),
    Column("answers", Integer, nullable=False),
    Index(None, "hour"),
)

# What is watched beside probes, and whether it is as it should be: a change of state is told once.
alarms = Table(
    "alarms",
    metadata,
    Column("subject", String(200), primary_key=True),
    Column("kind", String(30), nullable=False),
    Column("collection_id", String(80), index=True),
    Column("state", String(20), nullable=False),
    Column("detail", Json, nullable=False),
    Column("since", UtcDateTime, nullable=False),
)
