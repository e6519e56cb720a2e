"""What the audit log is told of documents: who may read them, and that they came, changed or went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from connectors.base import Acl
from rag_service.db import documents
from rag_service.db.acls import acl_to_json
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction

if TYPE_CHECKING:
    from rag_service.ingest.intake import Receipt

# Ids of documents in one entry.
_TOGETHER = 1_000
_ACTIONS = {
    "new": "document.created",
    "modified": "document.replaced",
    "metadata_modified": "document.changed",
}


def acl_of(acl: Acl | None) -> dict[str, Any]:
    """An ACL for the log; null: that of its source."""
    return {"acl": None if acl is None else acl_to_json(acl)}


def taken_in(transaction: Transaction, rows: Sequence[Document | None], receipts: Sequence[Receipt]) -> None:
    """Documents as they were and as they are. Of what a sync brings, only changes of who may read are told.

    A document that was deleted counts as new.
    """
    for row, receipt in zip(rows, receipts, strict=True):
        document = receipt.document
        before = None if row is None or row.is_deleted else acl_of(row.acl)
        after = acl_of(document.acl)
        action = _ACTIONS.get(receipt.change)
        if document.source_id != documents.NO_SOURCE:
            action = "document.acl_changed" if before is not None and before != after else None
        if action is not None:
            transaction.audit(
                action, document.id, team=document.team_id, before=before, after=after, version=document.version
            )


def changed(transaction: Transaction, before: Document, after: Document) -> None:
    """A change of what is said about a document, or of who may read it."""
    if before.acl != after.acl:
        readers = acl_of(before.acl), acl_of(after.acl)
        transaction.audit("document.acl_changed", after.id, team=after.team_id, before=readers[0], after=readers[1])
    else:
        transaction.audit("document.changed", after.id, team=after.team_id, version=after.version)


def removed(transaction: Transaction, team_id: str, cause: str, ids: Sequence[str]) -> None:
    """Documents that went together: with their source or collection, or because a listing did not see them."""
    for start in range(0, len(ids), _TOGETHER):
        part = list(ids[start : start + _TOGETHER])
        transaction.audit("documents.deleted", cause, team=team_id, documents=part)
