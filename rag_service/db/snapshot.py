"""The whole database as one SQLite file, taken at one moment beside any number of writers, and put back from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, func, insert, select, update

from rag_service.db import indexed, jobs, operations, tables
from rag_service.db.engine import Database, _alembic
from rag_service.errors import Conflict

_ROWS = 500


def take(database: Database, path: Path) -> None:
    """Write the database as it is at this moment to `path`, an empty file or none. Writers are not held up.

    In the copy nothing runs: jobs that ran are queued again. SQLite is copied by its own backup, any other database
    row by row within one repeatable-read transaction.
    """
    with database.read() as connection:
        if connection.dialect.name == "sqlite":
            source = cast(sqlite3.Connection, connection.connection.driver_connection)
            with closing(sqlite3.connect(path)) as copy:
                source.backup(copy)
    with opened(path) as copy_of:
        if database.is_shared:
            copy_of.migrate()
            _copy_from_server(database, copy_of)
        with copy_of.transaction() as transaction:
            jobs.requeue_running(transaction.connection)
            operations.forget_running(transaction.connection)
            indexed.forget_others(transaction.connection)


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """The snapshot as a database. Afterwards it is one file again."""
    database = Database(f"sqlite:///{path.absolute()}")
    try:
        yield database
    finally:
        database.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")


def revision(database: Database) -> str:
    """The revision of its schema, "" for an empty database."""
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def is_known(schema: str) -> bool:
    """Whether this version of the service can bring a schema of that revision up to its own."""
    try:
        return bool(schema) and ScriptDirectory.from_config(_alembic()).get_revision(schema) is not None
    except CommandError:
        return False


def is_empty(database: Database) -> bool:
    """Whether it has no team, or no tables at all."""
    if not revision(database):
        return True
    with database.read() as connection:
        rows = (tables.teams.c.id, tables.audit_log.c.seq)
        return all(connection.execute(select(column).limit(1)).first() is None for column in rows)


def load(database: Database, path: Path) -> None:
    """Fill an empty database from a snapshot whose schema is this version's, in one transaction. Raises Conflict."""
    database.migrate()
    with opened(path) as snapshot, snapshot.read() as source, database.transaction() as transaction:
        if not is_empty(database):
            raise Conflict("The database is not empty. Restore into an empty one.", code="not_empty")
        _copy_rows(source, transaction.connection)
        transaction.audit("service.restored", path.name, team=None)


def counts(connection: Connection) -> dict[str, int]:
    """Rows per table that a person would count."""
    counted = (tables.teams, tables.collections, tables.sources, tables.documents, tables.chunks, tables.jobs)
    return {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one()) for table in counted
    }


def _copy_from_server(database: Database, copy: Database) -> None:
    with database.read() as source, copy.transaction() as transaction:
        _copy_rows(source.execution_options(isolation_level="REPEATABLE READ"), transaction.connection)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in tables.metadata.sorted_tables:
        if table is tables.installation:  # says which data folder the source belongs to
            continue
        if table is tables.audit_head:  # can only go forward
            _move_head(source, target)
            continue
        if table is not tables.audit_log:  # append-only, and empty
            # What a migration has put there is in the source too.
            target.execute(table.delete())
        rows = source.execution_options(stream_results=True).execute(select(table))
        for part in rows.mappings().partitions(_ROWS):
            target.execute(insert(table), [dict(row) for row in part])


def _move_head(source: Connection, target: Connection) -> None:
    head = source.execute(select(tables.audit_head)).one()
    if head.seq:
        target.execute(update(tables.audit_head).values(seq=head.seq, hash=head.hash))
