"""The audit log on SQLite and on Postgres: complete, in one order, and nothing in it changes unnoticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from rag_service.db import Connection, Database, audit
from rag_service.db.audit import AuditFilter, Recorded
from rag_service.db.audit_chain import Chain, verify
from rag_service.db.authors import Author, authored_by
from rag_service.errors import InvalidRequest
from rag_service.types import utc_now
from tests.contracts.sql_variants import VARIANTS, migrated

ADA = Author("key", key_id="key_1", key_name="Ada's", user="ada", groups=("staff", "hr"), request_id="req_1")


@pytest.fixture(scope="module", params=VARIANTS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database of each kind; its log only ever grows."""
    with migrated(request.param, tmp_path_factory.mktemp(request.param)) as database:
        yield database


@pytest.fixture(scope="module", params=VARIANTS)
def ten(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A log of ten entries."""
    with migrated(request.param, tmp_path_factory.mktemp(f"ten-{request.param}")) as database:
        write(database, 10)
        yield database


@pytest.fixture
def spoiled(ten: Database) -> Iterator[Connection]:
    """The log of ten entries without its triggers, as its owner can have it; what is done to it is undone."""
    with pytest.raises(UndoneError), ten.transaction() as transaction:
        for statement in without_triggers(transaction.connection):
            transaction.connection.execute(text(statement))
        yield transaction.connection
        raise UndoneError


class UndoneError(Exception):
    pass


def without_triggers(connection: Connection) -> list[str]:
    if connection.dialect.name == "postgresql":
        return ["DROP FUNCTION audit_log_is_append_only() CASCADE"]
    names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
    return [f"DROP TRIGGER {name}" for name in names]


def write(database: Database, count: int, action: str = "document.acl_changed", **more: Any) -> None:
    with database.transaction() as transaction:
        for number in range(count):
            transaction.audit(action, f"doc_{number}", team="acme", after={"public": True, "users": ["ada"]}, **more)


def entries(database: Database, **narrowing: Any) -> list[Recorded]:
    with database.read() as connection:
        return list(audit.in_order(connection, AuditFilter(**narrowing)))


def faults(database: Database) -> list[str]:
    with database.read() as connection:
        return verify(connection).faults


def test_an_entry_says_who_did_what_when_and_what_changed(whole: Database) -> None:
    began = utc_now()
    with authored_by(ADA), whole.transaction() as transaction:
        transaction.audit(
            "key.made", "key_9", team="acme", before={"a": None}, after={"scopes": ["query"]}, why="ümläut"
        )
    entry = entries(whole)[-1]
    assert entry.author == {
        "kind": "key",
        "key_id": "key_1",
        "key_name": "Ada's",
        "user": "ada",
        "groups": ["hr", "staff"],
        "request_id": "req_1",
    }
    assert (entry.action, entry.target, entry.team_id, entry.outcome) == ("key.made", "key_9", "acme", "done")
    assert (entry.before, entry.after, entry.detail) == ({"a": None}, {"scopes": ["query"]}, {"why": "ümläut"})
    assert began <= entry.at <= utc_now()
    assert faults(whole) == []


def test_nobody_named_means_the_service_itself(whole: Database) -> None:
    write(whole, 1)
    assert entries(whole)[-1].author == {"kind": "service"}


def test_it_is_written_with_what_it_describes_or_not_at_all(whole: Database) -> None:
    before = len(entries(whole))
    with pytest.raises(ZeroDivisionError), whole.transaction() as transaction:
        transaction.audit("team.created", "t", team="t")
        raise ZeroDivisionError
    assert len(entries(whole)) == before
    write(whole, 1)
    assert entries(whole)[-1].seq == before + 1


def test_what_many_write_at_once_makes_one_chain_without_gaps(whole: Database) -> None:
    before = len(entries(whole))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(whole, 3, f"storm.{number}"), range(40)))
    written = entries(whole)
    assert [entry.seq for entry in written] == list(range(1, before + 121))
    assert faults(whole) == []
    assert all(len(entries(whole, action=f"storm.{number}")) == 3 for number in range(40))


def test_two_processes_would_break_the_chain_if_its_head_were_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: Postgres, and a head that is read without a lock."""
    with migrated("postgres", tmp_path) as database:
        monkeypatch.setattr("sqlalchemy.sql.selectable.Select.with_for_update", lambda query: query)
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: _collides(database), range(40)))
        assert any(outcomes)


def _collides(database: Database) -> bool:
    try:
        write(database, 3)
    except DBAPIError:
        return True
    return False


def test_a_thousand_changes_are_a_matter_of_moments(whole: Database) -> None:
    write(whole, 1)
    began = time.perf_counter()
    write(whole, 1000)
    assert time.perf_counter() - began < 5  # 0.3 s on SQLite, 0.7 s on Postgres, on a machine busy tenfold
    assert faults(whole) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'nothing' WHERE seq = 1",
        "DELETE FROM audit_log WHERE seq = 1",
        "DELETE FROM audit_log",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = 0",
        "UPDATE audit_head SET id = 2",
    ],
)
def test_the_database_refuses_to_change_or_remove_entries(whole: Database, statement: str) -> None:
    write(whole, 2)
    before = entries(whole)
    with pytest.raises(DBAPIError, match="append-only"), whole.transaction() as transaction:
        transaction.connection.execute(text(statement))
    assert entries(whole) == before


def test_the_database_refuses_what_removes_by_the_back_door(whole: Database) -> None:
    write(whole, 1)
    before = entries(whole)
    with whole.read() as connection:
        sqlite = connection.dialect.name == "sqlite"
    statement = "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log" if sqlite else "TRUNCATE audit_log"
    with pytest.raises(DBAPIError, match="append-only"), whole.transaction() as transaction:
        transaction.connection.execute(text(statement))
    assert entries(whole) == before


COPY = "seq, at, team_id, author, action, target, outcome, before, after, detail, hash"
TAMPERINGS: dict[str, tuple[list[str], str]] = {
    **{
        f"changed {column}": ([f"UPDATE audit_log SET {column} = {value} WHERE seq = 4"], "entry 4 was changed")
        for column, value in {
            "at": "'2001-01-01 00:00:00'",
            "team_id": "'rival'",
            "author": '\'{"kind": "service", "key_id": "key_x"}\'',
            "action": "'x'",
            "target": "'doc_x'",
            "outcome": "'refused'",
            "before": "'{}'",
            "after": "'{\"public\": false}'",
            "detail": "'{\"a\": 1}'",
            "hash": "'ff'",
        }.items()
    },
    "removed in the middle": (["DELETE FROM audit_log WHERE seq = 4"], "entry 4 is missing"),
    "removed several": (["DELETE FROM audit_log WHERE seq BETWEEN 4 AND 6"], "entries 4-6 are missing"),
    "removed the first": (["DELETE FROM audit_log WHERE seq = 1"], "entry 1 is missing"),
    "removed the last": (["DELETE FROM audit_log WHERE seq = 10"], "ends with entry 9"),
    "removed the last, and set back the head": (
        ["DELETE FROM audit_log WHERE seq = 10", "UPDATE audit_head SET seq = 9"],
        "ends with entry 9",
    ),
    "removed all": (["DELETE FROM audit_log"], "ends with entry 0"),
    "removed the head": (["DELETE FROM audit_head"], "ends with entry 10"),
    "put in at the end": (
        [f"INSERT INTO audit_log ({COPY}) SELECT 11, {COPY[5:]} FROM audit_log WHERE seq = 10"],
        "entry 11 was changed or put in",
    ),
    "put in before the first": (
        [f"INSERT INTO audit_log ({COPY}) SELECT 0, {COPY[5:]} FROM audit_log WHERE seq = 10"],
        "entry 0",
    ),
    "put in the place of another": (
        [
            "DELETE FROM audit_log WHERE seq = 4",
            f"INSERT INTO audit_log ({COPY}) SELECT 4, {COPY[5:]} FROM audit_log WHERE seq = 5",
        ],
        "entry 4 was changed or put in",
    ),
    "exchanged": (
        [f"UPDATE audit_log SET seq = {new} WHERE seq = {old}" for old, new in ((4, 99), (5, 4), (99, 5))],
        "entry 4 was changed",
    ),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_every_kind_of_tampering_is_found(spoiled: Connection, kind: str) -> None:
    assert verify(spoiled).faults == []
    statements, told = TAMPERINGS[kind]
    for statement in statements:
        spoiled.exec_driver_sql(statement)
    assert told in " and ".join(verify(spoiled).faults)


def test_a_log_rewritten_with_all_its_hashes_is_found_by_a_head_that_was_noted(spoiled: Connection) -> None:
    seq, noted = audit.head_of(spoiled)
    spoiled.exec_driver_sql("DELETE FROM audit_log")
    spoiled.exec_driver_sql(f"UPDATE audit_head SET seq = 0, hash = '{audit.GENESIS}'")
    assert verify(spoiled, {seq: noted}).faults == ["entry 10, whose hash was noted, is missing"]
    audit.append(spoiled, [audit.Entry("forged", f"doc_{number}", "acme") for number in range(12)])
    assert verify(spoiled).faults == []
    assert verify(spoiled, {seq: noted}).faults == ["entry 10 has another hash than was noted"]


def test_what_is_exported_can_be_verified_on_its_own(ten: Database) -> None:
    lines = [entry.exported() for entry in entries(ten)]
    with ten.read() as connection:
        head = audit.head_of(connection)

    def check(lines: list[str]) -> list[str]:
        return Chain().follow(Recorded.parsed(line) for line in lines).ends_at(*head).faults

    assert check(lines) == []
    assert check([lines[0].replace("doc_0", "doc_7"), *lines[1:]]) == ["entry 1 was changed or put in"]
    assert check(lines[:3] + lines[4:]) == ["entry 4 is missing"]


def test_entries_are_listed_newest_first_page_by_page_and_narrowed(whole: Database) -> None:
    with authored_by(ADA):
        write(whole, 5, "page.one", cause="a")
    write(whole, 5, "page.two")
    with whole.transaction() as transaction:
        transaction.audit("page.one", "doc_0", team="other")

    def listed(limit: int = 100, after: str | None = None, **narrowing: Any) -> tuple[list[str], str | None]:
        with whole.read() as connection:
            page = audit.page(connection, AuditFilter(**narrowing), limit=limit, after=after)
        return [entry.target for entry in page.data], page.next_cursor

    first, cursor = listed(3, action="page.one", team_id="acme")
    assert (first, cursor) == (["doc_4", "doc_3", "doc_2"], str(entries(whole, action="page.one")[2].seq))
    assert listed(3, cursor, action="page.one", team_id="acme") == (["doc_1", "doc_0"], None)
    assert len(listed(action="page.*")[0]) == 11
    assert listed(action="page.*", target="doc_3")[0] == ["doc_3", "doc_3"]
    assert len(listed(action="page.*", key_id="key_1")[0]) == 5
    assert len(listed(action="page.*", request_id="req_1")[0]) == 5
    assert listed(action="page.*", outcome="refused")[0] == []
    assert listed(action="pa%")[0] == []
    assert listed(since=utc_now())[0] == []
    assert len(listed(action="page.*", since=utc_now() - timedelta(hours=1), until=utc_now())[0]) == 11
    for wrong in ("no cursor of ours", "", "9" * 19):
        with pytest.raises(InvalidRequest, match="no cursor"):
            listed(after=wrong)


def test_context_goes_with_threads_that_are_handed_it() -> None:
    from contextvars import copy_context

    from rag_service.db.authors import current_author

    def run(call: Callable[[], Author]) -> Author:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(call).result()

    with authored_by(ADA):
        context = copy_context()
        assert run(lambda: context.run(current_author)) == ADA
        assert run(current_author) == Author("service")
    assert current_author() == Author("service")
