"""Events, their deliveries and feedback, on SQLite and on a real Postgres alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from rag_service.db import Database, deliveries, feedback, webhooks
from rag_service.db.deliveries import DELIVERED, FAILED
from rag_service.db.feedback import NONE, Feedback, FeedbackFilter, Rating, Reason, Signal
from rag_service.db.outbox import ALL_TEAMS, WAITING, emit_all
from rag_service.db.outside import deliveries as delivery_rows
from rag_service.db.outside import outbox
from rag_service.db.webhooks import Webhook
from rag_service.errors import NotFound
from rag_service.types import EventType, utc_now
from tests.distributed.servers import PostgresServer, postgres_server

READY, GONE = EventType.DOCUMENT_READY, EventType.DOCUMENT_DELETED
ATTEMPT = {"at": "2026-01-01T00:00:00+00:00", "status": 500, "reason": "refused", "ms": 1.0}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'rag.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("server")
        url = server.new_database(f"t{uuid.uuid4().hex}")
    database = Database(url)
    database.migrate()
    yield database
    database.close()


def hook(database: Database, team: str, *events: EventType) -> Webhook:
    with database.transaction() as transaction:
        return webhooks.add(
            transaction.connection, team, url="https://example.com", events=events or (READY,), description=""
        )


def tell(database: Database, team: str, count: int = 1, kind: EventType = READY) -> set[str]:
    """Emit; returns the webhooks that are to be told."""
    with database.transaction() as transaction:
        emit_all(transaction, kind, team, lambda: [{"number": number} for number in range(count)])
        return transaction.told


def counted(database: Database, table: Any) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def take(database: Database, webhook: Webhook, limit: int = 10, lease_s: float = 60) -> list[deliveries.Delivery]:
    with database.transaction() as transaction:
        return deliveries.claim(transaction.connection, webhook.id, limit, lease_s)


def test_an_event_is_written_once_and_told_to_whoever_wants_it(database: Database) -> None:
    mine, also, others = hook(database, "a"), hook(database, "a", GONE, READY), hook(database, "b")
    everyone, silent = hook(database, ALL_TEAMS), hook(database, "a", GONE)
    assert tell(database, "a") == {mine.id, also.id, everyone.id}
    assert (counted(database, outbox), counted(database, delivery_rows)) == (1, 3)
    assert [len(take(database, one)) for one in (mine, also, everyone, silent, others)] == [1, 1, 1, 0, 0]
    with database.read() as connection:
        assert deliveries.due_webhooks(connection) == []


def test_where_nobody_listens_an_event_is_one_look_and_no_row(database: Database) -> None:
    hook(database, "b")
    hook(database, "a", GONE)
    statements: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    made: list[int] = []

    def never() -> list[dict[str, Any]]:
        made.append(1)
        return [{}]

    with database.transaction() as transaction:
        emit_all(transaction, READY, "a", never)
        asked = [one for one in statements if "webhooks" in one]
    assert (len(asked), made, counted(database, outbox)) == (1, [], 0)
    if not database.is_shared:
        with database.transaction() as transaction:
            plan = " ".join(
                str(row) for row in transaction.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[0]}", ("a", ""))
            )
        assert "USING INDEX" in plan


def test_what_is_taken_is_nobody_elses_until_its_time_is_over(database: Database) -> None:
    webhook = hook(database, "a")
    tell(database, "a", 20)
    taken: list[str] = []
    lock = threading.Lock()

    def worker() -> None:
        while batch := take(database, webhook, 3):
            with lock:
                taken.extend(one.id for one in batch)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 20
    tell(database, "a")
    (late,) = take(database, webhook, lease_s=0.0)
    assert [one.id for one in take(database, webhook)] == [late.id]


def test_who_comes_late_does_not_undo_what_another_recorded(database: Database) -> None:
    webhook = hook(database, "a")
    tell(database, "a")
    (slow,) = take(database, webhook, lease_s=0.0)
    (fast,) = take(database, webhook)
    with database.transaction() as transaction:
        deliveries.record(transaction.connection, fast, DELIVERED, ATTEMPT, None)
        deliveries.record(transaction.connection, slow, FAILED, ATTEMPT, None)
        (now,) = deliveries.page(transaction.connection, webhook.id, None, limit=9, after=None).data
    assert (now.state, now.attempts) == (DELIVERED, 1)


def test_what_waits_is_due_when_its_time_comes_and_its_history_is_bounded(database: Database) -> None:
    webhook = hook(database, "a")
    tell(database, "a")
    for number in range(12):
        (one,) = take(database, webhook)
        with database.transaction() as transaction:
            attempt = {**ATTEMPT, "status": number}
            deliveries.record(transaction.connection, one, WAITING, attempt, utc_now() - timedelta(seconds=1))
    (one,) = take(database, webhook)
    assert (one.attempts, [attempt["status"] for attempt in one.history]) == (12, list(range(2, 12)))
    with database.transaction() as transaction:
        deliveries.record(transaction.connection, one, WAITING, ATTEMPT, utc_now() + timedelta(hours=1))
        assert deliveries.due_webhooks(transaction.connection) == []
    assert take(database, webhook) == []


@pytest.mark.parametrize(
    "state", [{"enabled": False}, {"resume_at": datetime(2100, 1, 1, tzinfo=UTC)}], ids=["disabled", "left alone"]
)
def test_a_webhook_that_is_not_to_be_told_is_not_due(database: Database, state: dict[str, Any]) -> None:
    webhook = hook(database, "a")
    tell(database, "a")
    with database.transaction() as transaction:
        assert deliveries.due_webhooks(transaction.connection) == [webhook.id]
        webhooks.change(transaction.connection, webhook.id, **state)
        assert deliveries.due_webhooks(transaction.connection) == []


def test_a_replay_goes_through_all_there_is_some_at_a_time(database: Database) -> None:
    webhook = hook(database, "a")
    with database.transaction() as transaction:
        webhooks.change(transaction.connection, webhook.id, enabled=False)
    assert tell(database, "a", 1_203) == set()
    assert (counted(database, outbox), counted(database, delivery_rows)) == (1_203, 0)
    steps, last = [], ""
    while True:
        with database.transaction() as transaction:
            some, after = deliveries.replay(transaction, webhook, utc_now() - timedelta(hours=1), last, repeat=False)
        steps.append(some)
        if after is None:
            break
        last = after
    assert steps == [500, 500, 203]
    assert counted(database, delivery_rows) == 1_203


def test_forgetting_takes_deliveries_along(database: Database) -> None:
    hook(database, "a")
    tell(database, "a", 3)
    with database.transaction() as transaction:
        deliveries.forget(transaction.connection, utc_now() - timedelta(hours=1))
    assert counted(database, delivery_rows) == 3
    with database.transaction() as transaction:
        deliveries.forget(transaction.connection, utc_now() + timedelta(seconds=1))
    assert (counted(database, outbox), counted(database, delivery_rows)) == (0, 0)


def said(**more: Any) -> Feedback:
    blank = Feedback(
        id=f"fbk_{uuid.uuid4().hex}",
        team_id="a",
        query_id="q_1",
        document_id="doc_1",
        chunk_id=NONE,
        key_id="key_1",
        rating=None,
        reasons=[],
        signals=[],
        comment=None,
        expected_document_id=None,
        collection_id="col_1",
        source_id=NONE,
        query=None,
        as_user=None,
        asked_at=utc_now(),
        rank=1,
        score=0.5,
        version=1,
        index_version="idx_1",
        at=utc_now(),
    )
    return replace(blank, **more)


def test_feedback_on_the_same_hit_becomes_one_row_also_when_given_at_once(database: Database) -> None:
    def give(signal: Signal) -> None:
        with database.transaction() as transaction:
            feedback.give(transaction.connection, said(signals=[signal]))

    threads = [threading.Thread(target=give, args=(signal,)) for signal in Signal for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        (only,) = feedback.page(connection, "a", FeedbackFilter(), limit=9, after=None).data
    assert only.signals == tuple(Signal)


def test_feedback_is_counted_by_what_it_says(database: Database) -> None:
    with database.transaction() as transaction:
        connection = transaction.connection
        likes: dict[str, Any] = {"rating": Rating.LIKE}
        dislikes: dict[str, Any] = {"rating": Rating.DISLIKE, "reasons": [Reason.MISSING]}
        for number, more in enumerate(({**likes, "signals": [Signal.COPIED]}, likes, dislikes)):
            feedback.give(connection, said(query_id=f"q_{number}", **more))
        feedback.give(connection, said(query_id="q_9", source_id="src_1", **dislikes))
        feedback.give(connection, said(query_id="q_9", team_id="b", key_id="key_2", **dislikes))
        uploads, source = feedback.summary(connection, "a", FeedbackFilter())
        assert (uploads.source_id, uploads.given, uploads.likes, uploads.dislikes) == (NONE, 3, 2, 1)
        assert {name for name, count in uploads.signals.items() if count} == {Signal.COPIED}
        assert (source.source_id, source.given, source.reasons[Reason.MISSING]) == ("src_1", 1, 1)
        missing = FeedbackFilter(reason=Reason.MISSING)
        assert sum(row.given for row in feedback.summary(connection, "a", missing)) == 2
        assert len(list(feedback.in_order(connection, "a", missing))) == 2
        (theirs,) = feedback.page(connection, "b", FeedbackFilter(), limit=9, after=None).data
        with pytest.raises(NotFound):
            feedback.remove(connection, "a", theirs.id)
