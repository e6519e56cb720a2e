"""Chooses every variant and wires the use-cases: the only room that knows what is embedded and what is not."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from connectors.base import Connector
from rag_service.blobs import BlobStore, LocalBlobs
from rag_service.chunking.structure import StructureChunker
from rag_service.db import Database, collections, jobs, sources
from rag_service.embedding.base import Embedder
from rag_service.errors import ConfigError, RagError
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.catalogue import Catalogue
from rag_service.ingest.dead_letters import DeadLetters
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.intake import Intake, Ring
from rag_service.ingest.progress import ProgressBoard
from rag_service.ingest.removal import Removal
from rag_service.ingest.runner import Leases, Runner
from rag_service.ingest.sync import Syncer
from rag_service.parsing.sandbox import ParserSandbox
from rag_service.queue import Broker, make_broker, send
from rag_service.retrieval.retriever import Retriever
from rag_service.retrieval.traces import Traces
from rag_service.retrieval.why_not import WhyNot
from rag_service.runtime.variants import (
    lexical_of,
    make_connector,
    make_embedder,
    make_reranker,
    make_vectors,
    refuse_impossible,
)
from rag_service.settings import Settings
from rag_service.types import JobKind
from rag_service.vectors.base import VectorStore

# Terms of an average chunk that survive the stop list: about six in ten of its tokens in English prose.
_TERMS_PER_TOKEN = 0.6
# A message not answered within this time is taken for lost; a second one does no harm.
_RING_AGAIN_S = 60.0
_RING_AT_MOST = 200
_SWITCH_S = 0.0005


@dataclass(frozen=True)
class Runtime:
    """Everything that the API, the workers and the command line call. Built by `build`, closed by `close`."""

    settings: Settings
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    embedder: Embedder
    broker: Broker
    sandbox: ParserSandbox
    leases: Leases
    progress: ProgressBoard
    catalogue: Catalogue
    intake: Intake
    removal: Removal
    syncer: Syncer
    indexer: Indexer
    calibration: Calibration
    runner: Runner
    dead_letters: DeadLetters
    retriever: Retriever
    why_not: WhyNot
    traces: Traces
    connect: Callable[[str, Mapping[str, Any]], Connector]
    ring: Ring
    _locks: list[IO[str]] = field(default_factory=list)

    @property
    def embedded(self) -> bool:
        """One process holds everything: its lock says that no other worker can be alive."""
        return self.settings.qdrant_url is None

    def open(self) -> None:
        """Take the data folder, migrate, and check that the indexes fit the configured model.

        Raises ConfigError with what to do.
        """
        # The model gives up the interpreter lock at each of its hundred steps and waits to get it back: with the usual
        # 5 ms beside busy threads, embedding came down to a sixth (18 instead of 110 texts/s where measured).
        sys.setswitchinterval(_SWITCH_S)
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.embedded:
            self._locks.append(_lock(self.settings.data_dir))
            # What a killed process left of documents it was parsing.
            shutil.rmtree(_scratch(self.settings), ignore_errors=True)
        self.database.migrate()
        self.catalogue.check_models()
        self.calibration.adopt_analysers()

    def recover(self) -> None:
        """At the start of the only worker process: give back what the one before held, and ring for all there is."""
        with self.database.transaction() as transaction:
            if self.embedded:
                jobs.release_all(transaction.connection)
            jobs.settle_parent(transaction.connection)
            waiting = jobs.to_ring(transaction.connection, silent_for_s=0, limit=None)
        for kind, job_id in waiting:
            self.ring(kind, job_id)

    def sweep(self) -> None:
        """Queue due syncs, end syncs that are through, ring again for jobs whose message seems lost."""
        with self.database.transaction() as transaction:
            for source in sources.take_due(transaction.connection):
                self.syncer.start(transaction, source)
            jobs.settle_parent(transaction.connection)
            lost = jobs.to_ring(transaction.connection, silent_for_s=_RING_AGAIN_S, limit=_RING_AT_MOST)
        for kind, job_id in lost:
            self.ring(kind, job_id)
        self.traces.forget_old()

    def admin_key(self) -> str:
        """The admin key: from the settings, or made once and kept in the data folder, readable by its owner only."""
        if self.settings.admin_key is not None:
            return self.settings.admin_key.get_secret_value()
        path = self.settings.data_dir / "admin.key"
        if not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"rag_admin_{secrets.token_urlsafe(32)}\n")
        return path.read_text().strip()

    def parts(self) -> dict[str, str | None]:
        """Each part this process needs, with what is wrong with it (None: nothing)."""
        return {
            "database": self._database_problem(),
            "embedder": _problem(lambda: self.embedder.identity),
            "vectors": _problem(self._touch_vectors),
        }

    def _touch_vectors(self) -> None:
        with self.database.read() as connection:
            active = collections.all_active(connection)
        if active:
            next(self.vectors.stored(active[0].id, "nobody's"), None)

    def _database_problem(self) -> str | None:
        def look() -> None:
            if self.database.pending_migrations():
                raise ConfigError("There are migrations to run: start `rag serve` once with this version.")

        return _problem(look)

    def close(self) -> None:
        """Stop taking work, wait for what is under way, and close the stores."""
        self.runner.stopping.set()
        self.broker.close()
        self.sandbox.close()
        self.leases.close()
        self.progress.close()
        self.traces.close()
        self.vectors.close()
        self.database.close()
        while self._locks:
            self._locks.pop().close()


def build(settings: Settings) -> Runtime:
    """Wire the service. Opens nothing yet and loads no model. Raises ConfigError for a mix that cannot work."""
    refuse_impossible(settings)
    database = Database(settings.sql_url)
    blobs = LocalBlobs(settings.data_dir / "blobs")
    vectors = make_vectors(settings)
    embedder = make_embedder(settings)
    broker = make_broker(settings.redis_url)
    sandbox = ParserSandbox(
        settings.parser_timeout_s, settings.parser_memory_bytes, settings.parser_processes, scratch=_scratch(settings)
    )
    chunker = StructureChunker(embedder.token_spans, min(settings.chunk_tokens, embedder.window))

    def ring(kind: JobKind, job_id: str) -> None:
        send(broker, kind.value, job_id)

    def connect(source_type: str, config: Mapping[str, Any]) -> Connector:
        return make_connector(settings.source_root, source_type, config)

    intake = Intake(database, blobs, ring)
    removal = Removal(database, blobs, vectors, ring)
    syncer = Syncer(database, intake, removal, connect, ring)
    progress = ProgressBoard(database)
    calibration = Calibration(database, vectors, chunker, lexical_of, ring)
    indexer = Indexer(database, blobs, vectors, sandbox.parse, chunker, embedder, lexical_of, progress, calibration)
    retriever = _retriever(settings, database, vectors, embedder, blobs)
    leases = Leases(database, settings.lease_s)
    return Runtime(
        settings=settings,
        database=database,
        blobs=blobs,
        vectors=vectors,
        embedder=embedder,
        broker=broker,
        sandbox=sandbox,
        leases=leases,
        progress=progress,
        catalogue=Catalogue(database, vectors, embedder, chunker, _TERMS_PER_TOKEN * settings.chunk_tokens),
        intake=intake,
        removal=removal,
        syncer=syncer,
        indexer=indexer,
        calibration=calibration,
        runner=Runner(database, leases, indexer, syncer, removal, calibration, worker=_worker()),
        dead_letters=DeadLetters(database),
        retriever=retriever,
        why_not=WhyNot(database, vectors, retriever),
        traces=Traces(
            database,
            sample=settings.trace_sample,
            retention_s=settings.trace_retention_s,
            limit=settings.trace_limit,
        ),
        connect=connect,
        ring=ring,
    )


def _problem(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except RagError as error:
        return error.message
    return None


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _scratch(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "scratch"


def _retriever(
    settings: Settings, database: Database, vectors: VectorStore, embedder: Embedder, blobs: BlobStore
) -> Retriever:
    return Retriever(
        database,
        vectors=vectors,
        embedder=embedder,
        lexical=lexical_of,
        reranker=make_reranker(settings),
        candidates=settings.candidates,
        read_text=blobs.get,
        rerank_depth=settings.reranker_depth,
    )


def _lock(data_dir: Path) -> IO[str]:
    file = (data_dir / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"Another process uses the data folder {data_dir}. Stop it, or choose another RAG_DATA_DIR."
        ) from None
    return file
