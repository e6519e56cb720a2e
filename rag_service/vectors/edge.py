"""The embedded store: Qdrant Edge, one shard folder per index version, all in this process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any
from uuid import uuid4

from rag_service.access import AccessScope, AccessTokens
from rag_service.errors import ConfigError, InvalidRequest, NotFound
from rag_service.flushing import sync
from rag_service.types import SparseVector
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, StoredPoint, VectorPoint
from rag_service.vectors.conditions import chosen, of_document
from rag_service.vectors.legs import search
from rag_service.vectors.names import checked, other_spec
from rag_service.vectors.payload import changes
from rag_service.vectors.shard import Shard

_LOCK = ".lock"
_SPEC = "spec.json"
_SHARD = "shard"


class EdgeVectorStore:
    """A folder `root` that one process holds at a time. Shards are loaded when first used and stay open.

    An index is a folder `<root>/<index>`; it comes and goes by one rename, so a crash leaves no half of one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shards: dict[str, Shard] = {}
        self._lifecycle = RLock()  # held to open, make and drop; searches and writes go without
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder. Every method does so when needed; call it at start to fail early.

        Raises ConfigError when another process holds the folder.
        """
        with self._lifecycle:
            if self._lock is None:
                self._root.mkdir(parents=True, exist_ok=True)
                self._lock = _hold(self._root / _LOCK)
                for leftover in self._root.glob(".*-*"):
                    shutil.rmtree(leftover)

    def create(self, index: str, spec: IndexSpec) -> None:
        with self._lifecycle:
            self.open()
            if spec.storage:
                raise InvalidRequest(
                    "The embedded vector store keeps every index in one folder. Leave `storage` away, or set "
                    "RAG_QDRANT_URL so that a Qdrant server keeps it.",
                    code="storage_unsupported",
                )
            if self._folder(index).exists():
                if self._shard(index).spec.dimensions != spec.dimensions:
                    raise other_spec(index)
                return
            unfinished = self._aside("new")
            (unfinished / _SHARD).mkdir(parents=True)
            Shard.make(unfinished / _SHARD, spec)
            (unfinished / _SPEC).write_text(json.dumps({"dimensions": spec.dimensions}))
            sync(unfinished / _SPEC)
            self._rename(unfinished, self._folder(index))

    def upsert(self, index: str, points: Sequence[VectorPoint]) -> None:
        self._shard(index).upsert(points)

    def delete(
        self,
        index: str,
        document_id: str,
        *,
        older_than: int | None = None,
        only: int | None = None,
        chunk_ids: frozenset[str] | None = None,
    ) -> None:
        doomed = of_document(document_id, older_than=older_than, only=only, chunk_ids=chunk_ids)
        self._shard(index).delete(doomed)

    def update(
        self,
        index: str,
        document_id: str,
        *,
        access: AccessTokens | None = None,
        fields: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> None:
        changed = of_document(document_id, revision=revision)
        self._shard(index).set_payload(changed, changes(access, fields, revision))

    def set_lexical(self, index: str, document_id: str, vectors: Mapping[str, SparseVector]) -> None:
        self._shard(index).set_lexical(of_document(document_id), vectors)

    def stored(
        self,
        index: str,
        document_id: str | None = None,
        *,
        chunk_ids: frozenset[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        return self._shard(index).stored(chosen(document_id, chunk_ids), vectors)

    def count(self, index: str) -> int:
        return self._shard(index).count()

    def disk_bytes(self, index: str) -> int | None:
        # Folders and files come and go while it is written to or dropped: what is not there takes nothing.
        return sum(_size(Path(at) / name) for at, _, names in os.walk(self._folder(index)) for name in names)

    def search(self, index: str, request: SearchRequest, scope: AccessScope) -> list[Candidate]:
        shard = self._shard(index)
        return search(request, scope, shard.run, shard.propose)

    def drop(self, index: str) -> None:
        with self._lifecycle:
            self.open()
            folder, shard = self._folder(index), self._shards.pop(index, None)
            if shard is not None:
                shard.close(dropped=True)
            if folder.exists():
                doomed = self._aside("old")
                self._rename(folder, doomed)
                shutil.rmtree(doomed)

    def close(self) -> None:
        with self._lifecycle:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _shard(self, index: str) -> Shard:
        return self._shards.get(index) or self._load(index)

    def _load(self, index: str) -> Shard:
        with self._lifecycle:
            self.open()
            folder = self._folder(index)
            if not folder.exists():
                raise NotFound(f"There is no index {index!r}.")
            if index not in self._shards:
                spec = IndexSpec(**json.loads((folder / _SPEC).read_text()))
                self._shards[index] = Shard(folder / _SHARD, spec)
            return self._shards[index]

    def _folder(self, index: str) -> Path:
        return self._root / checked(index)

    def _aside(self, purpose: str) -> Path:
        # Index names never begin with a dot.
        return self._root / f".{purpose}-{uuid4().hex}"

    def _rename(self, source: Path, target: Path) -> None:
        source.rename(target)
        sync(self._root)


def _size(path: Path) -> int:
    """On disk: the store makes its files large at once, and most of them holes."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _hold(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"The vector store in {path.parent} is in use by another process. Stop that process, or give each its own "
            "RAG_DATA_DIR, or set RAG_QDRANT_URL so that several processes share a Qdrant server."
        ) from error
    return descriptor
