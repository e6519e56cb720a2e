"""One Qdrant Edge shard: an index version, in this process.

Edge holds the interpreter lock in every call, so calls never overlap and long ones stop the whole process: writes
are cut into slices. `optimize()` is never called here, for the same reason (16 s at 100,000 points): the dense leg of
a small index compares every readable vector, that of a large one has them proposed by another process (`graph`).

A write is durable once Edge's log is on the disk, which takes 0.3 ms and stops nobody. `flush()` brings everything
else there too: 7 ms and 0.06 ms per point, with the interpreter lock held. It is needed only to keep the log short.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any

import qdrant_edge as qdrant

from rag_service.errors import NotFound, RagError, RetryableError
from rag_service.flushing import GroupCommit, sync_folder
from rag_service.types import SparseVector
from rag_service.vectors import graph
from rag_service.vectors.base import IndexSpec, StoredPoint, VectorPoint
from rag_service.vectors.conditions import Among, Condition, Either, Every, Range, not_later
from rag_service.vectors.edge_filter import edge_filter
from rag_service.vectors.graph import Graph
from rag_service.vectors.legs import LegQuery, Narrowed, Scored
from rag_service.vectors.payload import (
    KEYWORD_KEYS,
    STORED_KEYS,
    check_vector,
    payloads_of,
    range_keys,
    stored_point,
)
from rag_service.vectors.vocabulary import Vocabulary

SLICE = 100  # points per call of Edge: about 8 ms of a stopped process at 384 dimensions
PAGE = 256
FLUSH_EVERY = 500  # points; so many are replayed at most after a power cut
MAX_RANGE_INDEXES = 32  # each makes every flush about 0.4 ms longer; fields beyond are filtered without an index

MAX_DENIED = 100_000  # tokens kept in memory; with more, every search asks about denials

EPOCH = "epoch"  # when a point was last written, as far as graphs need to know

CLOSING_S = 10.0
_LOG = "wal"
_GRAPH = "graph"


class Shard:
    """A loaded shard folder. Raises NotFound once dropped, RetryableError once closed or when the disk fails."""

    def __init__(self, folder: Path, spec: IndexSpec) -> None:
        self.spec = spec
        self._folder = folder
        self._edge = qdrant.EdgeShard.load(str(folder))
        self._writing = Lock()
        self._graph = Graph(folder.with_name(_GRAPH), spec.dimensions, self._copied)
        self._epoch = int(time.time())
        self._unknown = 0  # points that no graph knows
        self._ranged = set(self._edge.info().payload_schema) - {EPOCH, *KEYWORD_KEYS}
        self._vocabulary = _vocabulary(self._edge)
        self._learning = Lock()
        self._log = folder / _LOG
        self._unflushed = 0
        self._commit = GroupCommit(self._make_durable)
        self._closed = False
        self._dropped = False
        self._open_graph()

    @staticmethod
    def make(folder: Path, spec: IndexSpec) -> None:
        """Write an empty shard to `folder`, which exists and is empty."""
        config = qdrant.EdgeConfig(
            vectors={"dense": qdrant.EdgeVectorParams(size=spec.dimensions, distance=qdrant.Distance.Cosine)},
            sparse_vectors={"lexical": qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
            max_search_threads=1,  # calls never overlap and an unoptimised shard is one segment
            wal_enabled=True,
        )
        edge = qdrant.EdgeShard.create(str(folder), config)
        for key in KEYWORD_KEYS:
            edge.update(qdrant.UpdateOperation.create_field_index(key, qdrant.PayloadSchemaType.Keyword))
        edge.update(qdrant.UpdateOperation.create_field_index(EPOCH, qdrant.PayloadSchemaType.Float))
        edge.flush()
        edge.close()

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        if not points:
            return
        for point in points:
            check_vector(point, self.spec.dimensions)
        for revision, group in groupby(points, key=lambda point: point.revision):
            self._upsert(list(group), edge_filter(Every((not_later(revision),))))

    def _upsert(self, points: Sequence[VectorPoint], replaceable: qdrant.Filter) -> None:
        with self._reported():
            with self._writing:
                made = list(map(self._point, points, payloads_of(points)))
                self._index_ranges(set().union(*(range_keys(point.payload or {}) for point in made)))
                self._learn({point.team for point in points}, {each for point in points for each in point.access.deny})
                for start in range(0, len(made), SLICE):
                    part = made[start : start + SLICE]
                    self._edge.update(qdrant.UpdateOperation.upsert_points(part, condition=replaceable))
            self._wrote(len(made), unknown=len(made))

    def delete(self, where: Condition) -> None:
        with self._reported():
            chosen = edge_filter(where)
            with self._writing:
                if points := self._edge.count(qdrant.CountRequest(filter=chosen)):
                    self._edge.update(qdrant.UpdateOperation.delete_points_by_filter(chosen))
            if points:
                self._wrote(points, unknown=points)

    def set_payload(self, where: Condition, payload: Mapping[str, Any]) -> None:
        with self._reported():
            chosen = edge_filter(where)
            with self._writing:
                points = self._edge.count(qdrant.CountRequest(filter=chosen)) if payload else 0
                if points:
                    self._index_ranges(range_keys(payload))
                    self._learn((), payload.get("deny", ()))
                    changed = {**payload, EPOCH: float(self._epoch)}
                    self._edge.update(qdrant.UpdateOperation.set_payload_by_filter(chosen, changed))
            if points:
                self._wrote(points, unknown=points)

    def set_lexical(self, where: Condition, vectors: Mapping[str, SparseVector]) -> None:
        # Edge refuses an update that names a point it does not have.
        here = [point.chunk_id for point in self.stored(where, vectors=False) if point.chunk_id in vectors]
        with self._reported():
            for start in range(0, len(here), SLICE):
                part = here[start : start + SLICE]
                made = [qdrant.PointVectors(chunk_id, {"lexical": _sparse(vectors[chunk_id])}) for chunk_id in part]
                with self._writing:
                    self._edge.update(qdrant.UpdateOperation.update_vectors(made))
            if here:
                self._wrote(len(here))

    def propose(self, query: LegQuery) -> Narrowed | None:
        """Have the graph look for what may be nearest; what it does not know is to be compared too."""
        if isinstance(query.vector, SparseVector) or any(isinstance(part, Among) for part in query.where.conditions):
            return None
        proposed = self._graph.ask(query.vector, query.limit, self._vocabulary.simplified(query.where))
        return None if proposed is None else lambda: _near(query, proposed())

    def run(self, queries: Sequence[LegQuery]) -> list[list[Scored]]:
        while True:
            vocabulary = self._vocabulary
            asked = [_query(query, vocabulary) for query in queries]
            with self._reported():
                answers = self._edge.query_batch(qdrant.QueryBatchRequest(asked))
            # A point with a new word may have come between the question and the answer: then ask again.
            if vocabulary is self._vocabulary:
                return [[Scored(str(hit.id), hit.score) for hit in hits] for hits in answers]

    def stored(self, where: Condition | None, vectors: bool) -> Iterator[StoredPoint]:
        offset: qdrant.PointId | None = None
        while True:
            request = qdrant.ScrollRequest(
                offset=offset,
                limit=PAGE,
                filter=None if where is None else edge_filter(where),
                with_payload=list(STORED_KEYS),
                with_vector=["dense", "lexical"] if vectors else False,
            )
            with self._reported():
                page, offset = self._edge.scroll(request)
            yield from map(_stored, page)
            if offset is None:
                return

    def count(self) -> int:
        with self._reported():
            return self._edge.count(qdrant.CountRequest())

    def close(self, *, dropped: bool = False) -> None:
        self._dropped = dropped
        if not self._closed:
            self._closed = True
            self._graph.close()
            self._edge.flush()
            self._close_when_unused()

    def _close_when_unused(self) -> None:
        """Edge refuses to close, with a RuntimeError, while another thread is inside one of its calls."""
        deadline = time.monotonic() + CLOSING_S
        while True:
            try:
                return self._edge.close()
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def _wrote(self, points: int, *, unknown: int = 0) -> None:
        self._unflushed += points
        self._unknown += unknown
        self._commit.commit()
        self._grow_graph()

    def _open_graph(self) -> None:
        info, since = self._edge.info(), self._graph.open()
        if EPOCH not in info.payload_schema:  # made by a former version
            self._edge.update(qdrant.UpdateOperation.create_field_index(EPOCH, qdrant.PayloadSchemaType.Float))
        if since is None:
            self._unknown = info.points_count
        else:
            self._epoch = since
            newer = edge_filter(Every((Range(EPOCH, "gte", float(since)),)))
            self._unknown = self._edge.count(qdrant.CountRequest(filter=newer))
        self._grow_graph()

    def _grow_graph(self) -> None:
        if self._unknown >= graph.LEAST and graph.is_due(self._unknown, self._edge.info().points_count):
            self._graph.grow()

    def _copied(self, folder: Path) -> int:
        """Copy the shard; searches go on meanwhile, writes wait. The epoch of what is written afterwards."""
        with self._reported(), self._writing:
            self._edge.flush()
            shutil.copytree(self._folder, folder)
            self._epoch = max(self._epoch + 1, int(time.time()))
            self._unknown = 0
            return self._epoch

    def _make_durable(self) -> None:
        if self._unflushed < FLUSH_EVERY:
            sync_folder(self._log)
        else:
            with self._writing:
                self._edge.flush()
            self._unflushed = 0
        if self._closed:  # a closed shard flushes nothing and says nothing
            raise self._unavailable()

    def _learn(self, teams: Iterable[str], denied: Iterable[str]) -> None:
        """Before the points are written that have these words."""
        with self._learning:
            self._vocabulary = self._vocabulary.including(teams, denied)

    def _index_ranges(self, keys: set[str]) -> None:
        for key in sorted(keys - self._ranged):
            if len(self._ranged) >= MAX_RANGE_INDEXES:
                return
            self._edge.update(qdrant.UpdateOperation.create_field_index(key, qdrant.PayloadSchemaType.Float))
            self._ranged.add(key)

    def _point(self, point: VectorPoint, payload: Mapping[str, Any]) -> qdrant.Point:
        vectors = {"dense": point.dense.tolist(), "lexical": _sparse(point.lexical)}
        return qdrant.Point(point.chunk_id, vectors, {**payload, EPOCH: float(self._epoch)})

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except RagError:
            raise
        except Exception as error:  # Edge raises nothing more precise
            raise self._unavailable() from error

    def _unavailable(self) -> RagError:
        if self._dropped:
            return NotFound("This index has been dropped.")
        return RetryableError("The vector store does not answer. Look at its disk if this repeats.")


def _near(query: LegQuery, proposal: graph.Proposal | None) -> LegQuery | None:
    """`query` among what the graph proposes and what it does not know."""
    if proposal is None:
        return None
    newer = Range(EPOCH, "gte", float(proposal.since))
    near = Either((Among(proposal.chunk_ids), newer)) if proposal.chunk_ids else newer
    return replace(query, where=Every((near, *query.where.conditions)))


def _stored(record: qdrant.Record) -> StoredPoint:
    return stored_point(str(record.id), record.payload or {}, record.vector)


def _vocabulary(edge: qdrant.EdgeShard) -> Vocabulary:
    def words(key: str) -> frozenset[str]:
        return frozenset(str(hit.value) for hit in edge.facet(qdrant.FacetRequest(key, MAX_DENIED, exact=True)))

    denied = words("deny")
    return Vocabulary(words("team"), denied if len(denied) < MAX_DENIED else None)


def _query(query: LegQuery, vocabulary: Vocabulary) -> qdrant.QueryRequest:
    if isinstance(query.vector, SparseVector):
        vector: qdrant.NamedVector = _sparse(query.vector)
        params = qdrant.SearchParams(idf=qdrant.IdfParams(corpus=edge_filter(vocabulary.simplified(query.corpus))))
    else:
        vector, params = query.vector.tolist(), qdrant.SearchParams(exact=True)
    return qdrant.QueryRequest(
        limit=query.limit,
        query=qdrant.Query.Nearest(vector, using=query.leg),
        filter=edge_filter(vocabulary.simplified(query.where)),
        params=params,
        with_payload=False,
    )


def _sparse(vector: SparseVector) -> qdrant.SparseVector:
    return qdrant.SparseVector(list(map(int, vector.indices)), list(map(float, vector.values)))
