"""Whether answers to live questions have become others: counted by the hour, compared with the days before.

Answers of one index version are compared with each other only: another model or another chunker scores otherwise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from rag_service.db import Connection, Database, Transaction, alarms, answers, collections, outbox
from rag_service.db.answers import BINS, EMPTY, UNSCORED, Counts, Key, hour_of
from rag_service.retrieval.batches import BatchWriter
from rag_service.retrieval.probing.statistics import stability_index, standard_difference
from rag_service.retrieval.retriever import Retrieval
from rag_service.types import EventType, IndexVersion, ProbeState, utc_now

_EVERY_S = 300.0
# Answers in memory while the database does not answer.
_WAITING = 50_000
# One chance in ten thousand or so, on both sides.
_RARE = 4.0

Subject: TypeAlias = Literal["empty_rate", "scores"]

EMPTY_RATE: Subject = "empty_rate"
SCORES: Subject = "scores"


class AnswerLog:
    """Counts answers to live questions. Costs a question an append; what waits is written at an orderly stop too."""

    def __init__(self, database: Database) -> None:
        self._writer: BatchWriter[Key] = BatchWriter(database, _write, name="counts of answers", waiting=_WAITING)

    def record(self, answer: Retrieval) -> None:
        """Count an answer of one collection; those of several have no scale of their own and are left out."""
        indexes = answer.plan.get("index_versions")
        if isinstance(indexes, list) and len(indexes) == 1:
            self._writer.add((indexes[0], hour_of(utc_now()), outcome_of(answer)))

    def flush(self) -> None:
        """Raises RetryableError."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def outcome_of(answer: Retrieval) -> int:
    """What of an answer is counted, see `db.answers`. Scores are comparable where both legs were weighted and added."""
    if not answer.hits:
        return EMPTY
    fusion = answer.plan.get("fusion")
    weighted = isinstance(fusion, Mapping) and fusion["method"] == "weighted"
    if not weighted or answer.plan["mode"] != "hybrid" or answer.degraded:
        return UNSCORED
    best = max(hit.fused for hit in answer.hits)
    return min(max(int(best * BINS), 0), BINS - 1)


def _write(transaction: Transaction, keys: Sequence[Key]) -> None:
    answers.add(transaction.connection, Counter(keys))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`newest` and `reference` in hours. Fewer than `minimum` answers in either say nothing.

    Scores have drifted from a stability index of `index` on (0.25 is the usual bound of a significant shift), the share
    of empty answers when it differs by `share`; both only where chance alone seldom gives as much.
    """

    newest: int = 24
    reference: int = 168
    minimum: int = 200
    index: float = 0.25
    share: float = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """`measured` is the stability index, or the difference of the shares of empty answers; None: too few answers."""

    subject: Subject
    state: ProbeState
    measured: float | None
    bound: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The newest answers of an index version, and those before them."""

    newest: Counts
    reference: Counts
    verdicts: tuple[Verdict, Verdict]


def compared(newest: Counts, reference: Counts, thresholds: Thresholds) -> Comparison:
    verdicts = _empty_rate(newest, reference, thresholds), _scores(newest, reference, thresholds)
    return Comparison(newest, reference, verdicts)


def _empty_rate(newest: Counts, reference: Counts, thresholds: Thresholds) -> Verdict:
    if min(newest.answers, reference.answers) < thresholds.minimum:
        return Verdict(EMPTY_RATE, ProbeState.UNKNOWN, None, thresholds.share)
    difference = newest.empty / newest.answers - reference.empty / reference.answers
    deviations = standard_difference(newest.empty, newest.answers, reference.empty, reference.answers)
    moved = abs(difference) >= thresholds.share and abs(deviations) >= _RARE
    return Verdict(EMPTY_RATE, ProbeState.FAILING if moved else ProbeState.OK, difference, thresholds.share)


def _scores(newest: Counts, reference: Counts, thresholds: Thresholds) -> Verdict:
    if min(sum(newest.scores), sum(reference.scores)) < thresholds.minimum:
        return Verdict(SCORES, ProbeState.UNKNOWN, None, thresholds.index)
    index, chance = stability_index(reference.scores, newest.scores)
    bound = max(thresholds.index, chance)
    return Verdict(SCORES, ProbeState.FAILING if index >= bound else ProbeState.OK, index, bound)


@dataclass
class AnswerWatch:
    """Compares, and tells of each change of state once, whichever process sees it first."""

    database: Database
    thresholds: Thresholds
    every_s: float = _EVERY_S
    _next: float = field(default=0.0, init=False)

    def look_if_due(self) -> None:
        """Compare once in `every_s` seconds, however often it is called. Raises RetryableError."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.every_s
            self.look()

    def look(self) -> None:
        """Every collection. What has too few answers stays as it was. Raises RetryableError."""
        with self.database.read() as connection:
            windows = self._windows(connection)
            active = [
                (index, team) for index, team in collections.all_active_by_team(connection) if index.id in windows
            ]
            states = alarms.states(connection)
        for index, team in active:
            seen = compared(*windows[index.id], self.thresholds)
            for verdict in seen.verdicts:
                former = states.get(_subject(index, verdict))
                if verdict.state not in (ProbeState.UNKNOWN, former):
                    self._settle(index, team, verdict, seen)
        kept = timedelta(hours=self.thresholds.newest + self.thresholds.reference + 24)
        with self.database.transaction() as transaction:
            answers.forget(transaction.connection, utc_now() - kept)

    def comparison(self, connection: Connection, index: str) -> Comparison:
        """How the answers of one index version are now."""
        counts = self._windows(connection, index).get(index, (Counts(), Counts()))
        return compared(*counts, self.thresholds)

    def _windows(self, connection: Connection, index: str | None = None) -> dict[str, tuple[Counts, Counts]]:
        newest, reference = timedelta(hours=self.thresholds.newest), timedelta(hours=self.thresholds.reference)
        return answers.windows(connection, utc_now(), newest, reference, index)

    def _settle(self, index: IndexVersion, team: str, verdict: Verdict, seen: Comparison) -> None:
        detail = {"measured": verdict.measured, "bound": verdict.bound, "answers": seen.newest.answers}
        place: dict[str, Any] = {"kind": verdict.subject, "collection_id": index.collection_id}
        with self.database.transaction() as transaction:
            subject = _subject(index, verdict)
            if not alarms.settle(transaction.connection, subject, verdict.state, detail=detail, **place):
                return
            told = {"collection_id": index.collection_id, "check": verdict.subject, "state": verdict.state}
            outbox.emit(transaction, EventType.PROBE_FAILED, team, {**told, "severity": "warning", **detail})


def _subject(index: IndexVersion, verdict: Verdict) -> str:
    return f"{verdict.subject}:{index.collection_id}"
