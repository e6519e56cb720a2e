"""Traces are written beside the questions, in batches, and none is lost or made twice while the database is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from rag_service.db import Database, Transaction, queries
from rag_service.db.queries import Trace
from rag_service.errors import NotFound, RetryableError
from rag_service.retrieval import traces as module
from rag_service.retrieval.batches import BatchWriter
from rag_service.retrieval.traces import Traces
from rag_service.types import new_id, utc_now
from tests.waiting import until


def made(query_id: str, team: str = "acme", age_s: float = 0, key_id: str | None = "key_1") -> Trace:
    return Trace(
        id=query_id,
        team_id=team,
        key_id=key_id,
        key_name="k",
        as_user=None,
        query=None,
        request={"top_k": 1},
        plan={},
        hits=[{"rank": 1}],
        usage={"total_ms": 1.0},
        degraded=[],
        at=utc_now() - timedelta(seconds=age_s),
    )


class Flaky(Database):
    """Counts its transactions, and refuses them on request."""

    transactions = 0
    away = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if self.away:
            raise RetryableError("The metadata database does not answer.")
        self.transactions += 1
        with super().transaction() as transaction:
            yield transaction


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Flaky]:
    database = Flaky(f"sqlite:///{tmp_path / 'rag.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def traces(database: Flaky) -> Iterator[Traces]:
    traces = Traces(database, sample=1.0, retention_s=3600, limit=1000)
    yield traces
    database.away = False
    traces.close()


def record(traces: Traces, trace: Trace) -> None:
    traces.record(trace.id, lambda: trace)


def kept(database: Database, ids: list[str]) -> list[str]:
    found = []
    with database.read() as connection:
        for query_id in ids:
            try:
                found.append(queries.get(connection, "acme", query_id).id)
            except NotFound:
                continue
    return found


def test_what_was_recorded_a_moment_ago_is_read_as_it_was(traces: Traces) -> None:
    trace = made(new_id("q"))
    record(traces, trace)
    assert traces.get("acme", trace.id) == trace


def test_traces_are_written_by_themselves_many_at_a_time(traces: Traces, database: Flaky) -> None:
    ids = [new_id("q") for _ in range(300)]
    for query_id in ids:
        record(traces, made(query_id))
    until(lambda: len(kept(database, ids[-1:])) == 1)
    assert kept(database, ids) == ids
    assert database.transactions <= 2


def test_recording_makes_nothing_in_the_thread_that_asked(traces: Traces, database: Flaky) -> None:
    makers: list[str] = []
    query_id = new_id("q")

    def make() -> Trace:
        makers.append(threading.current_thread().name)
        return made(query_id)

    traces.record(query_id, make)
    until(lambda: bool(kept(database, [query_id])))
    assert makers == ["traces"]


def test_while_the_database_is_away_traces_wait_and_each_is_written_once(traces: Traces, database: Flaky) -> None:
    database.away = True
    ids = [new_id("q") for _ in range(3)]
    for query_id in ids:
        record(traces, made(query_id))
    with pytest.raises(RetryableError):
        traces.get("acme", ids[0])
    time.sleep(1.2)
    assert kept(database, ids) == []
    database.away = False
    until(lambda: kept(database, ids) == ids)


def test_what_waits_is_bounded_and_the_oldest_goes_first(database: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITING", 5)
    database.away = True
    traces = Traces(database, sample=1.0, retention_s=3600, limit=1000)
    ids = [new_id("q") for _ in range(12)]
    for query_id in ids:
        record(traces, made(query_id))
    database.away = False
    traces.close()
    assert kept(database, ids) == ids[-5:]


def test_closing_writes_what_waits_and_then_records_no_more(traces: Traces, database: Flaky) -> None:
    first, late = new_id("q"), new_id("q")
    record(traces, made(first))
    traces.close()
    record(traces, made(late))
    assert kept(database, [first, late]) == [first]


@pytest.mark.parametrize(("sample", "least", "most"), [(0.0, 0, 0), (0.25, 180, 320), (1.0, 1000, 1000)])
def test_a_sample_is_about_that_share_and_the_same_every_time(
    database: Flaky, sample: float, least: int, most: int
) -> None:
    traces = Traces(database, sample=sample, retention_s=1, limit=1)
    ids = [new_id("q") for _ in range(1000)]
    taken = [query_id for query_id in ids if traces.takes(query_id)]
    assert least <= len(taken) <= most
    assert taken == [query_id for query_id in ids if traces.takes(query_id)]


def test_old_traces_go_and_young_ones_stay(traces: Traces, database: Flaky) -> None:
    old, young = new_id("q"), new_id("q")
    record(traces, made(old, age_s=3700))
    record(traces, made(young, age_s=3500))
    assert traces.get("acme", old).id == old
    traces.forget_old()
    assert kept(database, [old, young]) == [young]


def test_beyond_the_limit_the_newest_stay(database: Flaky) -> None:
    traces = Traces(database, sample=1.0, retention_s=3600, limit=3)
    ids = []
    for _ in range(5):
        ids.append(new_id("q"))
        record(traces, made(ids[-1]))
        time.sleep(0.003)  # ids sort by the millisecond
    traces.get("acme", ids[0])
    traces.forget_old()
    assert kept(database, ids) == ids[-3:]
    traces.close()


def test_the_sweeper_may_call_often(traces: Traces, database: Flaky) -> None:
    for _ in range(50):
        traces.forget_old()
    assert database.transactions == 1


def test_a_trace_of_another_team_or_key_is_as_if_it_were_not_there(traces: Traces) -> None:
    trace = made(new_id("q"))
    admins = made(new_id("q"), key_id=None)
    record(traces, trace)
    record(traces, admins)
    messages = set()
    for team, query_id, key in (
        ("rival", trace.id, None),
        ("acme", trace.id, "key_2"),
        ("acme", admins.id, "key_1"),
        ("acme", admins.id, ""),
        ("acme", "q_unknown", None),
    ):
        with pytest.raises(NotFound) as caught:
            traces.get(team, query_id, asked_by=key)
        messages.add(caught.value.message)
    assert len(messages) == 1
    assert traces.get("acme", trace.id, asked_by="key_1") == trace


def test_what_is_lost_is_said(database: Flaky, caplog: pytest.LogCaptureFixture) -> None:
    written: list[int] = []
    writer = BatchWriter[int](database, lambda _, items: written.extend(items), name="numbers", waiting=3)
    database.away = True
    for number in range(5):
        writer.add(number)
    database.away = False
    writer.close()
    assert written == [2, 3, 4]
    assert "2 numbers were lost" in caplog.text
