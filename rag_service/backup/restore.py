"""Filling empty stores from a backup, without parsing or embedding anything.

Points are made from the rows, as the indexer would, with the vectors that were kept: tokens and fields are those of the
restored rows, whatever the index showed at the moment of the backup. The rows come last, in one transaction: until then
the service knows of nothing, and a restore that broke off can simply be repeated.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag_service.backup import manifest
from rag_service.backup.manifest import BLOBS, METADATA, VECTORS, BackupDamaged, Manifest
from rag_service.backup.points import PointFile
from rag_service.backup.take import Progress
from rag_service.blobs import BlobStore
from rag_service.db import Connection, Database, chunks, collections, documents, inventory, snapshot
from rag_service.db.documents import Document
from rag_service.db.fields import fields_of
from rag_service.errors import Conflict, InvalidRequest
from rag_service.types import IndexVersion
from rag_service.vectors.base import IndexSpec, VectorPoint, VectorStore

_BATCH = 500


def checked(backup: Path) -> Manifest:
    """Read every byte of a backup. Raises BackupDamaged, InvalidRequest when a newer version made it."""
    found = manifest.verify(backup)
    if not snapshot.is_known(found.schema):
        raise InvalidRequest(
            f"{backup} was made by version {found.service} of the service, whose tables this version does not know. "
            "Restore with that version or a newer one."
        )
    return found


@dataclass(frozen=True)
class Restore:
    """The empty stores of a service that does not run; `scratch` is a folder with room for the metadata."""

    database: Database
    blobs: BlobStore
    vectors: VectorStore
    scratch: Path

    def run(self, backup: Path, found: Manifest, progress: Progress) -> None:
        """Raises Conflict when the database is not empty, BackupDamaged when the backup contradicts itself."""
        if not snapshot.is_empty(self.database):
            raise Conflict("The database is not empty. Restore into an empty one.", code="not_empty")
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=".metadata-") as scratch:
            copy = Path(scratch) / METADATA
            shutil.copyfile(backup / METADATA, copy)
            with snapshot.opened(copy) as metadata:
                metadata.migrate()
                with metadata.read() as connection:
                    self._put_blobs(backup / BLOBS, found, progress)
                    self._put_points(connection, backup / VECTORS, found, progress)
            progress("metadata", 0, None)
            snapshot.load(self.database, copy)

    def _put_blobs(self, path: Path, found: Manifest, progress: Progress) -> None:
        put, total = 0, found.counts["blobs"]
        with tarfile.open(path, mode="r:") as tar:
            for entry in tar:
                owner, _, digest = entry.name.partition("/")
                file = tar.extractfile(entry)
                content = b"" if file is None else file.read()
                if hashlib.sha256(content).hexdigest() != digest:
                    raise BackupDamaged(f"The blob {entry.name} is not what its name says. Use another backup.")
                self.blobs.put(owner, content)
                put += 1
                progress("blobs", put, total)
        _check_count("blobs", put, total)

    def _put_points(self, connection: Connection, path: Path, found: Manifest, progress: Progress) -> None:
        put, total = 0, found.counts["points"]
        with PointFile(path) as kept:
            wished = collections.wished_storage(connection)
            for index in collections.all_active(connection):
                self.vectors.create(index.id, IndexSpec(index.embedder.dimensions, wished.get(index.id, {})))
                for batch in _batches(connection, index, kept):
                    self.vectors.upsert(index.id, batch)
                    put += len(batch)
                    progress("vectors", put, total)
        _check_count("vectors", put, total)


def _batches(connection: Connection, index: IndexVersion, kept: PointFile) -> Iterator[list[VectorPoint]]:
    batch: list[VectorPoint] = []
    for page in inventory.live_documents(connection, index.id):
        for document in page:
            batch += _points_of(connection, index, document, kept)
            if len(batch) >= _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _points_of(connection: Connection, index: IndexVersion, document: Document, kept: PointFile) -> list[VectorPoint]:
    held = chunks.of_document(connection, index.id, document.id, document.indexed_version or 0)
    vectors = kept.of(index.id, [chunk.id for chunk in held])
    access, fields = documents.tokens(connection, document), fields_of(document)
    return [
        VectorPoint(
            chunk_id=chunk.id,
            team=document.team_id,
            document_id=document.id,
            version=chunk.version,
            text_hash=chunk.text_hash,
            dense=vectors[chunk.id].dense,
            lexical=vectors[chunk.id].lexical,
            access=access,
            revision=document.revision,
            fields=fields,
        )
        for chunk in held
        if chunk.id in vectors
    ]


def _check_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise BackupDamaged(f"The backup promises {expected} {what} and holds {found}. Use another backup.")
