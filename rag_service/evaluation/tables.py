"""Query sets as CSV. What is written can be read again without loss.

Under a heading, a row per expected document: `query` and `external_id` or `document_id`, and where needed `id`, `grade`
(1 to 3; 1 if empty), `expect_nothing` (true), `as_user` and `filter` (JSON) and `min_score`. Rows with the same id, or
without one with the same query, are one query; what is said of it stands in its first row. One without an id is called
q1, q2 and so on by its place.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

from rag_service.errors import InvalidRequest
from rag_service.evaluation.records import ABOUT, HIGHEST_GRADE, about, read
from rag_service.types import LabelledQuery

COLUMNS = ("id", "query", "external_id", "document_id", "grade", *ABOUT)


def write_csv(queries: Sequence[LabelledQuery]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)  # with the line ends of RFC 4180
    table.writeheader()
    for query in queries:
        said = {name: json.dumps(value, ensure_ascii=False) for name, value in about(query).items()}
        for one in query.expected or (None,):
            of_document = {} if one is None else _cells(one.external_id, one.document_id, one.grade)
            table.writerow({"id": query.id, "query": query.query, **said, **of_document})
            said = {}
    return text.getvalue()


def read_csv(text: str) -> list[LabelledQuery]:
    """Raises InvalidRequest, naming the row."""
    table = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    try:
        for row in table:
            where = f"row {table.line_num}"
            given = {name: row[name] for name in COLUMNS if row.get(name)}
            if "query" not in given:
                raise InvalidRequest(f"{where}: there is no query. The columns are {', '.join(COLUMNS)}.")
            name = ("id", given["id"]) if "id" in given else ("query", given["query"])
            _, values = found.setdefault(name, (where, {**_first(given, where), "expected": []}))
            values["expected"] += _expected(given, where)
    except csv.Error as error:
        raise InvalidRequest(f"This is no CSV: {error}.") from None
    return _named([_judged(values, where) for where, values in found.values()])


def _named(queries: Sequence[LabelledQuery]) -> list[LabelledQuery]:
    """Those without an id by their place: q1, q2 ..., for in other forms they would be one and the same."""
    taken = {query.id for query in queries}

    def free(place: int) -> str:
        names = chain([f"q{place}"], (f"q{place}-{number}" for number in count(2)))
        return next(name for name in names if name not in taken)

    return [query if query.id else replace(query, id=free(place)) for place, query in enumerate(queries, start=1)]


def _judged(values: Mapping[str, Any], where: str) -> LabelledQuery:
    query = read(values, where)
    if not query.is_labelled:
        raise InvalidRequest(f"{where}: the query names no document. Name one, or set expect_nothing to true.")
    return query


def _cells(external_id: str | None, document_id: str | None, grade: int) -> dict[str, Any]:
    return {"external_id": external_id, "document_id": document_id, "grade": grade}


def _first(given: Mapping[str, str], where: str) -> dict[str, Any]:
    """What the first row of a query says of it."""
    try:
        # Spreadsheets write true as TRUE.
        cells = {name: given[name] for name in ABOUT if name in given}
        said = {name: json.loads("true" if cell == "TRUE" else cell) for name, cell in cells.items()}
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{where}: {', '.join(ABOUT)} hold JSON.") from None
    return {"id": given.get("id", ""), "query": given["query"], **said}


def _expected(given: Mapping[str, str], where: str) -> list[dict[str, Any]]:
    ids = {name: given[name] for name in ("external_id", "document_id") if name in given}
    if not ids:
        return []
    grade = given.get("grade", "1").strip()
    if len(ids) > 1 or grade not in [str(one) for one in range(1, HIGHEST_GRADE + 1)]:
        raise InvalidRequest(f"{where}: name a document by one of its ids, with a grade from 1 to {HIGHEST_GRADE}.")
    return [{**ids, "grade": int(grade)}]
