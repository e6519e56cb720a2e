"""Data of any size that nobody had to embed: vectors around centres, terms by Zipf's law, texts of real sentences."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from connectors.base import Acl
from rag_service.access import AccessTokens
from rag_service.db import collections, jobs
from rag_service.db.tables import chunks
from rag_service.embedding.base import TextKind
from rag_service.ingest.intake import Incoming, Target
from rag_service.retrieval.probing.texts import TEXTS
from rag_service.runtime import Runtime, build
from rag_service.settings import Settings
from rag_service.types import SparseVector
from rag_service.vectors.base import VectorPoint
from rag_service.vectors.edge import EdgeVectorStore
from workers.inside import InsideWorker

TEAM = "bench"
DIMENSIONS = 384
BATCH = 100
_CENTRES = 1_000
_TERMS = 60
_VOCABULARY = 50_000
_SECTIONS_PER_DOCUMENT = 50
_SENTENCES_PER_SECTION = 4  # some 125 tokens: a chunk, or two
_MOST_PER_DOCUMENT = 65


class Generator:
    """The same data for the same seed."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._centres = _unit(self._random.normal(size=(_CENTRES, DIMENSIONS)))

    def vectors(self, count: int) -> NDArray[np.float32]:
        """Unit vectors, shape (count, DIMENSIONS), each near one of the centres."""
        chosen = self._centres[self._random.integers(_CENTRES, size=count)]
        return _unit(chosen + self._random.normal(scale=0.04, size=chosen.shape))

    def terms(self, count: int) -> SparseVector:
        """At most `count` terms."""
        ranks = np.unique(self._random.zipf(1.3, size=2 * count) % _VOCABULARY)[:count]
        weights = self._random.random(len(ranks)) + 0.5
        return SparseVector([int(rank) for rank in ranks], [float(weight) for weight in weights])

    def batches(self, count: int) -> Iterator[list[VectorPoint]]:
        """`count` points in documents of BATCH chunks, each readable by one of ten groups."""
        for start in range(0, count, BATCH):
            document = uuid.UUID(bytes=self._random.bytes(16)).hex
            access = AccessTokens((f"group:g{int(self._random.integers(10))}",), ())
            vectors = self.vectors(min(BATCH, count - start))
            yield [self._point(document, access, vector) for vector in vectors]

    def _point(self, document: str, access: AccessTokens, vector: NDArray[np.float32]) -> VectorPoint:
        return VectorPoint(
            chunk_id=str(uuid.UUID(bytes=self._random.bytes(16))),
            team=TEAM,
            document_id=document,
            version=1,
            text_hash="",
            dense=vector,
            lexical=self.terms(_TERMS),
            access=access,
            fields={"title": document, "media_type": "text/plain"},
        )


def fill(folder: Path, passages: Sequence[str], wanted: int) -> None:
    """Put `wanted` chunks of shuffled sentences, or a few more, through the pipeline into the team's collection.

    Only what computes the vectors is replaced: an hour of embedding would say nothing about the time of a search. The
    graph of neighbours is made before it ends, as it would be in the course of that hour.
    """
    runtime = build(Settings(data_dir=folder))
    runtime.open()
    generator, genuine, probed = Generator(), runtime.embedder.embed, frozenset(TEXTS)

    def generated(texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        # By the fingerprint's texts the service would notice that this is not the model, and not be ready.
        return genuine(texts, kind) if probed.issuperset(texts) else generator.vectors(len(texts))

    runtime.embedder.embed = generated  # type: ignore[method-assign]  # that is the point
    worker = InsideWorker(runtime)
    worker.start()
    try:
        runtime.catalogue.create_team(TEAM, "Benchmark")
        texts = enumerate(_texts(passages))
        while (missing := wanted - _chunks(runtime)) > 0:
            for number, text in islice(texts, -(-missing // _MOST_PER_DOCUMENT)):
                _put(runtime, number, text)
            while _open_jobs(runtime):
                time.sleep(0.5)
        wait_for_graphs(cast(EdgeVectorStore, runtime.vectors))
    finally:
        worker.stop()
        runtime.close()


def wait_for_graphs(store: EdgeVectorStore) -> None:
    """Return once the graphs that are due are made and put to use."""
    while any(shard._graph.busy for shard in store._shards.values()):
        time.sleep(0.05)


def _put(runtime: Runtime, number: int, text: str) -> None:
    with runtime.database.read() as connection:
        collection = collections.get(connection, TEAM, collections.DEFAULT)
    acl = Acl(groups=(f"g{number % 10}",))
    incoming = Incoming(f"generated/{number}", text.encode, media_type="text/markdown", acl=acl)
    runtime.intake.accept(Target(TEAM, collection.id), [incoming])


def _open_jobs(runtime: Runtime) -> int:
    with runtime.database.read() as connection:
        return jobs.count_open(connection, TEAM)


def _chunks(runtime: Runtime) -> int:
    with runtime.database.read() as connection:
        return connection.execute(select(func.count()).select_from(chunks)).scalar_one()


def _texts(passages: Sequence[str]) -> Iterator[str]:
    chance = random.Random(7)
    sentences = [part.strip() for text in passages for part in text.split(". ") if 40 < len(part) < 250]
    while True:
        sections = [
            f"# Section {place}\n\n" + ". ".join(chance.choices(sentences, k=_SENTENCES_PER_SECTION)) + "."
            for place in range(_SECTIONS_PER_DOCUMENT)
        ]
        yield "\n\n".join(sections)


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
