"""What working on documents anew asks of the database, on SQLite and on a real Postgres alike."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from connectors.base import Acl
from rag_service.access import tokens_of
from rag_service.db import Database, documents, idempotency, jobs, rates, reindexing
from rag_service.db.reindexing import Selection
from rag_service.db.tables import document_access
from rag_service.errors import InvalidRequest
from rag_service.types import JobKind, JobState, utc_now
from tests.contracts import test_databases

server, url, database = test_databases.server, test_databases.url, test_databases.database
PUBLIC = Acl(public=True)


def put(database: Database, document_id: str, **more: Any) -> None:
    values = {
        "team_id": "hr",
        "collection_id": "col",
        "source_id": "",
        "external_id": document_id,
        "given_title": "",
        "title": document_id,
        "file_name": "",
        "uri": None,
        "media_type": None,
        "metadata": {},
        "acl": PUBLIC,
        "content_hash": "h",
        "blob_key": "k",
        "size_bytes": 1,
        **more,
    }
    with database.transaction() as transaction:
        assert documents.add(transaction.connection, document_id, values, tokens_of(PUBLIC)) is not None


def names(database: Database, selection: Selection, limit: int = 10, after: str = "") -> list[str]:
    with database.read() as connection:
        found = reindexing.some(connection, selection, after=after, limit=limit)
    return [kept.document.id for kept in found]


def test_documents_are_listed_page_by_page_in_the_order_of_their_ids(database: Database) -> None:
    for name in ("c", "a", "b"):
        put(database, name)
    put(database, "d", team_id="it", collection_id="other", source_id="src")
    with database.transaction() as transaction:
        documents.mark_deleted(transaction.connection, document_id="b")
    assert names(database, Selection(), limit=2) == ["a", "c"]
    assert names(database, Selection(), after="c") == ["d"]
    assert names(database, Selection(team_id="hr")) == ["a", "c"]
    assert names(database, Selection(collection_id="other")) == names(database, Selection(source_id="src")) == ["d"]
    assert names(database, Selection(failed_only=True)) == []
    with database.read() as connection:
        assert reindexing.teams(connection, Selection()) == ["hr", "it"]
        before = documents.load(connection, "c")
        assert before is not None
    assert names(database, Selection(created_before=before.created_at)) == ["c"]


def test_renewed_access_is_that_of_the_list_and_of_nobody_who_was_late(database: Database) -> None:
    put(database, "a")
    with database.transaction() as transaction:
        connection = transaction.connection
        seen = documents.load(connection, "a")
        assert seen is not None
        connection.execute(document_access.delete())
        renewed = reindexing.renew_access(connection, seen)
        assert renewed is not None
        assert (renewed.revision, renewed.updated_at) == (seen.revision + 1, seen.updated_at)
        held = connection.execute(select(document_access.c.token)).scalars().all()
        assert set(held) == set(tokens_of(PUBLIC).allow)
        assert reindexing.renew_access(connection, seen) is None


def test_what_ran_lately_is_told_newest_first_and_without_what_failed_on_the_way(database: Database) -> None:
    with database.transaction() as transaction:
        connection = transaction.connection
        for number in range(3):
            job_id = jobs.add(connection, JobKind.INDEX, "hr", payload={"again": True, "from": "embed"})
            job = jobs.claim(connection, job_id, 60)
            assert job is not None
            if number == 1:
                jobs.retry(connection, job, {"error_class": "transient"}, 0)
                job = jobs.claim(connection, job_id, 60)
                assert job is not None
            sizes = {"chunks": number}
            jobs.finish(connection, job, JobState.SUCCEEDED, stages_ms={"embed": 2.0}, counters=sizes)
        ran = rates.lately(connection, JobKind.INDEX, 10)
    assert [one.sizes["chunks"] for one in ran] == [2, 0]
    assert {(one.from_stage, one.stages_ms["embed"]) for one in ran} == {("embed", 2.0)}
    assert all(one.began <= one.ended <= utc_now() for one in ran)


def once(database: Database, key: str, asked: dict[str, Any], done: list[str], caller: str = "key_1") -> Any:
    def do() -> dict[str, Any]:
        done.append(key)
        return {"number": len(done)}

    with database.transaction() as transaction:
        return idempotency.once(transaction.connection, caller, key, asked, do)


def test_a_key_has_one_effect_for_each_caller(database: Database) -> None:
    done: list[str] = []
    assert [once(database, "k", {"a": 1}, done) for _ in range(3)] == [{"number": 1}] * 3
    assert once(database, "k", {"a": 1}, done, caller="key_2") == {"number": 2}
    with pytest.raises(InvalidRequest, match="another request"):
        once(database, "k", {"a": 2}, done)
    assert len(done) == 2


def test_what_was_rolled_back_took_no_key(database: Database) -> None:
    done: list[str] = []

    def fail() -> dict[str, Any]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), database.transaction() as transaction:
        idempotency.once(transaction.connection, "key_1", "k", {}, fail)
    assert once(database, "k", {"other": True}, done) == {"number": 1}


def test_of_two_at_once_one_does_it_and_both_are_told(database: Database) -> None:
    done: list[str] = []
    told: list[Any] = []
    threads = [threading.Thread(target=lambda: told.append(once(database, "k", {}, done))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [{"number": 1}] * 6


def test_keys_are_forgotten_after_a_day(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    once(database, "k", {}, done)
    later = utc_now() + 2 * idempotency.KEPT
    monkeypatch.setattr(idempotency, "utc_now", lambda: later)
    assert once(database, "k", {"other": True}, done) == {"number": 2}
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(idempotency.idempotency_keys)).scalar() == 1


def test_a_parent_is_through_when_its_childrens_children_are(database: Database) -> None:
    with database.transaction() as transaction:
        connection = transaction.connection
        top = jobs.add(connection, JobKind.REINDEX, "hr")
        sync = jobs.add(connection, JobKind.SYNC, "hr", parent_id=top)
        child = jobs.add(connection, JobKind.INDEX, "hr", parent_id=sync)
        for listed in (top, sync):
            held = jobs.claim(connection, listed, 60)
            assert held is not None
            jobs.proceed(connection, held, listed=True, lease_until=None)
        jobs.settle_parent(connection, sync)
        assert jobs.get(connection, "hr", top).state == JobState.RUNNING
        held = jobs.claim(connection, child, 60)
        assert held is not None
        jobs.finish(connection, held, JobState.SUCCEEDED)
        jobs.settle_parent(connection, sync)
        assert {jobs.get(connection, "hr", one).state for one in (top, sync)} == {JobState.SUCCEEDED}
