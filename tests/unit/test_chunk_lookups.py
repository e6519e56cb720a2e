"""What is done for one document costs by its own chunks, however many the index version holds of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from rag_service.db import Database, chunks

Work = Callable[[Connection], object]


def plans(connection: Connection, work: Work) -> list[str]:
    """How SQLite goes about each statement of `work` that touches chunks."""
    said: list[tuple[str, Any]] = []

    def listen(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "chunks" in statement and not statement.startswith("INSERT"):
            said.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", listen)
    work(connection)
    event.remove(connection, "before_cursor_execute", listen)
    return [
        row.detail
        for statement, parameters in said
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        if " chunks " in row.detail
    ]


WORK: dict[str, Work] = {
    "replace": lambda connection: chunks.replace(connection, "idx", "doc", []),
    "ids": lambda connection: chunks.ids_of(connection, "idx", "doc", 1),
    "read": lambda connection: chunks.of_document(connection, "idx", "doc", 1),
    "page": lambda connection: chunks.page(connection, "doc", limit=10, after=None),
    "forget": lambda connection: chunks.forget(connection, "doc", up_to=1),
}


@pytest.mark.parametrize("name", WORK)
def test_chunks_of_a_document_are_found_by_the_document(database: Database, name: str) -> None:
    with database.transaction() as transaction:
        found = plans(transaction.connection, WORK[name])
    assert found
    assert all("document_id=?" in plan for plan in found), found


def test_an_index_of_documents_alone_would_be_noticed(database: Database) -> None:
    """What read all chunks of the index version for each document: SQLite takes the younger of two as good indexes."""
    with database.transaction() as transaction:
        transaction.connection.execute(text("DROP INDEX ix_chunks_document_id_index_version_ordinal"))
        transaction.connection.execute(text("DROP INDEX ix_chunks_index_version_text_hash"))
        transaction.connection.execute(text("CREATE INDEX former ON chunks (document_id, ordinal)"))
        transaction.connection.execute(text("CREATE INDEX hashes ON chunks (index_version, text_hash)"))
        found = plans(transaction.connection, WORK["replace"])
    assert not all("document_id=?" in plan for plan in found), found


def test_equal_texts_are_found_by_their_hash(database: Database) -> None:
    with database.transaction() as transaction:
        found = plans(transaction.connection, lambda connection: chunks.holding(connection, ["idx"], ["a", "b"]))
    assert all("text_hash=?" in plan for plan in found)
    assert found
