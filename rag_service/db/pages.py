"""Keyset pagination: ids sort by time of creation, so the last id of a page is its cursor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, Select, Table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    data: list[T]
    next_cursor: str | None


def fetch_page(
    connection: Connection,
    query: Select[Any],
    table: Table,
    make: Callable[[Row[Any]], T],
    *,
    limit: int,
    after: str | None,
) -> Page[T]:
    """Newest first. `after` is the `next_cursor` of the page before; an unknown one is only a position."""
    if after is not None:
        query = query.where(table.c.id < after)
    rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page([make(row) for row in shown], str(shown[-1].id) if len(rows) > limit else None)
