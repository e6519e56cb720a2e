"""Which documents are tried again with the content that they have, and where they begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_service.db import Connection, stranded
from rag_service.db.documents import UNDER_WAY, Document
from rag_service.types import DocumentStatus


def reopened(connection: Connection, row: Document, *, by_hand: bool) -> Mapping[str, Any]:
    """What is to be set of a document that failed, or that nobody carries, so that it is tried again; else nothing.

    A person tries anything again; what happens by itself tries only what may succeed unchanged.
    """
    failed = row.status == DocumentStatus.FAILED and (by_hand or (row.error is not None and row.error.retryable))
    is_stranded = row.status in UNDER_WAY and stranded.is_one(connection, row.id)
    return fresh(row) if failed or is_stranded else {}


def fresh(row: Document, *, again: bool = False) -> Mapping[str, Any]:
    """Without its error, and on its way; ready where this very version answers, unless it is to be indexed `again`."""
    # What answers has only been out of reach for a while: no job would find anything to do.
    answers = row.indexed_version == row.version and not again
    return {"status": DocumentStatus.READY if answers else DocumentStatus.ACCEPTED, "error": None}
