"""The databases that the metadata may live in, each fresh and migrated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag_service.db import Database

VARIANTS = ("sqlite", "postgres")


@contextmanager
def migrated(variant: str, folder: Path) -> Iterator[Database]:
    with _url(variant, folder) as url:
        database = Database(url)
        database.migrate()
        try:
            yield database
        finally:
            database.close()


@contextmanager
def _url(variant: str, folder: Path) -> Iterator[str]:
    if variant == "sqlite":
        yield f"sqlite:///{folder / 'rag.db'}"
        return
    pgserver = pytest.importorskip("pgserver", reason="pgserver brings the Postgres that this runs against")
    pytest.importorskip("psycopg", reason="psycopg speaks with Postgres")
    server = pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
