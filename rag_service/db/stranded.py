"""Documents on their way that no job carries any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Update, and_, bindparam, insert, null, select, update

from rag_service.db.documents import UNDER_WAY
from rag_service.db.tables import document_events, documents, jobs
from rag_service.types import DocumentFailure, DocumentStatus, JobKind, JobState, new_id, utc_now

_AT_ONCE = 500
_IS_CARRIED = (
    select(jobs.c.id)
    .where(
        jobs.c.document_id == documents.c.id,
        jobs.c.version == documents.c.version,
        jobs.c.kind == JobKind.INDEX,
        jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)),
    )
    .exists()
)
_STRANDED = and_(
    documents.c.id.in_(bindparam("among", expanding=True)), documents.c.status.in_(UNDER_WAY), ~_IS_CARRIED
)
_WHICH = select(documents.c.id).where(_STRANDED)
# A statement of its own: the next one sees the jobs that were queued by whoever held these rows.
_HOLD = (
    select(documents.c.id)
    .where(documents.c.id.in_(bindparam("among", expanding=True)))
    .order_by(documents.c.id)
    .with_for_update()
)
_ANSWERS = documents.c.indexed_version == documents.c.version


def is_one(connection: Connection, document_id: str) -> bool:
    return connection.execute(_WHICH, {"among": [document_id]}).first() is not None


def end(connection: Connection, document_ids: Sequence[str], failure: DocumentFailure) -> list[str]:
    """Of these documents, those that are stranded: ready where the newest version answers, else failed.

    Returns the ids of those that failed.
    """
    mine = update(documents).where(_STRANDED)
    ready = mine.where(_ANSWERS).values(status=DocumentStatus.READY, error=null())
    gave_up = mine.values(status=DocumentStatus.FAILED, error=asdict(failure))
    why = {"stage": failure.stage, "code": failure.code}
    failed: list[str] = []
    for start in range(0, len(document_ids), _AT_ONCE):
        among = document_ids[start : start + _AT_ONCE]
        connection.execute(_HOLD, {"among": among})
        _end(connection, ready, among, {"kind": "canceled", "detail": {}})
        failed += _end(connection, gave_up, among, {"kind": "failed", "detail": why})
    return failed


def _end(connection: Connection, ending: Update, among: Sequence[str], line: Mapping[str, Any]) -> list[str]:
    """Run `ending` over these documents and add a line to the history of each that it meets; returns their ids."""
    now = utc_now()
    rows = connection.execute(ending.returning(documents.c.id, documents.c.version), {"among": among}).all()
    told = [{**line, "id": new_id("evt"), "document_id": row.id, "version": row.version, "at": now} for row in rows]
    if told:
        connection.execute(insert(document_events), told)
    return [row.id for row in rows]
