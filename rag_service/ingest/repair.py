"""Mending what reconciling finds: jobs are queued for what can be made again, and what nobody needs is removed.

Each repair holds also when its document changes meanwhile: it names versions, or queues a job that looks for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from rag_service.blobs import BlobStore
from rag_service.db import Database, documents, inventory
from rag_service.db.documents import Document
from rag_service.db.inventory import DocumentState
from rag_service.ingest.damage import Damage, Seen
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.hold import may_purge
from rag_service.ingest.intake import Intake
from rag_service.ingest.removal import Removal
from rag_service.types import JobKind
from rag_service.vectors.base import VectorStore

_MADE_AGAIN = frozenset({Damage.MISSING_POINTS, Damage.MISSING_CHUNKS, Damage.WRONG_TEAM})


@dataclass(frozen=True)
class Repair:
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    intake: Intake
    removal: Removal
    doorbell: Doorbell

    def document(
        self, index: str, document_id: str, state: DocumentState, points: list[Seen], damages: set[Damage]
    ) -> bool:
        """Mend what is wrong with the points of a document. Raises PutOffError while a backup is taken."""
        document = state.document
        if Damage.ORPHAN_POINTS in damages or Damage.WRONG_VERSION in damages:
            self._remove_points(index, document_id, document, points)
        if document is None:
            return True
        if Damage.UNPURGED in damages:
            with self.database.transaction() as transaction:
                self.removal.enqueue(transaction, document.team_id, document_id=document.id, version=document.version)
        elif damages & _MADE_AGAIN or (Damage.ORPHAN_POINTS in damages and not document.is_deleted):
            self.index_again(document)
        elif Damage.WRONG_ACCESS in damages:
            with self.database.transaction() as transaction:
                self.intake.refresh(transaction, document)
        return True

    def index_again(self, document: Document) -> None:
        """Parse, embed and write it once more; vectors that are still there are taken over."""
        with self.database.transaction() as transaction:
            self.doorbell.add(
                transaction,
                JobKind.INDEX,
                document.team_id,
                bulk=True,
                source_id=document.source_id or None,
                document_id=document.id,
                version=document.version,
                payload={"again": True},
            )

    def lost_bytes(self, document: Document) -> bool:
        """Nobody but its source has them: the next sync brings them in. False for an upload, which a person repeats."""
        with self.database.transaction() as transaction:
            forgotten = inventory.forget_content(transaction.connection, document)
        return forgotten and document.source_id != documents.NO_SOURCE

    def orphan_blobs(self, owner: str) -> None:
        may_purge(self.database)
        self.blobs.delete(owner)

    def _remove_points(self, index: str, document_id: str, document: Document | None, points: list[Seen]) -> None:
        may_purge(self.database)
        if document is None:
            self.vectors.delete(index, document_id)
        elif document.is_deleted:
            # Should it come back meanwhile, then as a version above this one.
            self.vectors.delete(index, document_id, older_than=document.version + 1)
        else:
            answers = document.indexed_version if document.index_version == index else None
            unwanted = {point.version for point in points} - {answers} or {point.version for point in points}
            for version in sorted(unwanted):
                self.vectors.delete(index, document_id, only=version)
            self._look_again(document)

    def _look_again(self, document: Document) -> None:
        """A version written between our look and our removal has lost its points: have it written again."""
        with self.database.read() as connection:
            now = documents.load(connection, document.id)
        if now is not None and not now.is_deleted and now.revision != document.revision:
            self.index_again(now)
