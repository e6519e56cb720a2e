"""The distributed store: a Qdrant server or cluster, one collection per index version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from typing import Any, TypeAlias

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from rag_service.access import AccessScope, AccessTokens
from rag_service.errors import ConfigError, FatalError, NotFound, QuotaExceeded, RagError, RetryableError
from rag_service.types import SparseVector
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, Storage, StoredPoint, VectorPoint
from rag_service.vectors.conditions import (
    Among,
    Condition,
    Either,
    Every,
    Match,
    Range,
    Without,
    chosen,
    not_later,
    of_document,
    split,
)
from rag_service.vectors.layout import INDEXES, SEARCH, creation
from rag_service.vectors.legs import LegQuery, Scored, search
from rag_service.vectors.names import checked, other_spec
from rag_service.vectors.payload import (
    STORED_KEYS,
    changes,
    check_vector,
    payloads_of,
    range_keys,
    stored_point,
)

SLICE = 256  # points per request
MAX_RANGE_INDEXES = 32  # fields beyond are filtered without an index
_SILENT = "The vector store does not answer. If this repeats: is Qdrant running, and does RAG_QDRANT_URL lead to it?"
_RETRY_AFTER_S = 2
_LONGEST_WAIT_S = 300
# One replica of a shard puts concurrent writes in order for all of them; another takes over when it dies.
_ORDERING = models.WriteOrdering.MEDIUM
OLDEST = (1, 19)  # the first server that computes IDF over a part of a collection

Connect: TypeAlias = Callable[[], QdrantClient]


def connect_to(url: str, api_key: str | None = None, *, timeout_s: int = 30) -> Connect:
    """How to reach a server; nothing is connected yet."""
    return lambda: QdrantClient(url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False)


@dataclass(frozen=True, slots=True)
class _Collection:
    dimensions: int
    ranged: set[str]


class ServerVectorStore:
    """Behaves as the embedded store does. `prefix` keeps this service's collections apart from others on the server.

    Reads may come from any replica: what they find is confirmed in SQL before anybody sees it. `storage` is how indexes
    are kept whose spec says nothing.
    """

    def __init__(self, connect: Connect, prefix: str = "", storage: Storage | None = None) -> None:
        self._connect = connect
        self._prefix = prefix
        self._storage = storage or Storage()
        self._known: dict[str, _Collection] = {}

    @cached_property
    def _client(self) -> QdrantClient:
        client = self._connect()
        version = client.info().version
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise ConfigError(
                f"The Qdrant server is version {version}; at least {OLDEST[0]}.{OLDEST[1]} is needed, because older "
                "ones let documents that a reader may not see move the scores of those that she may."
            )
        return client

    def create(self, index: str, spec: IndexSpec) -> None:
        with self._reported(index) as name:
            if not self._client.collection_exists(name):
                self._make(name, spec)
            if self._collection(name).dimensions != spec.dimensions:
                raise other_spec(index)
            # Again on one that exists: its maker may have died half-way, and an index that is there stays as it is.
            for key, params in INDEXES.items():
                self._client.create_payload_index(name, key, params, wait=True, ordering=_ORDERING)

    def upsert(self, index: str, points: Sequence[VectorPoint]) -> None:
        with self._reported(index) as name:
            for revision, group in groupby(points, key=lambda point: point.revision):
                while part := list(islice(group, SLICE)):
                    made = [self._point(name, *each) for each in zip(part, payloads_of(part), strict=True)]
                    self._index_ranges(name, set().union(*(range_keys(point.payload or {}) for point in made)))
                    self._client.upsert(name, made, wait=True, ordering=_ORDERING, update_filter=_guard(revision))

    def delete(
        self,
        index: str,
        document_id: str,
        *,
        older_than: int | None = None,
        only: int | None = None,
        chunk_ids: frozenset[str] | None = None,
    ) -> None:
        with self._reported(index) as name:
            doomed = of_document(document_id, older_than=older_than, only=only, chunk_ids=chunk_ids)
            self._client.delete(name, models.FilterSelector(filter=_filter(doomed)), wait=True, ordering=_ORDERING)

    def update(
        self,
        index: str,
        document_id: str,
        *,
        access: AccessTokens | None = None,
        fields: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> None:
        payload = changes(access, fields, revision)
        changed = _filter(of_document(document_id, revision=revision))
        with self._reported(index) as name:
            self._index_ranges(name, range_keys(payload))
            if payload:
                self._client.set_payload(name, payload, points=changed, wait=True, ordering=_ORDERING)

    def set_lexical(self, index: str, document_id: str, vectors: Mapping[str, SparseVector]) -> None:
        # A server refuses an update that names a point it does not have.
        here = (point.chunk_id for point in self.stored(index, document_id) if point.chunk_id in vectors)
        while part := list(islice(here, SLICE)):
            made = [models.PointVectors(id=name, vector={"lexical": _sparse(vectors[name])}) for name in part]
            with self._reported(index) as name:
                self._client.update_vectors(name, made, wait=True, ordering=_ORDERING)

    def stored(
        self,
        index: str,
        document_id: str | None = None,
        *,
        chunk_ids: frozenset[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        points = chosen(document_id, chunk_ids)
        where = None if points is None else _filter(points)
        with self._reported(index) as name:
            self._client.get_collection(name)
        return self._scroll(index, where, vectors)

    def count(self, index: str) -> int:
        with self._reported(index) as name:
            return self._client.count(name, exact=True).count

    def disk_bytes(self, index: str) -> int | None:
        return None

    def search(self, index: str, request: SearchRequest, scope: AccessScope) -> list[Candidate]:
        with self._reported(index) as name:
            return search(request, scope, lambda queries: self._run(name, queries))

    def drop(self, index: str) -> None:
        with self._reported(index) as name:
            self._known.pop(name, None)
            self._client.delete_collection(name)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()
            del self._client

    def _make(self, name: str, spec: IndexSpec) -> None:
        try:
            self._client.create_collection(name, **creation(spec.dimensions, replace(self._storage, **spec.storage)))
        except UnexpectedResponse as error:
            if error.status_code != httpx.codes.CONFLICT:  # another process made it first
                raise

    def _run(self, name: str, queries: Sequence[LegQuery]) -> list[list[Scored]]:
        answers = self._client.query_batch_points(name, [_query(query) for query in queries])
        return [[Scored(str(hit.id), hit.score) for hit in answer.points] for answer in answers]

    def _scroll(self, index: str, where: models.Filter | None, vectors: bool) -> Iterator[StoredPoint]:
        offset: Any = None
        while True:
            with self._reported(index) as name:
                page, offset = self._client.scroll(
                    name,
                    where,
                    limit=SLICE,
                    offset=offset,
                    with_payload=list(STORED_KEYS),
                    with_vectors=["dense", "lexical"] if vectors else False,
                )
            yield from map(_stored, page)
            if offset is None:
                return

    def _collection(self, name: str) -> _Collection:
        if name not in self._known:
            info = self._client.get_collection(name)
            vectors = info.config.params.vectors
            dimensions = vectors["dense"].size if isinstance(vectors, dict) else 0
            self._known[name] = _Collection(dimensions, set(info.payload_schema) - set(INDEXES))
        return self._known[name]

    def _index_ranges(self, name: str, keys: set[str]) -> None:
        ranged = self._collection(name).ranged
        for key in sorted(keys - ranged)[: max(0, MAX_RANGE_INDEXES - len(ranged))]:
            self._client.create_payload_index(name, key, models.PayloadSchemaType.FLOAT, wait=True, ordering=_ORDERING)
            ranged.add(key)

    def _point(self, name: str, point: VectorPoint, payload: dict[str, Any]) -> models.PointStruct:
        check_vector(point, self._collection(name).dimensions)
        vectors = {"dense": point.dense.tolist(), "lexical": _sparse(point.lexical)}
        return models.PointStruct(id=point.chunk_id, vector=vectors, payload=payload)

    @contextmanager
    def _reported(self, index: str) -> Iterator[str]:
        """The collection's name, with the client's errors told as ours."""
        try:
            yield self._prefix + checked(index)
        except ResourceExhaustedResponse as error:
            raise QuotaExceeded(retry_after=error.retry_after_s) from error
        except UnexpectedResponse as error:
            raise _answered(index, error) from error
        except (ResponseHandlingException, httpx.HTTPError) as error:
            raise RetryableError(_SILENT) from error
        except ValueError as error:  # the client's in-process engine has no statuses
            if "not found" not in str(error):
                raise
            raise _unknown(index) from error


def _unknown(index: str) -> NotFound:
    return NotFound(f"There is no index {index!r}.")


def _answered(index: str, error: UnexpectedResponse) -> RagError:
    status = error.status_code or 0
    if status == httpx.codes.NOT_FOUND:
        return _unknown(index)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return ConfigError("The Qdrant server refuses our key. Correct RAG_QDRANT_API_KEY.")
    if httpx.codes.is_client_error(status) and status != httpx.codes.REQUEST_TIMEOUT:
        return FatalError(f"The Qdrant server refuses a request with status {status}.")
    return RetryableError(_SILENT, retry_after=_retry_after(error))


def _retry_after(error: UnexpectedResponse) -> int:
    """What the server asks for in seconds; its other form, a date, is as good as nothing."""
    asked = error.headers.get("Retry-After") or ""
    return min(int(asked), _LONGEST_WAIT_S) if asked.isdecimal() else _RETRY_AFTER_S


def _guard(revision: int) -> models.Filter:
    return _filter(Every((not_later(revision),)))


def _query(query: LegQuery) -> models.QueryRequest:
    if isinstance(query.vector, SparseVector):
        vector: Any = _sparse(query.vector)
        params = models.SearchParams(idf=models.IdfCorpusParams(corpus=_filter(query.corpus)))
    else:
        vector, params = query.vector.tolist(), SEARCH
    return models.QueryRequest(
        limit=query.limit,
        query=models.NearestQuery(nearest=vector),
        using=query.leg,
        filter=_filter(query.where),
        params=params,
        with_payload=False,
    )


def _stored(record: models.Record) -> StoredPoint:
    return stored_point(str(record.id), record.payload or {}, record.vector)


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(
        indices=[int(index) for index in vector.indices], values=[float(value) for value in vector.values]
    )


def _filter(condition: Condition) -> models.Filter:
    must, should, must_not = ([_condition(part) for part in parts] or None for parts in split(condition))
    return models.Filter(must=must, should=should, must_not=must_not)


def _condition(condition: Condition) -> models.Condition:
    match condition:
        case Match(key, values):
            return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        case Range(key, operator, bound):
            return models.FieldCondition(key=key, range=models.Range(**{operator: bound}))
        case Among(chunk_ids):
            return models.HasIdCondition(has_id=sorted(chunk_ids))
        case Every() | Either() | Without():
            return _filter(condition)
