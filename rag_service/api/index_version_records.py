"""Index versions as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, Field

from rag_service.api.schemas import Failure
from rag_service.db import Connection, builds
from rag_service.db.builds import Build, Held
from rag_service.ingest.build_pace import Pace
from rag_service.types import IndexState

_FAILURES_SHOWN = 10


class Sized(Protocol):
    def disk_bytes(self, index: str) -> int | None: ...


class Sizes(BaseModel):
    """What it answers with; `bytes` on disk where the store can tell."""

    documents: int
    chunks: int
    bytes: int | None


class BuildFailure(BaseModel):
    """A document that could not be built."""

    document_id: str
    stage: str
    code: str
    message: str


class BuildProgress(BaseModel):
    """`total` documents answer now; `done` of them are built in the version that answers, `behind` are not yet.

    Chunks are counted as the active index version has them. `rate` is chunks per second over the whole build, `eta_s`
    the seconds that are left at that pace; null where it is not known.
    """

    total: int
    done: int
    failed: int
    behind: int
    chunks_total: int
    chunks_done: int
    rate: float | None
    eta_s: float | None
    failures: list[BuildFailure] = Field(description="The first of those that could not be built.")


class IndexVersionRecord(BaseModel):
    """`quality` is the newest comparison with the active one; `retire_at` says until when it is kept for a rollback."""

    id: str
    number: int
    collection: str
    collection_id: str
    state: IndexState
    paused: bool
    note: str
    pipeline: dict[str, Any]
    priority: str
    max_concurrency: int
    embedding_model: str
    embedding_revision: str
    dimensions: int
    chunker: str
    analyser: str
    sizes: Sizes
    progress: BuildProgress
    quality: dict[str, Any] | None
    error: Failure | None
    created_at: datetime
    built_at: datetime | None
    activated_at: datetime | None
    retire_at: datetime | None
    retired_at: datetime | None = Field(description="When its files were dropped.")


def records(connection: Connection, found: Sequence[Build], vectors: Sized) -> list[IndexVersionRecord]:
    held = builds.held(connection, [build.index.id for build in found])
    return [_record(connection, build, held[build.index.id], vectors) for build in found]


def record(connection: Connection, build: Build, vectors: Sized) -> IndexVersionRecord:
    return records(connection, [build], vectors)[0]


def _record(connection: Connection, build: Build, held: Held, vectors: Sized) -> IndexVersionRecord:
    index = build.index
    gone = build.retired_at is not None
    return IndexVersionRecord(
        id=index.id,
        number=index.number,
        collection=build.collection,
        collection_id=index.collection_id,
        state=index.state,
        paused=build.paused,
        note=build.note,
        pipeline=dict(index.pipeline),
        priority=build.priority,
        max_concurrency=build.max_concurrency,
        embedding_model=index.embedder.name,
        embedding_revision=index.embedder.revision,
        dimensions=index.embedder.dimensions,
        chunker=index.chunker,
        analyser=index.analyser,
        sizes=Sizes(documents=held.documents, chunks=held.chunks, bytes=0 if gone else vectors.disk_bytes(index.id)),
        progress=_progress(connection, build),
        quality=None if build.quality is None else dict(build.quality),
        error=Failure.of(build.error),
        created_at=index.created_at,
        built_at=build.built_at,
        activated_at=build.activated_at,
        retire_at=build.retire_at,
        retired_at=build.retired_at,
    )


def _progress(connection: Connection, build: Build) -> BuildProgress:
    left, pace = builds.left(connection, build.index), Pace.of(build.progress)
    live = build.index.state.is_live
    failed, first = builds.failures(connection, build.index.id, _FAILURES_SHOWN)
    eta = pace.seconds_for(left.waiting, left.waiting_chunks) if live and not build.paused else None
    return BuildProgress(
        total=left.documents,
        done=left.documents - left.waiting - failed,
        failed=failed,
        behind=left.waiting if live else 0,
        chunks_total=left.chunks,
        chunks_done=left.chunks - left.waiting_chunks,
        rate=None if pace.rate is None else round(pace.rate, 2),
        eta_s=None if eta is None else round(eta, 1),
        failures=[
            BuildFailure(document_id=document_id, stage=why.stage, code=why.code, message=why.message)
            for document_id, why in first
        ],
    )
