"""A few rows handed over as one."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.engine import Dialect


class Gathered:
    """A query of a few rows, for a process that has much else to do.

    SQLite gives up the interpreter lock at each row, and gets it back when other threads let it: twenty rows beside
    busy threads are twenty waits, and one row of JSON is one. A server's rows come all at once.
    """

    def __init__(self, query: Select[Any]) -> None:
        self._query = query
        self._read: list[Callable[[Any], Any] | None] | None = None

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows, in any order, with the query's columns as attributes, typed as in the tables."""
        if connection.dialect.name != "sqlite":
            return list(connection.execute(self._query, parameters))
        found = json.loads(connection.execute(self._as_one, parameters).scalar_one())
        readers = self._readers(connection.dialect)
        return [
            self._row(*(value if read is None else read(value) for read, value in zip(readers, values, strict=True)))
            for values in found
        ]

    @cached_property
    def _as_one(self) -> Select[Any]:
        return select(func.json_group_array(func.json_array(*self._query.subquery().c)))

    @cached_property
    def _row(self) -> Any:
        return namedtuple("_Row", self._query.selected_columns.keys())

    def _readers(self, dialect: Dialect) -> list[Callable[[Any], Any] | None]:
        """What makes of a column's value in the file what it is in Python; None where it is the same."""
        if self._read is None:
            types = [column.type.dialect_impl(dialect) for column in self._query.selected_columns]
            self._read = [kind.result_processor(dialect, None) for kind in types]
        return self._read
