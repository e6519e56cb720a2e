"""What the metadata database must do, on SQLite and on a real Postgres alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import bindparam, select, text

from connectors.base import Acl
from rag_service.access import tokens_of
from rag_service.db import (
    Database,
    alarms,
    answers,
    collections,
    documents,
    fingerprints,
    installation,
    jobs,
    probes,
    ringing,
    sources,
    teams,
)
from rag_service.db.gathered import Gathered
from rag_service.db.probes import Run
from rag_service.db.ringing import Bell, Limits
from rag_service.db.tables import documents as table
from rag_service.db.tables import metadata
from rag_service.errors import ConfigError, Conflict, InvalidRequest, RetryableError
from rag_service.types import EmbedderIdentity, JobKind, JobState, ProbeState, Queue, utc_now
from tests.distributed.servers import PostgresServer, postgres_server

FEW = Limits(jobs=4, syncs=1)
NONE = Limits(jobs=100_000, syncs=100_000)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'rag.db'}"
    server: PostgresServer = request.getfixturevalue("server")
    return server.new_database(f"t{uuid.uuid4().hex}")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    yield database
    database.close()


def at_once(*work: Callable[[], object]) -> list[BaseException]:
    """Run all in threads of their own; returns what they raised."""
    raised: list[BaseException] = []

    def guarded(each: Callable[[], object]) -> None:
        try:
            each()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def add(database: Database, team: str, count: int, limits: Limits, queue: Queue = Queue.BULK) -> list[Bell]:
    """Queue documents as a sync does; returns the bells that are rung for them at once."""
    bells = []
    with database.transaction() as transaction:
        for _ in range(count):
            rung = ringing.room(transaction.connection, team, queue, limits) > 0
            job_id = jobs.add(transaction.connection, JobKind.INDEX, team, queue=queue, rung=rung)
            bells += [Bell(queue, JobKind.INDEX, job_id)] if rung else []
    return bells


def run(database: Database, bell: Bell, limits: Limits) -> list[Bell]:
    """Do the job; returns the bells that follow it."""
    with database.transaction() as transaction:
        job = jobs.claim(transaction.connection, bell.job_id, 60)
        assert job is not None
        jobs.finish(transaction.connection, job, JobState.SUCCEEDED)
        return ringing.follow(transaction.connection, job.team_id, job.queue, limits)


def turns_until(database: Database, team: str, waiting: list[Bell], limits: Limits) -> int:
    """How many jobs are done in the order of their bells before the first one of `team` is."""
    for turn, bell in enumerate(waiting):  # which grows meanwhile
        with database.read() as connection:
            mine = connection.execute(text("SELECT team_id FROM jobs WHERE id = :id"), {"id": bell.job_id}).scalar()
        if mine == team:
            return turn
        waiting += run(database, bell, limits)
    raise AssertionError(f"{team} never had its turn")


def test_the_schema_is_exactly_the_tables(database: Database) -> None:
    assert not database.pending_migrations()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_several_processes_may_migrate_at_once(url: str) -> None:
    databases = [Database(url) for _ in range(4 if url.startswith("postgresql") else 1)]
    assert at_once(*(database.migrate for database in databases)) == []
    assert not databases[0].pending_migrations()
    for database in databases:
        database.close()


def test_a_schema_of_a_newer_version_is_refused_and_told(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert database.pending_migrations()
    with pytest.raises(ConfigError, match="newer version"):
        database.migrate()


def test_of_many_claimants_exactly_one_gets_the_job(database: Database) -> None:
    job_id = add(database, "red", 1, FEW)[0].job_id
    got: list[object] = []

    def claim() -> None:
        with database.transaction() as transaction:
            got.append(jobs.claim(transaction.connection, job_id, 60))

    assert at_once(*[claim] * 8) == []
    assert len([job for job in got if job is not None]) == 1


def test_a_due_source_is_taken_by_one_scheduler_only(database: Database) -> None:
    with database.transaction() as transaction:
        sources.create(
            transaction.connection,
            team_id="red",
            collection_id="col",
            name="tree",
            source_type="files",
            config={"root": "/"},
            acl=Acl(),
            schedule_s=3600,
            max_deleted_percent=20,
        )
    taken: list[object] = []

    def sweep() -> None:
        with database.transaction() as transaction:
            taken.extend(sources.take_due(transaction.connection))

    assert at_once(*[sweep] * 4) == []
    assert len(taken) == 1


def test_a_due_probe_is_taken_by_one_scheduler_only(database: Database) -> None:
    with database.transaction() as transaction:
        place = collections.create(transaction.connection, "red", "c", description="", language="auto")
        expect: dict[str, Any] = {"question": {"query": "q"}, "expect": {"nothing": True}, "every_s": 60}
        made = probes.create(transaction.connection, team_id="red", collection_id=place.id, name="p", **expect)
    taken: list[object] = []

    def sweep() -> None:
        with database.transaction() as transaction:
            taken.extend(probes.take_due(transaction.connection))

    assert at_once(*[sweep] * 4) == []
    assert taken == [made]


def test_results_of_a_probe_that_come_at_once_change_its_state_once(database: Database) -> None:
    with database.transaction() as transaction:
        place = collections.create(transaction.connection, "red", "c", description="", language="auto")
        expect: dict[str, Any] = {"question": {"query": "q"}, "expect": {"nothing": True}, "every_s": 60}
        made = probes.create(transaction.connection, team_id="red", collection_id=place.id, name="p", **expect)
    before: list[str] = []

    def record(number: int) -> None:
        run = Run(f"prn_{number}", made.id, False, 0.5, [{"document_id": "d", "score": 0.1}], [], 1.0, None, utc_now())
        with database.transaction() as transaction:
            former = probes.record(transaction.connection, run, keep=3)
            assert former is not None
            before.append(former.state)

    assert at_once(*(lambda n=n: record(n) for n in range(4))) == []
    assert sorted(before) == ["failing", "failing", "failing", "unknown"]
    with database.read() as connection:
        assert len(probes.runs(connection, made.id, limit=10, after=None).data) == 3
        assert probes.count_by_state(connection) == {"unknown": 0, "ok": 0, "failing": 1, "paused": 0}


def test_answers_that_are_counted_at_once_are_all_counted(database: Database) -> None:
    hour = answers.hour_of(utc_now())

    def count() -> None:
        for _ in range(5):
            with database.transaction() as transaction:
                answers.add(transaction.connection, {("idx", hour, 3): 2, ("idx", hour, answers.EMPTY): 1})

    assert at_once(*[count] * 4) == []
    day = timedelta(days=1)
    with database.read() as connection:
        newest, reference = answers.windows(connection, utc_now(), day, day)["idx"]
    assert (newest.answers, newest.empty, newest.scores[3], reference.answers) == (60, 20, 40, 0)


def test_an_alarm_is_news_to_one_process_only_and_that_all_is_well_is_none_at_first(database: Database) -> None:
    def settle(state: ProbeState, subject: str = "s") -> bool:
        with database.transaction() as transaction:
            return alarms.settle(transaction.connection, subject, state, kind="scores", detail={"measured": 0.3})

    assert settle(ProbeState.OK, "well") is False
    for state in (ProbeState.FAILING, ProbeState.OK, ProbeState.FAILING):
        news: list[bool] = []
        assert at_once(*[lambda s=state, n=news: n.append(settle(s))] * 4) == []
        assert sorted(news) == [False, False, False, True]
    with database.read() as connection:
        assert alarms.failing_by_kind(connection) == {"scores": 1}


def test_the_first_fingerprint_of_a_model_is_kept_and_comes_back_bit_for_bit(database: Database) -> None:
    model, vectors = EmbedderIdentity("m", "r", 3), np.random.default_rng(1).random((4, 20, 3), dtype=np.float32)

    def keep(number: int) -> None:
        with database.transaction() as transaction:
            fingerprints.keep_first(transaction.connection, model, "python", "t", vectors[number])

    assert at_once(*(lambda n=n: keep(n) for n in range(4))) == []
    with database.read() as connection:
        (kept,) = fingerprints.of(connection, model, "t").values()
    assert any(np.array_equal(kept.vectors, one) for one in vectors)
    with database.transaction() as transaction:
        fingerprints.replace(transaction.connection, model, "torch", "t", vectors[0])
        assert list(fingerprints.of(transaction.connection, model, "t")) == ["torch"]


def test_the_same_document_from_two_writers_is_one(database: Database) -> None:
    made: list[object] = []
    values = {
        "team_id": "red",
        "collection_id": "col",
        "source_id": "",
        "external_id": "a",
        "metadata": {"tags": ["x", "ü"], "n": 1.5},
        "content_hash": "h",
        "blob_key": "k",
        "size_bytes": 1,
    }

    def write(number: int) -> None:
        with database.transaction() as transaction:
            made.append(documents.add(transaction.connection, f"doc_{number}", values, tokens_of(Acl(public=True))))

    assert at_once(*(lambda n=n: write(n) for n in range(4))) == []
    stored = [document for document in made if document is not None]
    assert len(stored) == 1
    with database.read() as connection:
        found = documents.find(connection, "col", "", ["a"])["a"]
    assert found.metadata == values["metadata"]
    assert found.created_at.tzinfo is not None


def test_rows_handed_over_as_one_are_the_rows(database: Database) -> None:
    """Texts, numbers, times, JSON and what is not there come out as they do row by row."""
    title = "A “quoted” \\ title\n with\ttabs, ünïcode, 漢字 and 😀"
    rows: list[dict[str, Any]] = [
        {"external_id": "a", "title": title, "uri": None, "metadata": {"tags": ["x", title], "n": 1.5, "big": 2**53}},
        {"external_id": "b", "title": "b", "uri": "u", "metadata": {}},
    ]
    with database.transaction() as transaction:
        for number, row in enumerate(rows):
            given = {"team_id": "red", "collection_id": "col", "source_id": "", "content_hash": "h", "blob_key": "k"}
            values = {**given, "size_bytes": number, **row}
            documents.add(transaction.connection, f"doc_{number}", values, tokens_of(Acl(public=True)))
    chosen = select(table).where(table.c.id.in_(bindparam("ids", expanding=True)))
    gathered = Gathered(chosen)
    with database.read() as connection:
        for ids in ([], ["doc_1"], ["doc_0", "doc_1", "doc_2"]):
            found = gathered.rows(connection, {"ids": ids})
            assert [row._asdict() for row in sorted(found, key=attrgetter("id"))] == [
                row._asdict() for row in connection.execute(chosen.order_by(table.c.id), {"ids": ids})
            ]
    assert found[0].created_at.tzinfo is not None


def test_a_conflict_is_told_as_one(database: Database) -> None:
    with database.transaction() as transaction:
        teams.create(transaction.connection, "red", "Red")
    with pytest.raises(Conflict), database.transaction() as transaction:
        teams.create(transaction.connection, "red", "Red again")


def test_what_is_true_of_the_installation_is_said_once(database: Database) -> None:
    said: list[str] = []

    def claim(value: str) -> None:
        with database.transaction() as transaction:
            said.append(installation.claim(transaction.connection, "blobs", value))

    assert at_once(*(lambda v=v: claim(v) for v in "abcd")) == []
    assert len(set(said)) == 1


def test_a_team_is_rung_for_as_far_as_it_has_room(database: Database) -> None:
    rung = add(database, "red", 10, FEW)
    assert len(rung) == 4
    with database.transaction() as transaction:
        assert ringing.fill(transaction.connection, FEW) == []
    followed = run(database, rung[0], FEW)
    assert len(followed) == 1
    assert followed[0].job_id not in {bell.job_id for bell in rung}


def test_rooms_of_queues_and_teams_are_apart(database: Database) -> None:
    add(database, "red", 10, FEW)
    assert len(add(database, "red", 10, FEW, Queue.UPLOADS)) == 4
    assert len(add(database, "red", 10, FEW, Queue.SYNCS)) == 1
    assert len(add(database, "blue", 10, FEW)) == 4


def test_a_sync_that_waits_for_its_documents_takes_no_room(database: Database) -> None:
    bell = add(database, "red", 2, FEW, Queue.SYNCS)[0]
    with database.transaction() as transaction:
        job = jobs.claim(transaction.connection, bell.job_id, 60)
        assert job is not None
        jobs.proceed(transaction.connection, job, listed=True, lease_until=None)
        assert len(ringing.follow(transaction.connection, "red", Queue.SYNCS, FEW)) == 1


def test_one_teams_hundred_documents_are_not_ahead_of_another_teams(database: Database) -> None:
    waiting = add(database, "red", 100, FEW)
    waiting += add(database, "blue", 1, FEW)
    assert turns_until(database, "blue", waiting, FEW) <= FEW.jobs


def test_without_limits_they_are(database: Database) -> None:
    """The broken variant: whoever queues first is served first, to the last document."""
    waiting = add(database, "red", 100, NONE)
    waiting += add(database, "blue", 1, NONE)
    assert turns_until(database, "blue", waiting, NONE) == 100


def test_after_all_messages_are_lost_teams_are_rung_for_by_turns(database: Database) -> None:
    add(database, "red", 100, FEW)
    add(database, "blue", 2, FEW)
    with database.transaction() as transaction:
        ringing.forget_all(transaction.connection)
    with database.transaction() as transaction:
        rung = [bell.job_id for bell in ringing.fill(transaction.connection, FEW)]
    assert len(rung) == FEW.jobs + 2
    with database.read() as connection:
        first_two = connection.execute(
            text("SELECT DISTINCT team_id FROM jobs WHERE id IN (:a, :b)"), {"a": rung[0], "b": rung[1]}
        )
        assert {row.team_id for row in first_two} == {"red", "blue"}


def test_two_sweepers_ring_for_no_job_twice(database: Database) -> None:
    add(database, "red", 50, Limits(jobs=1, syncs=1))
    rung: list[Bell] = []

    def sweep() -> None:
        with database.transaction() as transaction:
            rung.extend(ringing.take(transaction.connection, "red", Queue.BULK, 20))

    assert at_once(sweep, sweep) == []
    assert len({bell.job_id for bell in rung}) == len(rung) == 40


def test_a_job_that_its_process_gives_up_is_anybodys_at_once(database: Database) -> None:
    bell = add(database, "red", 1, FEW)[0]
    with database.transaction() as transaction:
        job = jobs.claim(transaction.connection, bell.job_id, 60)
        assert job is not None
        jobs.hand_back_all(transaction.connection, {job.id: job.fence})
        assert ringing.fill(transaction.connection, FEW) == [bell]
        again = jobs.claim(transaction.connection, bell.job_id, 60)
    assert again is not None
    assert again.worker_deaths == 0


class TestAServer:
    """What only a server can do to us."""

    def test_a_text_that_it_cannot_hold_is_the_callers_mistake(self, server: PostgresServer) -> None:
        database = Database(server.new_database(f"t{uuid.uuid4().hex}"))
        database.migrate()
        with pytest.raises(InvalidRequest), database.transaction() as transaction:
            teams.create(transaction.connection, "red", "a\x00b")
        with pytest.raises(InvalidRequest), database.transaction() as transaction:
            teams.create(transaction.connection, "red", "x" * 1000)
        database.close()

    def test_one_that_is_away_is_a_passing_trouble_and_is_found_again(self, server: PostgresServer) -> None:
        database = Database(server.new_database(f"t{uuid.uuid4().hex}"))
        database.migrate()
        server.stop()
        try:
            with pytest.raises(RetryableError), database.transaction() as transaction:
                teams.create(transaction.connection, "red", "Red")
        finally:
            server.start()
        with database.transaction() as transaction:
            teams.create(transaction.connection, "red", "Red")
        database.close()

    def test_a_deadlock_is_a_passing_trouble(self, server: PostgresServer) -> None:
        database = Database(server.new_database(f"t{uuid.uuid4().hex}"))
        database.migrate()
        with database.transaction() as transaction:
            for name in ("red", "blue"):
                teams.create(transaction.connection, name, name)
        both = threading.Barrier(2)

        def rename(first: str, second: str) -> None:
            statement = text("UPDATE teams SET name = 'x' WHERE id = :id")
            with database.transaction() as transaction:
                transaction.connection.execute(statement, {"id": first})
                both.wait(10)
                transaction.connection.execute(statement, {"id": second})

        raised = at_once(lambda: rename("red", "blue"), lambda: rename("blue", "red"))
        assert [type(error) for error in raised] == [RetryableError]
        database.close()

    @pytest.mark.parametrize("url", ["mysql://u@h/d", "no url", "postgresql+asyncpg://u@h/d"])
    def test_another_kind_of_database_is_refused_by_name(self, url: str) -> None:
        with pytest.raises(ConfigError, match="RAG_DATABASE_URL"):
            Database(url)

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_its_url_needs_no_name_of_a_driver(self, server: PostgresServer, scheme: str) -> None:
        database = Database(server.url().replace("postgresql", scheme, 1))
        with database.read() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
        database.close()
