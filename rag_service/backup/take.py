"""Taking a backup beside whatever else the service does.

The database is copied at one moment, and everything else is copied as that copy names it. What is written later has
other names (blobs by version and hash, points by version), and purging waits until the backup is done, so nothing that
the copy names can go. A backup appears under its name by one rename, complete; before that it is a `.partial` folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from rag_service import __version__
from rag_service.backup import manifest
from rag_service.backup.manifest import BLOBS, METADATA, PARTS, VECTORS, Manifest
from rag_service.backup.points import PointFile
from rag_service.blobs import BlobStore
from rag_service.db import Connection, Database, collections, inventory, sealed, snapshot
from rag_service.db.documents import Document
from rag_service.errors import Conflict, NotFound
from rag_service.flushing import sync, sync_folder
from rag_service.ingest.blob_names import bytes_of
from rag_service.types import IndexVersion, utc_now
from rag_service.vectors.base import VectorStore

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""(stage, done, total or None); called often. It may raise to stop the work."""

PARTIAL = ".partial"
_SLICE = 256


@dataclass(frozen=True)
class Backup:
    """Copies the service's three stores. Whoever calls it holds back purging meanwhile."""

    database: Database
    blobs: BlobStore
    vectors: VectorStore

    def take(self, target: Path, progress: Progress) -> Manifest:
        """Make the folder `target`. Raises Conflict when it is there, OSError when the disk fails or is full."""
        if target.exists():
            raise Conflict(f"{target} is there already. Choose another name.", code="backup_exists")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            made = self._fill(partial, progress)
            progress("publish", 0, None)
            sync_folder(partial)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync(target.parent)
        return made

    def _fill(self, folder: Path, progress: Progress) -> Manifest:
        for name in PARTS:
            manifest.private(folder / name).close()
        progress("metadata", 0, None)
        created_at = utc_now().isoformat()
        snapshot.take(self.database, folder / METADATA)
        with snapshot.opened(folder / METADATA) as metadata, metadata.read() as connection:
            blobs, missing_blobs = self._copy_blobs(connection, folder / BLOBS, progress)
            points, missing_points = self._copy_points(connection, folder / VECTORS, progress)
            counts = {**snapshot.counts(connection), "blobs": blobs, "points": points}
            models = sorted({str(index.embedder) for index in collections.all_active(connection)})
            schema = snapshot.revision(metadata)
            secret_keys = sorted(set().union(*sealed.key_ids(connection).values()))
        made = Manifest(
            created_at=created_at,
            service=__version__,
            schema=schema,
            models=models,
            counts=counts,
            missing={"blobs": missing_blobs, "points": missing_points},
            files={name: manifest.described(folder / name) for name in PARTS},
            secret_keys=secret_keys,
        )
        manifest.write(folder, made)
        return made

    def _copy_blobs(self, connection: Connection, path: Path, progress: Progress) -> tuple[int, int]:
        """(copied, missing): the bytes of every live document, checked against the hash in their key."""
        total = sum(len(_keys(page)) for page in inventory.live_documents(connection))
        copied = missing = 0
        with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for page in inventory.live_documents(connection):
                for key in _keys(page):
                    content = self._blob(key)
                    if content is None:
                        missing += 1
                        continue
                    entry = tarfile.TarInfo(key)
                    entry.size, entry.mode = len(content), 0o600
                    tar.addfile(entry, io.BytesIO(content))
                    copied += 1
                    progress("blobs", copied, total)
        return copied, missing

    def _blob(self, key: str) -> bytes | None:
        with contextlib.suppress(NotFound):
            content = self.blobs.get(key)
            if hashlib.sha256(content).hexdigest() == key.rpartition("/")[2]:
                return content
        return None

    def _copy_points(self, connection: Connection, path: Path, progress: Progress) -> tuple[int, int]:
        """(copied, missing): the vectors of every chunk that answers."""
        indexes = collections.all_active(connection)
        total = sum(inventory.answering_chunks(connection, index.id) for index in indexes)
        copied = 0
        with PointFile(path) as file:
            for index in indexes:
                for added in self._copy_index(connection, index, file):
                    copied += added
                    progress("vectors", copied, total)
        return copied, total - copied

    def _copy_index(self, connection: Connection, index: IndexVersion, file: PointFile) -> Iterator[int]:
        with contextlib.suppress(NotFound):  # an index that the store has lost: all its points are missing
            points = self.vectors.stored(index.id, vectors=True)
            while page := list(islice(points, _SLICE)):
                named = inventory.among(connection, index.id, [point.chunk_id for point in page])
                yield file.add(index.id, (point for point in page if point.chunk_id in named))


def _keys(page: list[Document]) -> list[str]:
    """The blobs of documents: the bytes as they came, newest and as they answer, and the text parsed of these."""
    return list(dict.fromkeys(key for one in page for key in (one.blob_key, _answering(one), one.text_key) if key))


def _answering(document: Document) -> str | None:
    return None if document.indexed_version is None else bytes_of(document, document.indexed_version)
