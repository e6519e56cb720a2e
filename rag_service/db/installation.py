"""What is true of the whole installation, said once by the first process that knows it."""

from __future__ import annotations

from sqlalchemy import Connection, select

from rag_service.db.tables import installation
from rag_service.db.upserts import upsert


def claim(connection: Connection, name: str, value: str) -> str:
    """Say that `name` is `value` unless something has been said; returns what holds from here on."""
    connection.execute(upsert(connection, installation).values(name=name, value=value).on_conflict_do_nothing())
    return str(connection.execute(select(installation.c.value).where(installation.c.name == name)).scalar_one())
