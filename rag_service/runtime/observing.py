"""What makes a process observable: its log, its traces, its metrics. Called by whatever starts one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rag_service.db import Database, alarms, census, probes
from rag_service.errors import RetryableError
from rag_service.observe import logs, spans
from rag_service.observe.state import Cached, State, serving
from rag_service.queue import Broker, depths
from rag_service.settings import Settings

# Counting a million documents takes a tenth of a second: not for every scraper, nor for every process.
_CACHED_S = 15.0


def start_log(settings: Settings, level: str | None = None) -> None:
    logs.start(level or settings.log_level, settings.log_format)


@contextmanager
def tracing(settings: Settings) -> Iterator[None]:
    """Traces over the block, where the settings or the environment name a collector. Raises ConfigError.

    Begin it before `build`, which then has the stores traced too.
    """
    spans.start(settings.otlp_endpoint)
    try:
        yield
    finally:
        spans.stop()


@contextmanager
def metrics_port(settings: Settings, state: Callable[[], State] | None = None) -> Iterator[int | None]:
    """The metrics on a port of their own over the block, if the settings name one. Raises ConfigError."""
    port = settings.metrics_port
    with nullcontext() if port is None else serving(port, settings.metrics_host, state) as given:
        yield given


def shared_state(database: Database, broker: Broker) -> Cached:
    """Reads what all processes share, at most once in 15 seconds."""

    def read() -> State:
        with database.read() as connection:
            jobs, oldest = census.jobs_by_kind(connection)
            failed = census.failed_jobs_by_code(connection)
            documents = census.documents_by_status(connection)
            watched = probes.count_by_state(connection), alarms.failing_by_kind(connection)
        return State(jobs, oldest, failed, documents, _waiting(broker), *watched)

    return Cached(read, _CACHED_S)


def _waiting(broker: Broker) -> dict[str, int]:
    try:
        return depths(broker)
    except RetryableError:
        return {}  # the jobs table is the truth; what is not known is not told
