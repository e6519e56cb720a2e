"""What work on what is kept would take: counted from the rows, timed by how long such work took here lately."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rag_service.db import Connection, reindexing
from rag_service.db.documents import Document
from rag_service.db.reindexing import Kept, Selection
from rag_service.ingest.pace import Pace, pace
from rag_service.types import FromStage

_PAGE = 500
_WRITTEN_ONLY = (FromStage.PERMISSIONS, FromStage.METADATA)

# What a chunk takes beside the floats of its vector, measured with Edge and SQLite, 10,800 chunks of 340 characters
# and 6,000 of 1,320: so much each, and so much per character (in the lexical vector, as text, in pages half full).
_CHUNK_BYTES = 2_800
_CHARACTER_BYTES = 3.4
_FLOAT_BYTES = 4
# Characters of a chunk; the bytes of a PDF say little about its text.
_LONGEST_CHUNK = 1_400


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` until all is done with what this installation has; None where nothing like it was ever measured.

    `chunks` are counted once for each index version that they are written to. `disk_bytes` of vectors and chunks
    written; what they replace is freed later. `tokens` that embedders are sent which are asked over HTTP. `skipped`:
    documents that have not what the stage begins with, by what they lack.
    """

    documents: int
    chunks: int
    seconds: float | None
    disk_bytes: int
    tokens: int
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Into:
    """An index version that is written. Of its chunks the share `computed` is embedded, vectors of others are known.

    `embed_ms` per chunk, where it was measured apart: of a model that was never used here.
    """

    dimensions: int
    computed: float = 1.0
    over_http: bool = False
    embed_ms: float | None = None


@dataclass(slots=True)
class Load:
    """What there is to do in one collection."""

    documents: int = 0
    known_chunks: int = 0
    bytes: int = 0
    bytes_with_chunks: int = 0
    tokens: int = 0

    def add(self, document: Document) -> None:
        self.documents += 1
        self.bytes += document.size_bytes
        if document.chunk_count:
            self.known_chunks += document.chunk_count
            self.bytes_with_chunks += document.size_bytes

    @property
    def growth(self) -> float:
        """All bytes by those whose chunks are known: documents that have no chunks yet are reckoned by their size."""
        return self.bytes / self.bytes_with_chunks if self.bytes_with_chunks else 1.0

    @property
    def chunks(self) -> int:
        return round(self.known_chunks * self.growth)

    def disk_bytes(self, dimensions: int) -> int:
        """Of all chunks in one index version."""
        length = min(self.bytes_with_chunks / self.known_chunks, _LONGEST_CHUNK) if self.known_chunks else 0.0
        return round(self.chunks * (_CHUNK_BYTES + _FLOAT_BYTES * dimensions + _CHARACTER_BYTES * length))


def lacking(kept: Kept, from_stage: FromStage) -> str | None:
    """What a document has not that this stage begins with; None when nothing is in the way."""
    document = kept.document
    answers = document.indexed_version == document.version and kept.parsed
    lacks: dict[FromStage, tuple[bool, str]] = {
        FromStage.PERMISSIONS: (False, ""),
        FromStage.METADATA: (document.indexed_version is None, "index"),
        FromStage.EMBED: (not answers, "chunks"),
        FromStage.CHUNK: (not answers, "parsed_text"),
        FromStage.PARSE: (not document.blob_key, "bytes"),
        FromStage.FETCH: (not document.source_id, "source"),
    }
    is_lacking, what = lacks[from_stage]
    return what if is_lacking else None


def estimate(
    connection: Connection,
    selection: Selection,
    from_stage: FromStage,
    *,
    into: Callable[[str], Sequence[Into]],
    is_meant: Callable[[Document], bool] = lambda _: True,
) -> Estimate:
    """What it takes to work on these documents from this stage on.

    `into`: by collection, the index versions that are written. Reading sources is not in the time: how fast they
    answer is theirs.
    """
    loads: dict[str, Load] = {}
    skipped: dict[str, int] = {}
    for page in _pages(connection, selection):
        for kept in page:
            document = kept.document
            if not is_meant(document):
                continue
            if (lacks := lacking(kept, from_stage)) is None:
                load = loads.setdefault(document.collection_id, Load())
                load.add(document)
                if any(one.over_http for one in into(document.collection_id)):
                    load.tokens += reindexing.tokens_of(connection, document)
            else:
                skipped[lacks] = skipped.get(lacks, 0) + 1
    written = {collection: into(collection) for collection in loads}
    if from_stage in _WRITTEN_ONLY:
        return _refreshing(loads, written, pace(connection, from_stage), skipped)
    return _indexing(loads, written, from_stage, pace(connection, from_stage), skipped)


def _pages(connection: Connection, selection: Selection) -> Iterator[list[Kept]]:
    after = ""
    while page := reindexing.some(connection, selection, after=after, limit=_PAGE):
        yield page
        after = page[-1].document.id


def _refreshing(
    loads: Mapping[str, Load], written: Mapping[str, Sequence[Into]], now: Pace, skipped: Mapping[str, int]
) -> Estimate:
    documents = sum(load.documents for load in loads.values())
    chunks = sum(load.known_chunks * len(written[collection]) for collection, load in loads.items())
    spent = None if now.refresh is None else now.refresh * documents
    return Estimate(documents, chunks, _passing(spent, documents, now), 0, 0, skipped)


def _indexing(
    loads: Mapping[str, Load],
    written: Mapping[str, Sequence[Into]],
    from_stage: FromStage,
    now: Pace,
    skipped: Mapping[str, int],
) -> Estimate:
    pairs = [(load, one) for collection, load in loads.items() for one in written[collection]]
    documents = sum(load.documents for load in loads.values())
    parses = from_stage in (FromStage.PARSE, FromStage.FETCH)
    work = [(now.parse, sum(load.bytes for load in loads.values()))] if parses else []
    for load, one in pairs:
        computed = round(load.chunks * one.computed)
        embed = now.embed if one.embed_ms is None else one.embed_ms
        work += [(now.index, load.chunks), (embed, computed), (now.reuse or 0.0, load.chunks - computed)]
        work += [(now.chunk, load.chunks)] if from_stage != FromStage.EMBED else []
    return Estimate(
        documents=documents,
        chunks=sum(load.chunks for load, _ in pairs),
        seconds=_passing(_spent(work), documents, now),
        disk_bytes=sum(load.disk_bytes(one.dimensions) for load, one in pairs),
        tokens=sum(round(load.tokens * load.growth * one.computed) for load, one in pairs if one.over_http),
        skipped=skipped,
    )


def _spent(work: Sequence[tuple[float | None, int]]) -> float | None:
    """Milliseconds of all jobs together; None when one is needed that was never measured."""
    total = 0.0
    for per_unit, units in work:
        if units and per_unit is None:
            return None
        total += (per_unit or 0.0) * units
    return total


def _passing(spent_ms: float | None, documents: int, now: Pace) -> float | None:
    if not documents:
        return 0.0
    if spent_ms is None or now.abreast is None:
        return None
    return round(spent_ms / 1000 / now.abreast, 1)
