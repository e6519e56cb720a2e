"""One Qdrant Edge shard: an index version, in this process.

Edge holds the interpreter lock in every call, so calls never overlap and long ones stop the whole process: writes
are cut into slices. `optimize()` is never called, for the same reason (16 s at 100,000 points). Without it the dense
leg compares every readable vector, which stays fast up to about 100,000 chunks per index; beyond that use a server.

A write is durable once Edge's log is on the disk, which takes 0.3 ms and stops nobody. `flush()` brings everything
else there too: 7 ms and 0.06 ms per point, with the interpreter lock held. It is needed only to keep the log short.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from rag_service.errors import NotFound, RagError, RetryableError
from rag_service.types import SparseVector
from rag_service.vectors.base import IndexSpec, StoredPoint, VectorPoint
from rag_service.vectors.conditions import Among, Condition, Either, Every, Match, Range, Without, not_later, split
from rag_service.vectors.flushing import GroupCommit, sync_folder
from rag_service.vectors.legs import LegQuery, Scored
from rag_service.vectors.payload import (
    KEYWORD_KEYS,
    STORED_KEYS,
    check_vector,
    payload_of,
    range_keys,
    stored_point,
)

SLICE = 100  # points per call of Edge: about 8 ms of a stopped process at 384 dimensions
PAGE = 256
FLUSH_EVERY = 500  # points; so many are replayed at most after a power cut
MAX_RANGE_INDEXES = 32  # each makes every flush about 0.4 ms longer; fields beyond are filtered without an index

CLOSING_S = 10.0
_LOG = "wal"


class Shard:
    """A loaded shard folder. Raises NotFound once dropped, RetryableError once closed or when the disk fails."""

    def __init__(self, folder: Path, spec: IndexSpec) -> None:
        self.spec = spec
        self._edge = qdrant.EdgeShard.load(str(folder))
        self._ranged = {key for key in self._edge.info().payload_schema if key not in KEYWORD_KEYS}
        self._log = folder / _LOG
        self._unflushed = 0
        self._commit = GroupCommit(self._make_durable)
        self._closed = False
        self._dropped = False

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
        edge.flush()
        edge.close()

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        if not points:
            return
        for revision, group in groupby(points, key=lambda point: point.revision):
            self._upsert([self._point(point) for point in group], _filter(Every((not_later(revision),))))

    def _upsert(self, made: list[qdrant.Point], replaceable: qdrant.Filter) -> None:
        with self._reported():
            self._index_ranges(set().union(*(range_keys(point.payload or {}) for point in made)))
            for start in range(0, len(made), SLICE):
                part = made[start : start + SLICE]
                self._edge.update(qdrant.UpdateOperation.upsert_points(part, condition=replaceable))
            self._wrote(len(made))

    def delete(self, where: Condition) -> None:
        with self._reported():
            chosen = _filter(where)
            if points := self._edge.count(qdrant.CountRequest(filter=chosen)):
                self._edge.update(qdrant.UpdateOperation.delete_points_by_filter(chosen))
                self._wrote(points)

    def set_payload(self, where: Condition, payload: Mapping[str, Any]) -> None:
        with self._reported():
            chosen = _filter(where)
            if payload and (points := self._edge.count(qdrant.CountRequest(filter=chosen))):
                self._index_ranges(range_keys(payload))
                self._edge.update(qdrant.UpdateOperation.set_payload_by_filter(chosen, dict(payload)))
                self._wrote(points)

    def set_lexical(self, where: Condition, vectors: Mapping[str, SparseVector]) -> None:
        # Edge refuses an update that names a point it does not have.
        here = [point.chunk_id for point in self.stored(where, vectors=False) if point.chunk_id in vectors]
        with self._reported():
            for start in range(0, len(here), SLICE):
                part = here[start : start + SLICE]
                made = [qdrant.PointVectors(chunk_id, {"lexical": _sparse(vectors[chunk_id])}) for chunk_id in part]
                self._edge.update(qdrant.UpdateOperation.update_vectors(made))
            if here:
                self._wrote(len(here))

    def run(self, queries: Sequence[LegQuery]) -> list[list[Scored]]:
        with self._reported():
            answers = self._edge.query_batch(qdrant.QueryBatchRequest([_query(query) for query in queries]))
        return [[Scored(str(hit.id), hit.score) for hit in hits] for hits in answers]

    def stored(self, where: Condition | None, vectors: bool) -> Iterator[StoredPoint]:
        offset: qdrant.PointId | None = None
        while True:
            request = qdrant.ScrollRequest(
                offset=offset,
                limit=PAGE,
                filter=None if where is None else _filter(where),
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

    def _wrote(self, points: int) -> None:
        self._unflushed += points
        self._commit.commit()

    def _make_durable(self) -> None:
        if self._unflushed < FLUSH_EVERY:
            sync_folder(self._log)
        else:
            self._edge.flush()
            self._unflushed = 0
        if self._closed:  # a closed shard flushes nothing and says nothing
            raise self._unavailable()

    def _index_ranges(self, keys: set[str]) -> None:
        for key in sorted(keys - self._ranged):
            if len(self._ranged) >= MAX_RANGE_INDEXES:
                return
            self._edge.update(qdrant.UpdateOperation.create_field_index(key, qdrant.PayloadSchemaType.Float))
            self._ranged.add(key)

    def _point(self, point: VectorPoint) -> qdrant.Point:
        check_vector(point, self.spec.dimensions)
        vectors = {"dense": point.dense.tolist(), "lexical": _sparse(point.lexical)}
        return qdrant.Point(point.chunk_id, vectors, payload_of(point))

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


def _stored(record: qdrant.Record) -> StoredPoint:
    held: Mapping[str, Any] = record.vector if isinstance(record.vector, dict) else {}
    dense, terms = held.get("dense"), held.get("lexical")
    return stored_point(
        str(record.id),
        record.payload or {},
        None if dense is None else np.asarray(dense, dtype=np.float32),
        None if terms is None else SparseVector(terms.indices, terms.values),
    )


def _query(query: LegQuery) -> qdrant.QueryRequest:
    if isinstance(query.vector, SparseVector):
        vector: qdrant.NamedVector = _sparse(query.vector)
        params = qdrant.SearchParams(idf=qdrant.IdfParams(corpus=_filter(query.corpus)))
    else:
        vector, params = query.vector.tolist(), qdrant.SearchParams(exact=True)
    return qdrant.QueryRequest(
        limit=query.limit,
        query=qdrant.Query.Nearest(vector, using=query.leg),
        filter=_filter(query.where),
        params=params,
        with_payload=False,
    )


def _sparse(vector: SparseVector) -> qdrant.SparseVector:
    return qdrant.SparseVector(list(map(int, vector.indices)), list(map(float, vector.values)))


# The same reader asks again and again, and both legs of a question ask under the same conditions.
@lru_cache(maxsize=256)
def _filter(condition: Condition) -> qdrant.Filter:
    must, should, must_not = ([_condition(part) for part in parts] or None for parts in split(condition))
    return qdrant.Filter(must=must, should=should, must_not=must_not)


def _condition(condition: Condition) -> qdrant.ConditionType:
    match condition:
        case Match(key, values):
            return qdrant.FieldCondition(key, match=qdrant.MatchAny(list(values)))
        case Range(key, operator, bound):
            return qdrant.FieldCondition(key, range=qdrant.RangeFloat(**{operator: bound}))
        case Among(chunk_ids):
            return qdrant.HasIdCondition(set(chunk_ids))
        case Every() | Either() | Without():
            return _filter(condition)
