"""What watches whether answers are still what they were, wired together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rag_service.db import Database, Transaction, collections
from rag_service.embedding.base import Embedder
from rag_service.ingest.doorbell import Doorbell
from rag_service.pipelines import Pipelines
from rag_service.retrieval.probing.drift import AnswerLog, AnswerWatch, Thresholds
from rag_service.retrieval.probing.fingerprints import Fingerprints, Model
from rag_service.retrieval.probing.prober import Prober
from rag_service.retrieval.retriever import Retriever
from rag_service.runtime.variants import Role
from rag_service.settings import Settings
from rag_service.types import EmbedderIdentity, IndexState, JobKind


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
    *,
    role: Role,
    pipelines: Pipelines,
    default: Embedder,
) -> Probing:
    """`default` is the model of new collections."""

    def enqueue(transaction: Transaction, team_id: str, payload: Mapping[str, Any]) -> str:
        return doorbell.add(transaction, JobKind.PROBE, team_id, payload=payload)

    models = partial(models_in_use, role, database, pipelines, default)
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
        fingerprints=Fingerprints(database, models, settings.fingerprint_s),
    )


def models_in_use(role: Role, database: Database, pipelines: Pipelines, default: Embedder) -> Sequence[Model]:
    """Those of all live index versions, and the one that new collections get.

    A scheduler computes nothing, and shall load no model to look at it. Raises ConfigError.
    """
    if role == "scheduler":
        return ()
    with database.read() as connection:
        indexes = collections.all_live(connection)
    serving = {index.embedder for index in indexes if index.state == IndexState.ACTIVE}
    embedders: dict[EmbedderIdentity, Callable[[], Embedder]] = {default.identity: lambda: default}
    for index in indexes:
        embedders.setdefault(index.embedder, partial(pipelines.embedder, index))
    return [Model(embedder, it in serving or not serving) for it, embedder in embedders.items()]
