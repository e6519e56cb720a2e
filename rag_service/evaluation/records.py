"""Queries as files have them: plain values, checked one by one, with the place that is wrong in the message."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rag_service.errors import InvalidRequest
from rag_service.types import LabelledQuery

HIGHEST_GRADE = 3
# What is said of a query beside its text and the documents that it expects.
ABOUT = ("expect_nothing", "as_user", "filter", "min_score")


def about(query: LabelledQuery) -> dict[str, Any]:
    """Of `ABOUT`, what is said of this query."""
    person = query.as_user
    values = {
        "expect_nothing": query.expect_nothing or None,
        "as_user": None if person is None else {"user": person.user, "groups": list(person.groups)},
        "filter": None if query.filter is None else dict(query.filter),
        "min_score": query.min_score,
    }
    return {name: value for name, value in values.items() if value is not None}


def read(values: Mapping[str, Any], where: str) -> LabelledQuery:
    """The query that these values make, `expected` being known to be right. Raises InvalidRequest."""
    for name, (fits, wanted) in _FORMS.items():
        if values.get(name) is not None and not fits(values[name]):
            raise InvalidRequest(f"{where}: {name} must be {wanted}.")
    if not values["query"].strip():
        raise InvalidRequest(f"{where}: the query is empty.")
    if values.get("expect_nothing") and values.get("expected"):
        raise InvalidRequest(f"{where}: a query that expects nothing names documents.")
    return LabelledQuery.of(values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_person(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"user", "groups"}:
        return False
    user, groups = value.get("user"), value.get("groups") or []
    return (user is None or _is_text(user)) and isinstance(groups, list) and all(map(_is_text, groups))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FORMS: dict[str, tuple[Callable[[object], bool], str]] = {
    "id": (_is_text, "a text"),
    "query": (_is_text, "a text"),
    "expect_nothing": (lambda value: isinstance(value, bool), "true or false"),
    "as_user": (_is_person, 'an object such as {"user": "ada", "groups": ["staff"]}'),
    "filter": (lambda value: isinstance(value, dict), 'an object such as {"year": 2026}'),
    "min_score": (_is_number, "a finite number"),
}
