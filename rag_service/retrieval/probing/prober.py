"""Asks a probe's question, as anybody asks one, and puts on record what became of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rag_service.access import Principal, principal_for, scope_of
from rag_service.db import Database, Transaction, freshness, outbox, probes, witness
from rag_service.db.jobs import Job
from rag_service.db.probes import Probe, Run
from rag_service.errors import RagError
from rag_service.observe import metrics
from rag_service.observe.logs import fields
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.probing.checks import (
    Expectation,
    Failure,
    Found,
    aged,
    breached,
    is_critical,
    judged,
    recall_of,
)
from rag_service.retrieval.retriever import Retriever
from rag_service.types import EventType, Person, ProbeState, new_id, utc_now

log = logging.getLogger("rag_service.probing")

# Queues a job of the kind probe for a team, with this payload; returns its id.
Enqueue = Callable[[Transaction, str, Mapping[str, Any]], str]


@dataclass(frozen=True)
class Prober:
    """`keep` is how many results of each probe stay."""

    database: Database
    retriever: Retriever
    enqueue: Enqueue
    keep: int

    def queue_due(self, transaction: Transaction) -> None:
        """Queue a run of every probe whose time has come, unless one waits still."""
        for probe in probes.take_due(transaction.connection):
            self.start(transaction, probe)

    def start(self, transaction: Transaction, probe: Probe) -> str:
        """Queue a run, or name the one that is on its way."""
        waiting = probes.open_job(transaction.connection, probe)
        if waiting is not None:
            return waiting
        job_id = self.enqueue(transaction, probe.team_id, {"probe": probe.id})
        probes.begin(transaction.connection, probe, job_id)
        return job_id

    def run(self, job: Job) -> None:
        """Ask and judge. That there is no answer is a result too. Raises RetryableError while the database is away."""
        with self.database.read() as connection:
            probe = probes.load(connection, str(job.payload["probe"]))
        if probe is None:
            return
        run = self._result(probe)
        with self.database.transaction() as transaction:
            before = probes.record(transaction.connection, run, self.keep)
            is_news = before is not None and _is_news(before, run)
            if is_news:
                outbox.emit(transaction, EventType.PROBE_FAILED, probe.team_id, _event(probe, run))
        checks = [failure["check"] for failure in run.failures]
        metrics.probe_ran(checks)
        if is_news:
            level = logging.ERROR if is_critical(run.failures) else logging.WARNING if checks else logging.INFO
            state = ProbeState.FAILING if checks else ProbeState.OK
            log.log(level, "probe changed", extra=fields(probe_id=probe.id, state=state, checks=checks))

    def _result(self, probe: Probe) -> Run:
        began, expected = time.perf_counter(), expectation(probe.expect)
        hits: Sequence[Found] = ()
        failures: list[Failure] = []
        newest = self._newest(probe, expected)
        if probe.question.get("query"):
            try:
                hits, failures = self._asked(probe, expected)
            except RagError as error:
                failures = [Failure("error", error.message)]
        now = utc_now()
        failures += aged(expected, newest, now)
        recall = None if any(failure.check == "error" for failure in failures) else recall_of(expected, hits)
        shown = [{"document_id": hit.document_id, "score": hit.score} for hit in hits]
        told = [failure.told() for failure in failures]
        took = round((time.perf_counter() - began) * 1000, 3)
        return Run(new_id("prn"), probe.id, not failures, recall, shown, told, took, newest, now)

    def _asked(self, probe: Probe, expected: Expectation) -> tuple[Sequence[Found], list[Failure]]:
        """The hits that are the team's own, and what is wrong with all of them."""
        request, principal = request_of(probe), _principal(probe)
        hits, breaches = self._looked(request, principal)
        if breaches:
            # Somebody may have lost the right to read it in between: what is wrong is wrong at the second look too.
            hits, breaches = self._looked(request, principal)
        own = [hit for hit in hits if hit.document_id not in breaches.foreign]
        return own, judged(expected, hits) + breached(breaches)

    def _looked(self, request: RetrievalRequest, principal: Principal) -> tuple[list[Found], witness.Breaches]:
        answer = self.retriever.retrieve(request, principal)
        hits = [Found(hit.chunk.chunk.document_id, hit.chunk.external_id, hit.score) for hit in answer.hits]
        with self.database.read() as connection:
            return hits, witness.breaches(connection, {hit.document_id for hit in hits}, scope_of(principal))

    def _newest(self, probe: Probe, expected: Expectation) -> datetime | None:
        if expected.max_age_s is None:
            return None
        with self.database.read() as connection:
            return freshness.newest(connection, probe.collection_id, expected.source)


def expectation(expect: Mapping[str, Any]) -> Expectation:
    """As a probe keeps it."""
    return Expectation(
        documents=tuple(expect.get("documents", ())),
        recall=expect.get("min_recall", 1.0),
        nothing=expect.get("nothing", False),
        must_not=tuple(expect.get("must_not", ())),
        max_age_s=expect.get("max_age_s"),
        source=expect.get("source"),
    )


def request_of(probe: Probe) -> RetrievalRequest:
    """Raises InvalidRequest."""
    question = probe.question
    return RetrievalRequest(
        query=question["query"],
        collections=(probe.collection_id,),
        top_k=question["top_k"],
        mode=question["mode"],
        filter=parse_filter(question.get("filter")),
        min_score=question.get("min_score"),
    )


def _principal(probe: Probe) -> Principal:
    person = probe.question.get("as_user")
    return principal_for(probe.team_id, None if person is None else Person.of(person))


def _is_news(before: Probe, run: Run) -> bool:
    """A change of state, or a breach where there was none before: each is told once."""
    if run.passed:
        return before.state == ProbeState.FAILING
    former = before.last.failures if before.last is not None else ()
    return before.state != ProbeState.FAILING or (is_critical(run.failures) and not is_critical(former))


def _event(probe: Probe, run: Run) -> dict[str, Any]:
    return {
        "probe_id": probe.id,
        "name": probe.name,
        "collection": probe.collection,
        "state": ProbeState.OK if run.passed else ProbeState.FAILING,
        "severity": "critical" if is_critical(run.failures) else "warning",
        "checks": [failure["check"] for failure in run.failures],
        "recall": run.recall,
        "run_id": run.id,
        "at": run.at.isoformat(),
    }
