"""Every metric of a process, and the events that move them. What is not a number of this process is in `state`.

Labels take few values: names of ours, or the first so many that come and "other" for the rest. Never a team, a key,
a document or a path as it was sent.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from rag_service import __version__

OTHER = "other"
NO_ROUTE = "none"

REGISTRY = CollectorRegistry()

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_JOB_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0)
_LAG_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1_800.0)

# A series per counter that says when it began would double them for nothing.
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client leaves it bare
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_build = Gauge("rag_build_info", "1, with the version that runs.", ("version", "python"), registry=REGISTRY)
_build.labels(__version__, platform.python_version()).set(1)

_requests = Counter("rag_http_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY)
_request_s = Histogram(
    "rag_http_request_seconds",
    "From a request's head to the end of its answer.",
    ("method", "route"),
    buckets=_REQUEST_S,
    registry=REGISTRY,
)
_under_way = Gauge("rag_http_requests_in_progress", "Requests being answered.", registry=REGISTRY)

_retrieval_s = Histogram(
    "rag_retrieval_seconds", "A question, inside the service.", ("mode",), buckets=_REQUEST_S, registry=REGISTRY
)
_retrieval_stage_s = Histogram(
    "rag_retrieval_stage_seconds", "One stage of a question.", ("stage",), buckets=_STAGE_S, registry=REGISTRY
)
_empty = Counter("rag_retrieval_empty", "Questions answered with nothing.", registry=REGISTRY)
_degraded = Counter("rag_retrieval_degraded", "Questions that had to do without a part.", ("part",), registry=REGISTRY)

_jobs = Counter("rag_job_runs", "Runs of jobs, by how they ended.", ("kind", "outcome"), registry=REGISTRY)
_job_errors = Counter("rag_job_errors", "Runs of jobs that failed, by code.", ("kind", "code"), registry=REGISTRY)
_job_s = Histogram("rag_job_run_seconds", "One run of a job.", ("kind",), buckets=_JOB_S, registry=REGISTRY)
_stage_s = Histogram(
    "rag_ingest_stage_seconds", "One stage of a document's indexing.", ("stage",), buckets=_JOB_S, registry=REGISTRY
)
_acl_s = Histogram(
    "rag_acl_lag_seconds",
    "From the commit of an ACL (or of fields) to its application in the index; the database applies it at once.",
    buckets=_LAG_S,
    registry=REGISTRY,
)

_batches = Counter("rag_embedder_batches", "Runs of the embedding model.", registry=REGISTRY)
_texts = Counter("rag_embedder_texts", "Texts embedded.", registry=REGISTRY)
_deaths = Counter("rag_parser_deaths", "Parser processes lost to a document.", ("reason",), registry=REGISTRY)

_webhooks = Counter(
    "rag_webhook_messages", "Messages sent to webhooks, by how that ended.", ("outcome",), registry=REGISTRY
)

_drift = Gauge(
    "rag_index_drift_chunks",
    "Chunks that the database and the vector store do not agree on, at the newest look.",
    registry=REGISTRY,
)
_compared = Gauge("rag_index_drift_compared", "Indexes compared at the newest look.", registry=REGISTRY)
_looked = Gauge("rag_index_drift_look_timestamp_seconds", "When that look was.", registry=REGISTRY)

_fingerprint = Gauge(
    "rag_embedder_fingerprint_cosine",
    "Likeness of what the embedding model makes of the probe texts to what it made of them first.",
    registry=REGISTRY,
)
_fingerprint_at = Gauge(
    "rag_embedder_fingerprint_look_timestamp_seconds", "When that was looked at.", registry=REGISTRY
)
_probe_runs = Counter("rag_probe_runs", "Runs of probes, by how they ended.", ("outcome",), registry=REGISTRY)
_probe_failures = Counter(
    "rag_probe_failures", "What runs of probes found to be wrong, by check.", ("check",), registry=REGISTRY
)


class Few:
    """The first `most` values that come, and "other" for all that come later."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        with self._lock:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


_stages = Few(24)
_codes = Few(64)
_parts = Few(8)
_routes = Few(200)


def request_began() -> None:
    _under_way.inc()


def request_ended(method: str, route: str, status: int, seconds: float) -> None:
    """`route` is the template of the route that answered, NO_ROUTE where none did."""
    method, route = method if method in _METHODS else OTHER, _routes(route)
    _under_way.dec()
    _requests.labels(method, route, str(status)).inc()
    _request_s.labels(method, route).observe(seconds)


def answered(mode: str, stages_ms: Mapping[str, float], total_ms: float, hits: int, degraded: Sequence[str]) -> None:
    """A question has been answered. What `degraded` says before the first colon names the part that was missing."""
    _retrieval_s.labels(mode).observe(total_ms / 1000)
    for stage, spent in stages_ms.items():
        _retrieval_stage_s.labels(stage).observe(spent / 1000)
    if not hits:
        _empty.inc()
    for part in degraded:
        _degraded.labels(_parts(part.partition(":")[0])).inc()


def job_ran(kind: str, outcome: str, seconds: float, code: str | None = None) -> None:
    """One run of a job is over: `outcome` is the state that it is in now, "retried" or "continues"."""
    _jobs.labels(kind, outcome).inc()
    _job_s.labels(kind).observe(seconds)
    if code is not None:
        _job_errors.labels(kind, _codes(code)).inc()


def document_indexed(stages_ms: Mapping[str, float]) -> None:
    for stage, spent in stages_ms.items():
        _stage_s.labels(_stages(stage)).observe(spent / 1000)


def acl_applied(seconds_after: float) -> None:
    _acl_s.observe(max(0.0, seconds_after))


def embedded(texts: int) -> None:
    _batches.inc()
    _texts.inc(texts)


def parser_died(reason: str) -> None:
    _deaths.labels(_codes(reason)).inc()


def webhook_told(outcome: str) -> None:
    """One attempt to deliver: "delivered", or the reason why not."""
    _webhooks.labels(_codes(outcome)).inc()


def index_compared(chunks_apart: int, indexes: int) -> None:
    _drift.set(chunks_apart)
    _compared.set(indexes)
    _looked.set_to_current_time()


def fingerprint_compared(cosine: float) -> None:
    _fingerprint.set(cosine)
    _fingerprint_at.set_to_current_time()


def probe_ran(failed: Sequence[str]) -> None:
    """A probe has been run; `failed` are the checks, by names of ours, that it did not pass."""
    _probe_runs.labels("failing" if failed else "ok").inc()
    for check in failed:
        _probe_failures.labels(check).inc()
