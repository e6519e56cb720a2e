"""What watches whether answers are still what they were, wired together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_service.db import Database, Transaction
from rag_service.embedding.base import Embedder
from rag_service.ingest.doorbell import Doorbell
from rag_service.retrieval.probing.drift import AnswerLog, AnswerWatch, Thresholds
from rag_service.retrieval.probing.fingerprints import Fingerprints
from rag_service.retrieval.probing.prober import Prober
from rag_service.retrieval.retriever import Retriever
from rag_service.settings import Settings
from rag_service.types import JobKind


@dataclass(frozen=True)
class Probing:
    prober: Prober
    answers: AnswerLog
    watch: AnswerWatch
    fingerprints: Fingerprints

    def sweep(self) -> None:
        """What is due by the clock, apart from the runs of probes. Raises RetryableError."""
        self.watch.look_if_due()
        self.fingerprints.look_if_due()

    def close(self) -> None:
        """Write what waits; end what is under way."""
        self.answers.close()
        self.fingerprints.close()


def make_probing(
    settings: Settings,
    database: Database,
    retriever: Retriever,
    doorbell: Doorbell,
    embedders: Callable[[], Sequence[Embedder]],
) -> Probing:
    """`embedders` are those that this process computes with."""

    def enqueue(transaction: Transaction, team_id: str, payload: Mapping[str, Any]) -> str:
        return doorbell.add(transaction, JobKind.PROBE, team_id, payload=payload)

    thresholds = Thresholds(
        newest=settings.drift_newest_h,
        reference=settings.drift_reference_h,
        minimum=settings.drift_min_answers,
        index=settings.drift_index,
        share=settings.drift_empty,
    )
    return Probing(
        prober=Prober(database, retriever, enqueue, settings.probe_results),
        answers=AnswerLog(database),
        watch=AnswerWatch(database, thresholds),
        fingerprints=Fingerprints(database, embedders, settings.fingerprint_s),
    )
