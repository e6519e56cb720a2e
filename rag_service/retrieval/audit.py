"""The retrieval audit: who was shown which documents, in the audit log, without any text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rag_service.access import Principal
from rag_service.db import Database, Transaction
from rag_service.db.audit import Entry
from rag_service.db.authors import current_author
from rag_service.retrieval.batches import BatchWriter
from rag_service.types import utc_now

# Entries in memory while the database does not answer: half a kilobyte each.
_WAITING = 100_000


class RetrievalAudit:
    """Off unless `enabled`. Costs a question an append; what waits is written at an orderly stop too."""

    def __init__(self, database: Database, *, enabled: bool) -> None:
        self._enabled = enabled
        self._writer = BatchWriter(database, _write, name="retrieval audit entries", waiting=_WAITING)

    def record(self, query_id: str, reader: Principal, document_ids: Iterable[str]) -> None:
        """Put on record that the current author, for `reader`, was shown passages of these documents."""
        if not self._enabled:
            return
        groups = sorted(reader.groups) if reader.user is not None or reader.groups else None
        author = replace(current_author(), user=reader.user, groups=groups)
        shown = list(dict.fromkeys(document_ids))
        entry = Entry(
            "retrieval.answered", query_id, reader.team, detail={"documents": shown}, author=author, at=utc_now()
        )
        self._writer.add(entry)

    def flush(self) -> None:
        """Raises RetryableError."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _write(transaction: Transaction, entries: Sequence[Entry]) -> None:
    transaction.entries.extend(entries)
