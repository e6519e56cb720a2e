"""The vector-store port. Vectors can be rebuilt from SQL and blobs; nothing here may be the only copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rag_service.access import AccessScope, AccessTokens
from rag_service.types import Filter, SparseVector, Vector


@dataclass(frozen=True, slots=True)
class Storage:
    """How a server keeps an index: in how many shards, each on how many machines, and what of it in memory.

    `on_disk` leaves the vectors and their graph on disk; `quantisation` keeps smaller copies in memory to search by,
    one byte or one bit per dimension, and scores what they find by the originals.
    """

    shards: int = 1
    replicas: int = 1
    on_disk: bool = False
    quantisation: Literal["none", "int8", "binary"] = "none"


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """The physical shape of one index version. Dense vectors are unit length and compared by cosine.

    `storage` names what of `Storage` is wished; the rest is the store's choice. It matters only when the index is made.
    """

    dimensions: int
    storage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """One chunk as the store keeps it. `fields` are what a caller's filter may name.

    `revision` is the document's when its access and fields were read: a point of a later one is never overwritten.
    """

    chunk_id: str
    team: str
    document_id: str
    version: int
    text_hash: str
    dense: Vector
    lexical: SparseVector
    access: AccessTokens
    fields: Mapping[str, Any]
    revision: int = 0


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as it is read back; its vectors only where they were asked for."""

    chunk_id: str
    team: str
    document_id: str
    version: int
    text_hash: str
    access: AccessTokens
    dense: Vector | None = None
    lexical: SparseVector | None = None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for. At least one leg is given; `limit` candidates are drawn from each.

    `chunk_ids` None: anywhere, else among these chunks only (none at all is refused). Scores are the same either way.
    """

    dense: Vector | None
    lexical: SparseVector | None
    narrowing: Filter | None
    limit: int
    chunk_ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk with its score in both legs. A rank (from 1) is set only where the leg itself drew the chunk.

    dense: cosine in [-1, 1]; lexical: BM25 >= 0 (0 where no term matches); None where the leg was not asked.
    """

    chunk_id: str
    dense: float | None = None
    dense_rank: int | None = None
    lexical: float | None = None
    lexical_rank: int | None = None


class VectorStore(Protocol):
    """Every write is durable when it returns. Every method raises RetryableError when the store does not answer."""

    def create(self, index: str, spec: IndexSpec) -> None:
        """Make an empty index; one that exists with the same dimensions is left as it is.

        Raises InvalidRequest for a `storage` when this store has no such choices.
        """
        ...

    def upsert(self, index: str, points: Sequence[VectorPoint]) -> None:
        """Write points; one that is there with a later revision stays as it is.

        So a worker that was stopped with an old access list in hand, and goes on long after another has finished,
        does not undo what the other wrote. The store compares and writes in one step.
        """
        ...

    def delete(
        self,
        index: str,
        document_id: str,
        *,
        older_than: int | None = None,
        only: int | None = None,
        chunk_ids: frozenset[str] | None = None,
    ) -> None:
        """Remove a document's points: all, or those of a version below `older_than`, or of version `only`.

        With `chunk_ids` only of these chunks.
        """
        ...

    def update(
        self,
        index: str,
        document_id: str,
        *,
        access: AccessTokens | None = None,
        fields: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> None:
        """Replace the access tokens or the fields of all points of a document, in place.

        With the document's `revision` that they were read at: only of points that are not of a later one.
        """
        ...

    def set_lexical(self, index: str, document_id: str, vectors: Mapping[str, SparseVector]) -> None:
        """Replace the lexical vectors of a document's points, given by chunk id; those that are not there are skipped.

        All else of a point stays, whoever changes it meanwhile.
        """
        ...

    def stored(
        self,
        index: str,
        document_id: str | None = None,
        *,
        chunk_ids: frozenset[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """What the index holds of one document, of these chunks, or of all.

        For reusing vectors, for backups and for reconciling.
        """
        ...

    def count(self, index: str) -> int:
        """How many points the index holds, whatever their version."""
        ...

    def disk_bytes(self, index: str) -> int | None:
        """The bytes that its files take; None where the store does not tell."""
        ...

    def search(self, index: str, request: SearchRequest, scope: AccessScope) -> list[Candidate]:
        """The union of both legs' best `limit` chunks that `scope` may read, each scored by both legs.

        The lexical leg's IDF is computed over what `scope` may read, so foreign documents never move a score.
        """
        ...

    def drop(self, index: str) -> None:
        """Remove an index and its files; an unknown one is no error."""
        ...

    def close(self) -> None: ...
