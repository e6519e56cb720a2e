from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rag_service.db import Database
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
