from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from rag_service.db import Database, collections, dead_letters
from rag_service.db.engine import _alembic
from rag_service.db.tables import metadata


def test_migrating_an_empty_database_gives_exactly_the_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    assert database.pending_migrations()
    database.migrate()
    assert not database.pending_migrations()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    database.migrate()
    database.migrate()
    assert not database.pending_migrations()
    database.close()


def test_an_index_of_the_first_schema_is_due_for_measuring(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    with database.transaction() as transaction:
        config = _alembic()
        config.attributes["connection"] = transaction.connection
        command.upgrade(config, "0001")
        transaction.connection.execute(
            text(
                "INSERT INTO index_versions VALUES"
                " ('idx', 'col', 'active', 'm', 'r', 4, 'c', 'english', 152.4, '2026-01-01')"
            )
        )
    database.migrate()
    with database.transaction() as transaction:
        index = collections.index_version(transaction.connection, "idx")
        assert (index.calibration, index.average_length) == (0, 152.4)
        assert collections.note_written(transaction.connection, index, 3) == (3, 0)
    database.close()


def test_jobs_that_had_failed_before_are_letters(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    with database.transaction() as transaction:
        config = _alembic()
        config.attributes["connection"] = transaction.connection
        command.upgrade(config, "0004")
        for state in ("failed", "succeeded"):
            transaction.connection.execute(
                text(
                    "INSERT INTO jobs (id, team_id, kind, state, payload, counters, stages_ms, listed, fence, attempts,"
                    " worker_deaths, cancel_requested, run_after, created_at) VALUES"
                    f" ('job_{state}', 't', 'index', '{state}', '{{}}', '{{}}', '{{}}', 0, 1, 1, 0, 0,"
                    " '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
                )
            )
    database.migrate()
    with database.read() as connection:
        (letter,) = dead_letters.page(connection, dead_letters.LetterFilter(), limit=10, after=None).data
    assert (letter.id, letter.failures, letter.history, letter.retried) == ("job_failed", {}, [], [])
    database.close()
