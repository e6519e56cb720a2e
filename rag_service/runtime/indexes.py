"""The life of index versions, wired."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rag_service.ingest.build_bell import BuildBell
from rag_service.ingest.builder import Builder
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.planning import Planner
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.promotion import Promotion
from rag_service.ingest.versions import Judge, Versions


@dataclass(frozen=True)
class Indexes:
    """What an administrator asks of index versions, and what builds them."""

    builder: Builder
    versions: Versions
    planner: Planner
    promotion: Promotion


def make_indexes(
    indexer: Indexer,
    bell: BuildBell,
    judge: Judge,
    stopping: threading.Event,
    *,
    precedence: Precedence,
    average_length: float,
    soak_s: float,
) -> Indexes:
    database, vectors = indexer.database, indexer.vectors
    builder = Builder(database, vectors, indexer, bell, stopping, precedence)
    versions = Versions(database, vectors, indexer.pipelines, bell, judge, average_length)
    return Indexes(
        builder=builder,
        versions=versions,
        planner=Planner(database, indexer.blobs, vectors, indexer.parse, versions),
        promotion=Promotion(database, builder, versions, soak_s),
    )
