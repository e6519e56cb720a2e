"""What all processes share (jobs, documents, messages) as gauges, read when somebody asks; and giving metrics out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rag_service.errors import ConfigError, RagError
from rag_service.observe.metrics import REGISTRY

__all__ = ["CONTENT_TYPE_LATEST", "Cached", "State", "exposition", "serving"]


@dataclass(frozen=True, slots=True)
class State:
    """`jobs` by (kind, state), `oldest_s` the age of the oldest open job by kind, `failed` jobs by error code.

    `documents` by status, `messages` waiting by queue. `probes` by state, `alarms` by kind: how many are not well.
    """

    jobs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_s: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)
    alarms: Mapping[str, int] = field(default_factory=dict)


class Cached:
    """Reads the state at most once in `for_s` seconds, one caller at a time, however many ask."""

    def __init__(self, read: Callable[[], State], for_s: float) -> None:
        self._read = read
        self._for_s = for_s
        self._lock = threading.Lock()
        self._state = State()
        self._until = 0.0

    def __call__(self) -> State:
        """Raises what reading raises."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._state = self._read()
                self._until = time.monotonic() + self._for_s
            return self._state

    def forget(self) -> None:
        """The next caller reads anew."""
        with self._lock:
            self._until = 0.0


class _Everything(Collector):
    """The metrics of this process and, where `read` is given, the state that it shares with the others."""

    def __init__(self, read: Callable[[], State] | None) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        yield from REGISTRY.collect()
        if self._read is None:
            return
        readable = _gauge("rag_state_readable", "Whether the metrics of the shared state could be read.")
        try:
            state = self._read()
        except RagError:
            # The numbers of this process are wanted most when a store is down.
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        yield readable
        yield from _families(state)


def _families(state: State) -> Iterator[Metric]:
    jobs = _gauge("rag_jobs", "Jobs that are open or have failed.", "kind", "state")
    for (kind, where), count in state.jobs.items():
        jobs.add_metric([kind, where], count)
    yield jobs
    yield _by(_gauge("rag_oldest_open_job_seconds", "Age of the oldest open job.", "kind"), state.oldest_s)
    yield _by(_gauge("rag_dead_letters", "Jobs given up, by the code of their error.", "reason"), state.failed)
    yield _by(_gauge("rag_documents", "Documents by status.", "status"), state.documents)
    yield _by(_gauge("rag_queue_messages", "Messages waiting for a worker.", "queue"), state.messages)
    yield _by(_gauge("rag_probes", "Probes by state.", "state"), state.probes)
    yield _by(_gauge("rag_alarms", "What is watched beside probes and is not well, by kind.", "kind"), state.alarms)


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=labels)


def _by(family: GaugeMetricFamily, counts: Mapping[str, float]) -> GaugeMetricFamily:
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def exposition(read: Callable[[], State] | None) -> bytes:
    """All metrics in Prometheus' text format, to be sent as CONTENT_TYPE_LATEST."""
    return generate_latest(_registry(read))


@contextmanager
def serving(port: int, host: str, read: Callable[[], State] | None) -> Iterator[int]:
    """Give the metrics out on a port of their own, without a key; gives the port. Raises ConfigError."""
    try:
        server, thread = start_http_server(port, host, _registry(read))
    except OSError as error:
        raise ConfigError(
            f"Metrics cannot be given out on port {port} of {host} ({error.strerror}). Change RAG_METRICS_PORT."
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _registry(read: Callable[[], State] | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Everything(read))
    return registry
