"""The nouns of the house as frozen dataclasses. They hold data and decide nothing.

Times are timezone-aware UTC. Texts are str; offsets into them count Python characters.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Scalar: TypeAlias = str | int | float | bool
MetadataValue: TypeAlias = Scalar | list[Scalar]
Metadata: TypeAlias = Mapping[str, MetadataValue]
Vector: TypeAlias = NDArray[np.float32]


def utc_now() -> datetime:
    """The present moment, timezone-aware."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An unguessable id that sorts by time of creation: 48 bits of milliseconds, 80 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class DocumentStatus(StrEnum):
    ACCEPTED = "accepted"
    PARSING = "parsing"
    CHUNKING = "chunking"
    EMBEDDING = "embedding"
    INDEXING = "indexing"
    READY = "ready"
    FAILED = "failed"
    DELETED = "deleted"


class IndexState(StrEnum):
    """building -> catching_up -> ready -> active -> soaking -> retired, or failed on the way to ready."""

    BUILDING = "building"
    CATCHING_UP = "catching_up"
    READY = "ready"
    ACTIVE = "active"
    SOAKING = "soaking"
    RETIRED = "retired"
    FAILED = "failed"

    @property
    def is_live(self) -> bool:
        """Whether changes of documents reach it."""
        return self not in (IndexState.RETIRED, IndexState.FAILED)


class JobKind(StrEnum):
    SYNC = "sync"
    INDEX = "index"
    REMOVE = "remove"
    REFRESH = "refresh"
    CALIBRATE = "calibrate"
    DELIVER = "deliver"
    BUILD = "build"
    REINDEX = "reindex"
    PROBE = "probe"

    @property
    def has_children(self) -> bool:
        """Whether it lists what is to be done and is over when all of that is."""
        return self in (JobKind.SYNC, JobKind.REINDEX)

    @property
    def may_be_canceled(self) -> bool:
        """Whether somebody wishes for it. The others carry out what a commit has acknowledged."""
        return self in (JobKind.SYNC, JobKind.INDEX, JobKind.REINDEX, JobKind.BUILD, JobKind.PROBE)


class FromStage(StrEnum):
    """Where work on what is kept of a document begins; the later, the less is done anew."""

    FETCH = "fetch"
    PARSE = "parse"
    CHUNK = "chunk"
    EMBED = "embed"
    METADATA = "metadata"
    PERMISSIONS = "permissions"


class EventType(StrEnum):
    """What webhooks are told of."""

    DOCUMENT_READY = "document.ready"
    DOCUMENT_FAILED = "document.failed"
    DOCUMENT_DELETED = "document.deleted"
    SYNC_FINISHED = "sync.finished"
    SOURCE_DEGRADED = "source.degraded"
    DELETION_HELD = "deletion.held"
    INDEX_PROMOTED = "index.promoted"
    PROBE_FAILED = "probe.failed"


class Queue(StrEnum):
    """Where a job waits: what somebody waits for, what comes by the thousand, what reads sources, what tidies up."""

    UPLOADS = "uploads"
    BULK = "bulk"
    SYNCS = "syncs"
    MAINTENANCE = "maintenance"


class ProbeState(StrEnum):
    """How something that is watched is. `unknown`: nobody has looked, or there is too little to look at."""

    UNKNOWN = "unknown"
    OK = "ok"
    FAILING = "failing"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


# --- parsing and chunking -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageStart:
    """Page `page` (counted from 1) begins at character `start` of the parsed text."""

    start: int
    page: int


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a parser makes of raw bytes: normalised Markdown (or plain text, or code)."""

    text: str
    title: str | None = None
    pages: tuple[PageStart, ...] = ()
    layout: Literal["markdown", "plain", "code"] = "markdown"
    parser: str = ""


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A passage: `document.text[start:end] == text`, exactly."""

    text: str
    start: int
    end: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Parallel term ids (unique) and weights."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """What must be equal for two vectors to be comparable."""

    name: str
    revision: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.name}@{self.revision[:12]} ({self.dimensions} dimensions)"


# --- the caller's narrowing ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition on one field; `field` is a dotted path into the document's fields.

    `operand` is a scalar for eq ne gt gte lt lte, a tuple of scalars for in nin, a bool for exists.
    A range over strings compares RFC 3339 dates.
    """

    field: str
    operator: Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists"]
    operand: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: Filter


Filter: TypeAlias = "Compare | AllOf | AnyOf | Not"


# --- rows ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Team:
    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: the secret itself is not here. `team_id` None is an admin key."""

    id: str
    team_id: str | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    user: str | None
    groups: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Collection:
    """`retrieval` holds how questions are answered here unless they say otherwise: `{"fusion": {...}}`, or nothing.

    `storage` holds what was wished of a server that keeps the vectors: `{"shards": 4}`, or nothing.
    """

    id: str
    team_id: str
    name: str
    description: str
    language: str
    created_at: datetime
    active_index: str | None
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One physical build of a collection; `id` is the name of the index in the vector store.

    `number` counts the builds of the collection from 1. `pipeline` is what of it differs from the settings:
    `{"embedding": {...}, "chunking": {...}, "language": "de"}`, or nothing. `calibration` numbers the encoding of its
    lexical vectors: analyser and average length change with it only. Once a question was asked the index is `settled`:
    its average length stays, so that no score moves.
    """

    id: str
    collection_id: str
    number: int
    state: IndexState
    pipeline: Mapping[str, Any]
    embedder: EmbedderIdentity
    chunker: str
    analyser: str
    average_length: float
    calibration: int
    settled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DocumentFailure:
    """Why a document failed, kept on the document itself."""

    stage: str
    code: str
    message: str
    retryable: bool
    error_class: str = "permanent"


@dataclass(frozen=True, slots=True)
class Chunk:
    id: str
    document_id: str
    version: int
    ordinal: int
    content: ChunkText
    text_hash: str


@dataclass(frozen=True, slots=True)
class DocumentEvent:
    at: datetime
    kind: str
    version: int
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfirmedChunk:
    """A chunk that its asker may read at this moment, with what a hit shows of its document."""

    chunk: Chunk
    external_id: str
    collection: str
    title: str
    uri: str | None
    media_type: str
    metadata: Metadata
    source_id: str | None
    content_hash: str
    parser: str
    chunker: str
    embedding_model: str
    index_version: str
    indexed_at: datetime


# --- questions whose answers are known ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """For whom a question is asked. Nobody in particular reads public documents only."""

    user: str | None = None
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Person:
        """Of {"user", "groups"}, as a question is kept; either may be missing."""
        return cls(values.get("user"), tuple(values.get("groups") or ()))


@dataclass(frozen=True, slots=True)
class Expected:
    """A document that answers a question, by one of its ids; `grade` from 1 (helps) to 3 (is the answer)."""

    grade: int
    document_id: str | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A question with the documents that should be found, or with `expect_nothing`; with neither nobody judged it.

    `as_user` None: asked by who reads the whole team. `filter` and `min_score` are sent with the question.
    """

    id: str
    query: str
    expected: tuple[Expected, ...] = ()
    expect_nothing: bool = False
    as_user: Person | None = None
    filter: Mapping[str, Any] | None = None
    min_score: float | None = None

    @property
    def is_labelled(self) -> bool:
        return self.expect_nothing or bool(self.expected)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LabelledQuery:
        """The query of which `dataclasses.asdict` gave these values, also by way of JSON."""
        person = values.get("as_user")
        return cls(
            id=values["id"],
            query=values["query"],
            expected=tuple(Expected(**one) for one in values.get("expected") or ()),
            expect_nothing=bool(values.get("expect_nothing")),
            as_user=None if person is None else Person.of(person),
            filter=values.get("filter"),
            min_score=values.get("min_score"),
        )
