"""Where a job is, how long each stage took and how its run ended: what error records, metrics and spans are made of."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rag_service.db.jobs import Job
from rag_service.observe import metrics, spans
from rag_service.observe.context import about
from rag_service.observe.logs import fields
from rag_service.types import JobKind, JobState, utc_now

log = logging.getLogger("rag_service.jobs")

CONTINUES = "continues"
RETRIED = "retried"


class Stages:
    """One run of a job. `outcome` is the state it ended in, "retried", or "continues" where it has not ended.

    `give_way` is called before each further stage: whoever is more urgent goes first.
    """

    def __init__(self, first: str, give_way: Callable[[], object] = lambda: None) -> None:
        self._kind = first
        self._give_way = give_way
        self.current = first
        self.outcome = CONTINUES
        self.code: str | None = None
        # How large the work was: bytes parsed, chunks written, vectors computed. With the times that gives rates.
        self.sizes: dict[str, int] = {}
        self._since = time.perf_counter()
        self._spent: dict[str, float] = {}
        self._span: AbstractContextManager[object] | None = None

    def enter(self, stage: str) -> None:
        self._give_way()
        self._spent = self.spent_ms()
        self.current = stage
        self._since = time.perf_counter()
        self.leave()
        self._span = spans.span(f"{self._kind}.{stage}")
        self._span.__enter__()

    def measured(self, **sizes: int) -> None:
        """The work was this large."""
        for name, size in sizes.items():
            self.sizes[name] = self.sizes.get(name, 0) + size

    def leave(self) -> None:
        """The present stage is over, as far as traces go."""
        span, self._span = self._span, None
        if span is not None:
            span.__exit__(None, None, None)

    def end(self, outcome: str, code: str | None = None) -> None:
        """How the run ends; `code` says why, where it failed."""
        self.outcome, self.code = outcome, code

    def spent_ms(self) -> dict[str, float]:
        """Milliseconds per stage so far, the present one included."""
        now = (time.perf_counter() - self._since) * 1000
        return {**self._spent, self.current: self._spent.get(self.current, 0.0) + now}


@contextmanager
def watched(job: Job, stages: Stages) -> Iterator[None]:
    """Around one run: its log lines and spans belong to the request that caused it, its end is logged and counted."""
    began = time.perf_counter()
    with (
        about(request_id=job.origin.get("request_id"), team=job.team_id, job_id=job.id),
        spans.span(f"job.{job.kind}", kind="consumer", parent=job.origin, job=job.id, team=job.team_id) as span,
    ):
        try:
            yield
        finally:
            stages.leave()
            if span is not None and stages.code is not None:
                spans.mark_failed(span, stages.code)
            _report(job, stages, time.perf_counter() - began)


def _report(job: Job, stages: Stages, seconds: float) -> None:
    spent = stages.spent_ms()
    metrics.job_ran(job.kind, stages.outcome, seconds, stages.code)
    if job.kind == JobKind.INDEX:
        metrics.document_indexed(spent)
    if job.kind == JobKind.REFRESH and stages.outcome == JobState.SUCCEEDED:
        metrics.acl_applied((utc_now() - job.created_at).total_seconds())
    log.log(
        logging.INFO if stages.code is None else logging.WARNING,
        "job ran",
        extra=fields(
            kind=job.kind,
            outcome=stages.outcome,
            code=stages.code,
            stage=None if stages.code is None else stages.current,
            document_id=job.document_id,
            source_id=job.source_id,
            attempts=job.attempts,
            ms=round(seconds * 1000, 1),
            stages_ms={stage: round(spent_ms, 1) for stage, spent_ms in spent.items()},
        ),
    )
