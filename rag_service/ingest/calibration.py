"""Keeping the lexical vectors of an index version true to the average length of its chunks; embeds nothing.

BM25 compares each chunk's length with the average, and the vectors hold the outcome. So when the average has moved
they are encoded again, from the texts in SQL: first the new average is committed, so that whatever is indexed from
then on is encoded with it (an indexer that began before finds out when it commits, and encodes again), then document
after document is brought up to it. Each notes the calibration it was encoded with, so a repeated job goes on where
the last one died.

The first question settles the average: from then on documents that its asker may not read could be seen in her
scores, had they moved it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rag_service.db import Database, chunks, collections, indexed, operations
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.db.operations import OperationKind
from rag_service.embedding.base import LexicalEncoder
from rag_service.embedding.languages import analyser_of
from rag_service.errors import NotFound, RetryableError
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.hold import PutOffError
from rag_service.ingest.precedence import Precedence
from rag_service.pipelines import Pipelines
from rag_service.types import IndexVersion, JobKind, JobState, SparseVector
from rag_service.vectors.base import VectorStore

# A new index version is measured after this many chunks, and again whenever it has half as many more.
FIRST_AFTER = 32
_GROWTH = 1.5
# An average that moved by less changes weights by less than a few hundredths.
_TOLERANCE = 0.1
_SLICE = 50
_AT_ONCE = 5  # texts, between two looks at whether somebody asks: some 3 ms


@dataclass(frozen=True)
class Calibration:
    database: Database
    vectors: VectorStore
    pipelines: Pipelines
    doorbell: Doorbell
    precedence: Precedence
    slice_s: float = 20.0

    def note_written(self, transaction: Transaction, index: IndexVersion, chunk_count: int) -> bool:
        """Count what a document adds, and queue the measuring when it is due.

        False when `index` has been calibrated anew since it was read: what was written must be encoded again.
        """
        counted = collections.note_written(transaction.connection, index, chunk_count)
        if counted is None:
            return False
        written, due = counted
        if due and written >= due:
            collections.calibrate_at(transaction.connection, index.id, int(written * _GROWTH) + 1)
            self._queue(transaction, index)
        return True

    def adopt_analysers(self) -> None:
        """At the start: what an older version of the service encoded is encoded again as this one does."""
        with self.database.transaction() as transaction:
            for index in collections.all_live(transaction.connection):
                analyser = analyser_of(index.analyser.partition("/")[0])
                if analyser != index.analyser:
                    collections.recalibrate(
                        transaction.connection, index, analyser=analyser, average_length=index.average_length
                    )
                    self._queue(transaction, index)

    def run(self, job: Job) -> JobState | None:
        """Measure, and encode what is of a former calibration. None when it goes on in another slice."""
        until = time.monotonic() + self.slice_s
        while True:
            try:
                index = self._index(job.payload["index"])
            except NotFound:
                return JobState.SUCCEEDED  # the collection has been deleted with its indexes
            if not self._encode(index, until):
                self.doorbell.hand_back(job)
                return None
            if not self._moved(index):
                return JobState.SUCCEEDED

    def _queue(self, transaction: Transaction, index: IndexVersion) -> None:
        team = collections.team_of(transaction.connection, index)
        self.doorbell.add(transaction, JobKind.CALIBRATE, team, payload={"index": index.id})

    def _index(self, index: str) -> IndexVersion:
        with self.database.read() as connection:
            return collections.index_version(connection, index)

    def _moved(self, index: IndexVersion) -> bool:
        """Whether the average has moved, and is another one from here on."""
        with self.database.transaction() as transaction:
            average = indexed.average_length(transaction.connection, index)
            if average is None or collections.index_version(transaction.connection, index.id).settled:
                return False
            if abs(average - index.average_length) <= _TOLERANCE * index.average_length:
                return False
            # A backup copies lexical vectors: they must not change meaning under it.
            if operations.is_running(transaction.connection, OperationKind.BACKUP):
                raise PutOffError
            collections.recalibrate(
                transaction.connection, index, analyser=index.analyser, average_length=round(average, 1)
            )
            return True

    def _encode(self, index: IndexVersion, until: float) -> bool:
        """Bring documents up to the index version's calibration; False when time ran out before all were."""
        while True:
            with self.database.read() as connection:
                former = indexed.encoded_before(connection, index, _SLICE)
            if not former:
                return True
            for document, version in former:
                self._encode_document(index, document, version)
            if time.monotonic() > until:
                return False

    def _encode_document(self, index: IndexVersion, document: Document, version: int) -> None:
        with self.database.read() as connection:
            held = chunks.of_document(connection, index.id, document.id, version)
        chunker = self.pipelines.chunker(index)
        title = chunker.fitting_title(document.title)
        texts = [chunker.counted(title, chunk.content) for chunk in held]
        vectors, terms = self._encoded(self.pipelines.lexical(index), texts)
        by_chunk = {chunk.id: vector for chunk, vector in zip(held, vectors, strict=True)}
        self.precedence.give_way()
        try:
            self.vectors.set_lexical(index.id, document.id, by_chunk)
        except NotFound as error:  # deleted a moment ago; the next look shows whether that was the document or all
            raise RetryableError() from error
        with self.database.transaction() as transaction:
            indexed.note_encoded(transaction.connection, index, document.id, version, terms)

    def _encoded(self, encoder: LexicalEncoder, texts: Sequence[str]) -> tuple[list[SparseVector], int]:
        """The vectors, and how many terms there are in all of them."""
        vectors, terms = [], 0
        for start in range(0, len(texts), _AT_ONCE):
            self.precedence.give_way()
            part = texts[start : start + _AT_ONCE]
            vectors += encoder.encode(part, "document")
            terms += sum(encoder.lengths(part))
        return vectors, terms
