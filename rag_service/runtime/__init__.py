"""Chooses every variant and wires the use-cases: the only room that knows what is embedded and what is not."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeAlias

from connectors.base import Connector
from rag_service.backup import exchange
from rag_service.backup.take import Backup
from rag_service.blobs import BlobStore
from rag_service.db import Database, collections, jobs, ringing, sources
from rag_service.db.sources import Source
from rag_service.embedding.base import Embedder
from rag_service.errors import ConfigError
from rag_service.ingest import notices
from rag_service.ingest.build_bell import BuildBell
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.catalogue import Catalogue
from rag_service.ingest.credentials import Credentials
from rag_service.ingest.dead_letters import DeadLetters
from rag_service.ingest.discretion import Discreet
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.drift import Drift
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.intake import Intake
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.progress import ProgressBoard
from rag_service.ingest.reindex import Reindex
from rag_service.ingest.removal import Removal
from rag_service.ingest.runner import Leases, Runner
from rag_service.ingest.sync import Syncer
from rag_service.observe.spans import traced
from rag_service.observe.state import Cached
from rag_service.parsing.sandbox import ParserSandbox
from rag_service.pipelines import Pipelines
from rag_service.queue import Broker, Sender, check, make_broker
from rag_service.retrieval.audit import RetrievalAudit
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.retriever import Retriever
from rag_service.retrieval.traces import Traces
from rag_service.retrieval.why_not import WhyNot
from rag_service.runtime import folder
from rag_service.runtime.declared import put_on_record
from rag_service.runtime.evaluating import make_judge
from rag_service.runtime.indexes import Indexes, make_indexes
from rag_service.runtime.observing import shared_state
from rag_service.runtime.pipelines import Models, make_chunker, make_pipelines
from rag_service.runtime.probing import Probing, make_probing
from rag_service.runtime.readiness import Readiness
from rag_service.runtime.secret_keys import check_keys, make_vault
from rag_service.runtime.telling import make_courier
from rag_service.runtime.upkeep import Upkeep, make_upkeep
from rag_service.runtime.variants import (
    Role,
    make_blobs,
    make_connector,
    make_embedder,
    make_reranker,
    make_vectors,
    refuse_impossible,
)
from rag_service.settings import Settings
from rag_service.types import IndexVersion, Queue
from rag_service.vectors.base import VectorStore
from rag_service.webhooks.courier import Courier

Connect: TypeAlias = Callable[[str, Mapping[str, Any]], Connector | Discreet]

# Terms of an average chunk that survive the stop list: about six in ten of its tokens in English prose.
_TERMS_PER_TOKEN = 0.6
# A message not answered within this time is taken for lost; a second one does no harm.
_RING_AGAIN_S = 20.0
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
    models: Models
    pipelines: Pipelines
    broker: Broker
    doorbell: Doorbell
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
    drift: Drift
    probing: Probing
    state: Cached
    retrieval_audit: RetrievalAudit
    credentials: Credentials
    connect: Connect
    upkeep: Upkeep
    indexes: Indexes
    courier: Courier
    _locks: list[IO[str]] = field(default_factory=list)

    @property
    def reindex(self) -> Reindex:
        return self.runner.reindex

    @property
    def keeps_to_itself(self) -> bool:
        """The data folder holds the database or the vectors: its lock says that no other process can be alive."""
        return self.settings.qdrant_url is None or not self.database.is_shared

    def open(self) -> None:
        """Take the data folder, migrate, and check that all that others share fits this process.

        Raises ConfigError with what to do, RetryableError when a store cannot be reached.
        """
        # The model gives up the interpreter lock at each of its hundred steps and waits to get it back: with the usual
        # 5 ms beside busy threads, embedding came down to a sixth (18 instead of 110 texts/s where measured).
        sys.setswitchinterval(_SWITCH_S)
        self.lock_folder()
        if self.keeps_to_itself:
            # What a killed process left of documents it was parsing.
            shutil.rmtree(_scratch(self.settings), ignore_errors=True)
        check(self.broker)
        self.database.migrate()
        if self.database.is_shared and (self.keeps_to_itself or self.settings.blobs_url is None):
            folder.check_shared(self.settings.data_dir, self.database)
        check_keys(self.database, self.credentials.vault)
        put_on_record(self.database, self.settings)
        self.catalogue.check_indexes()
        self.catalogue.make_indexes()
        self.calibration.adopt_analysers()

    def lock_folder(self) -> None:
        """Take the data folder, where one process holds everything. Raises ConfigError when another has it."""
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.keeps_to_itself:
            self._locks.append(folder.lock(self.settings.data_dir))
            exchange.finish(self.settings.data_dir)

    def recover(self) -> None:
        """At the start of the only worker process: give back what the one before held, and ring for all there is."""
        with self.database.transaction() as transaction:
            if self.keeps_to_itself:
                jobs.release_all(transaction.connection)
            if not self.settings.redis_url:
                ringing.forget_all(transaction.connection)
            notices.settle(transaction)
            self.doorbell.send_all(ringing.fill(transaction.connection, self.doorbell.limits), transaction)

    def sweep(self) -> None:
        """Queue due syncs, end syncs that are through, ring again for jobs whose message seems lost."""
        with self.database.transaction() as transaction:
            for source in sources.take_due(transaction.connection):
                self.syncer.start(transaction, source)
            self.probing.prober.queue_due(transaction)
            notices.settle(transaction)
            lost = ringing.lost(transaction.connection, silent_for_s=_RING_AGAIN_S, limit=_RING_AT_MOST)
            waiting = ringing.fill(transaction.connection, self.doorbell.limits)
            self.doorbell.send_all((*lost, *waiting), transaction)
        self.courier.sweep()
        self.traces.forget_old()
        self.drift.look_if_due()
        self.indexes.builder.look_if_due()
        self.probing.sweep()

    def admin_key(self) -> str:
        """The admin key: from the settings, or made once and kept in the data folder, readable by its owner only."""
        if self.settings.admin_key is not None:
            return self.settings.admin_key.get_secret_value()
        return folder.admin_key(self.settings.data_dir)

    def parts(self) -> dict[str, str | None]:
        """Each part this process needs, with what is wrong with it (None: nothing)."""
        return self._readiness.parts()

    @cached_property
    def _readiness(self) -> Readiness:
        checks: dict[str, Callable[[], object]] = {
            "database": self.check_database,
            "embedder": self._check_embedder,
            "vectors": self._touch_vectors,
            "blobs": self.blobs.check,
            "queue": lambda: check(self.broker),
            "indexes": self.catalogue.check_indexes,
        }
        return Readiness(checks)

    def _check_embedder(self) -> None:
        """Raises ConfigError when it cannot be had, or no longer gives the vectors that it gave."""
        _ = self.embedder.identity
        self.probing.fingerprints.check()

    def _touch_vectors(self) -> None:
        with self.database.read() as connection:
            active = collections.all_active(connection)
        if active:
            next(self.vectors.stored(active[0].id, "nobody's"), None)

    def check_database(self) -> None:
        """Raises RetryableError when it does not answer, ConfigError when its schema is not the one of this code."""
        if self.database.pending_migrations():
            raise ConfigError(
                "The database's schema is not the one of this version of the service: older, and a process of this "
                "version has to be started, which migrates it; or newer, and this process is out of date."
            )

    def close(self) -> None:
        """Stop taking work, wait for what is under way, and close the stores."""
        self.runner.stopping.set()
        self.upkeep.close()
        self.broker.close()
        self.sandbox.close()
        self.leases.close()
        self.progress.close()
        self.traces.close()
        self.retrieval_audit.close()
        self.probing.close()
        self.vectors.close()
        self.database.close()
        while self._locks:
            self._locks.pop().close()


def build(settings: Settings, role: Role = "api") -> Runtime:
    """Wire the service. Opens nothing yet and loads no model. Raises ConfigError for a mix that cannot work."""
    refuse_impossible(settings, role)
    database = Database(settings.sql_url, settings.database_pool)
    blobs, vectors = _stores(settings)
    embedder = make_embedder(settings)
    broker = make_broker(settings.redis_url, list(Queue))
    sandbox = _sandbox(settings)
    pipelines = make_pipelines(settings, models := Models(settings, embedder))
    doorbell = _doorbell(settings, database, broker)
    stopping, precedence = threading.Event(), Precedence()
    credentials = Credentials(database, make_vault(settings, alone=settings.qdrant_url is None))
    courier = make_courier(settings, credentials, doorbell, stopping)
    connect = partial(make_connector, settings.source_root)
    intake, removal = Intake(database, blobs, doorbell), Removal(database, blobs, vectors, doorbell)
    opener, largest = _opener(credentials, connect), settings.max_upload_bytes
    syncer = Syncer(database, intake, removal, opener, doorbell, stopping, precedence, largest)
    progress, calibration = ProgressBoard(database), Calibration(database, vectors, pipelines, doorbell, precedence)
    bell = BuildBell(doorbell)
    indexer = Indexer(database, blobs, vectors, sandbox.parse, pipelines, progress, calibration, bell.written)
    retriever = _retriever(settings, database, vectors, pipelines, blobs)
    indexes = _indexes(settings, indexer, bell, retriever, stopping, precedence=precedence)
    probing = make_probing(settings, database, retriever, doorbell, role=role, pipelines=pipelines, default=embedder)
    leases = Leases(database, settings.lease_s)
    work = indexer, syncer, removal, calibration, indexes.builder, _reindex(settings, indexer, syncer)
    runner = Runner(database, leases, *work, doorbell, courier.run, probing.prober.run, stopping, _worker(), precedence)
    return Runtime(
        settings=settings,
        database=database,
        blobs=blobs,
        vectors=vectors,
        embedder=embedder,
        models=models,
        pipelines=pipelines,
        broker=broker,
        doorbell=doorbell,
        sandbox=sandbox,
        leases=leases,
        progress=progress,
        catalogue=_catalogue(settings, database, vectors, embedder, pipelines),
        intake=intake,
        removal=removal,
        syncer=syncer,
        indexer=indexer,
        calibration=calibration,
        runner=runner,
        dead_letters=DeadLetters(database),
        retriever=retriever,
        why_not=WhyNot(database, vectors, retriever),
        drift=Drift(database, vectors),
        probing=probing,
        state=shared_state(database, broker),
        traces=_traces(settings, database),
        retrieval_audit=RetrievalAudit(database, enabled=settings.retrieval_audit),
        credentials=credentials,
        connect=connect,
        upkeep=make_upkeep(settings, Backup(database, blobs, vectors), intake, removal, doorbell),
        courier=courier,
        indexes=indexes,
    )


def _stores(settings: Settings) -> tuple[BlobStore, VectorStore]:
    blobs = traced(make_blobs(settings), "blobs", "put", "get", "delete")
    return blobs, traced(make_vectors(settings), "vectors", "upsert", "delete", "update", "set_lexical", "search")


def _doorbell(settings: Settings, database: Database, broker: Broker) -> Doorbell:
    sender = Sender(broker)
    limits = ringing.Limits(settings.team_jobs, settings.team_syncs)
    return Doorbell(database, lambda bell: sender.send(bell.queue, bell.kind, bell.job_id), limits)


def _indexes(
    settings: Settings,
    indexer: Indexer,
    bell: BuildBell,
    retriever: Retriever,
    stopping: threading.Event,
    *,
    precedence: Precedence,
) -> Indexes:
    judge, length = make_judge(indexer.database, retriever), _average_length(settings)
    given = indexer, bell, judge, stopping
    return make_indexes(*given, precedence=precedence, average_length=length, soak_s=settings.soak_s)


def _average_length(settings: Settings) -> float:
    return _TERMS_PER_TOKEN * settings.chunk_tokens


def _catalogue(
    settings: Settings, database: Database, vectors: VectorStore, embedder: Embedder, pipelines: Pipelines
) -> Catalogue:
    chunker = make_chunker(settings, embedder, {})
    return Catalogue(database, vectors, embedder, chunker, _average_length(settings), pipelines)


def _opener(credentials: Credentials, connect: Connect) -> Callable[[Source], Connector | Discreet]:
    return lambda source: connect(source.type, credentials.whole(source))


def _reindex(settings: Settings, indexer: Indexer, syncer: Syncer) -> Reindex:
    def is_paid(index: IndexVersion) -> bool:
        return bool(index.pipeline.get("embedding", {}).get("embedder", settings.embedder) == "http")

    return Reindex(
        database=indexer.database,
        vectors=indexer.vectors,
        doorbell=syncer.doorbell,
        intake=syncer.intake,
        syncer=syncer,
        pipelines=indexer.pipelines,
        parse_filter=parse_filter,
        is_paid=is_paid,
        stopping=syncer.stopping,
    )


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _sandbox(settings: Settings) -> ParserSandbox:
    limits = settings.parser_timeout_s, settings.parser_memory_bytes, settings.parser_processes
    return ParserSandbox(*limits, scratch=_scratch(settings))


def _scratch(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "scratch"


def _retriever(
    settings: Settings, database: Database, vectors: VectorStore, pipelines: Pipelines, blobs: BlobStore
) -> Retriever:
    return Retriever(
        database,
        vectors=vectors,
        pipelines=pipelines,
        reranker=make_reranker(settings),
        candidates=settings.candidates,
        read_text=blobs.get,
        rerank_depth=settings.reranker_depth,
    )


def _traces(settings: Settings, database: Database) -> Traces:
    return Traces(
        database, sample=settings.trace_sample, retention_s=settings.trace_retention_s, limit=settings.trace_limit
    )
