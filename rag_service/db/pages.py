"""Keyset pagination: ids sort by time of creation, so the last id of a page is its cursor."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, Select, Table

from rag_service.errors import InvalidRequest

# As `new_id` makes them.
_ID = re.compile(r"[a-z]+_[0-9a-f]{32}")

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
    ids: re.Pattern[str] = _ID,
) -> Page[T]:
    """Newest first. `after` is the `next_cursor` of the page before; one whose row has gone is still a position.

    Raises InvalidRequest for what is no cursor: it would begin the list anew, or end it.
    """
    if after is not None:
        if not ids.fullmatch(after):
            raise _no_cursor()
        query = query.where(table.c.id < after)
    rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page([make(row) for row in shown], str(shown[-1].id) if len(rows) > limit else None)


def number_of(after: str, digits: int = 9) -> int:
    """The cursor of a list that is ordered by numbers of so many digits. Raises InvalidRequest."""
    if not (after.isascii() and after.isdecimal() and len(after) <= digits):
        raise _no_cursor()
    return int(after)


def _no_cursor() -> InvalidRequest:
    return InvalidRequest("after is no cursor. Send the next_cursor of the page before.")
