"""How many of what there are, over all teams: for whoever watches the service. Each is one statement over an index."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from rag_service.db.jobs import OPEN_LETTER
from rag_service.db.tables import documents, jobs
from rag_service.types import JobState, utc_now

_UNKNOWN = "unknown"
_WAITING = (JobState.QUEUED, JobState.RUNNING)


def jobs_by_kind(connection: Connection) -> tuple[dict[tuple[str, str], int], dict[str, float]]:
    """Open and failed jobs by (kind, state), and the age in seconds of the oldest open one by kind."""
    query = (
        select(jobs.c.kind, jobs.c.state, func.count().label("jobs"), func.min(jobs.c.created_at).label("oldest"))
        .where(jobs.c.state.in_((*_WAITING, JobState.FAILED)))
        .group_by(jobs.c.state, jobs.c.kind)
    )
    now, counts, oldest = utc_now(), {}, dict[str, float]()
    for row in connection.execute(query):
        counts[row.kind, row.state] = int(row.jobs)
        if row.state in _WAITING:
            age = max(0.0, (now - row.oldest).total_seconds())
            oldest[row.kind] = max(age, oldest.get(row.kind, 0.0))
    return counts, oldest


def failed_jobs_by_code(connection: Connection) -> dict[str, int]:
    """Dead letters by the code of their error; the codes are ours and the connectors'."""
    code = func.coalesce(jobs.c.error["code"].as_string(), _UNKNOWN)
    query = select(code.label("code"), func.count().label("jobs")).where(jobs.c.letter == OPEN_LETTER)
    return {str(row.code): int(row.jobs) for row in connection.execute(query.group_by(code))}


def documents_by_status(connection: Connection) -> dict[str, int]:
    query = select(documents.c.status, func.count().label("documents")).group_by(documents.c.status)
    return {str(row.status): int(row.documents) for row in connection.execute(query)}


def chunks_by_index(connection: Connection) -> dict[str, int]:
    """How many chunks answer from each index version, as the database knows it; those without any are left out."""
    query = (
        select(documents.c.index_version, func.sum(documents.c.chunk_count).label("chunks"))
        .where(documents.c.indexed_version.is_not(None), documents.c.deleted_at.is_(None))
        .group_by(documents.c.index_version)
    )
    return {str(row.index_version): int(row.chunks) for row in connection.execute(query)}


def teams_at_work(connection: Connection) -> set[str]:
    """Teams that have jobs queued or running."""
    query = select(jobs.c.team_id).where(jobs.c.state.in_(_WAITING)).distinct()
    return set(connection.execute(query).scalars())
