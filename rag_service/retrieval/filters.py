"""The caller's filter: a Mongo-like document becomes the filter tree that every vector store understands.

`{"year": {"$gte": 2020}, "$or": [{"source": "src_1"}, {"tags": {"$in": ["hr", "pay"]}}]}`

Fields are `source` (a source id), `title`, `media_type`, `external_id`, `uri`, `created_at`, `updated_at` and
`metadata.<key>`; any other bare name means `metadata.<name>`. Several fields, or several operators on one field,
must all hold. A filter only ever narrows what its asker may read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypeAlias, cast

from rag_service.errors import InvalidRequest
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not, Scalar

MAX_DEPTH = 10
MAX_CONDITIONS = 100
MAX_VALUES = 1_000
MAX_STRING = 1_024  # characters

TEXT_FIELDS = frozenset({"source", "title", "media_type", "external_id", "uri"})
DATE_FIELDS = frozenset({"created_at", "updated_at"})

_Operator: TypeAlias = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists"]

_OPERATORS = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists", "$not")
_RANGES = frozenset({"gt", "gte", "lt", "lte"})
_INT64 = 2**63

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SURROGATE_OR_NUL = re.compile("[\x00\ud800-\udfff]")
# RFC 3339 full-date, or date-time with its obligatory offset
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d))?", re.ASCII)


def parse_filter(document: object) -> Filter | None:
    """The filter tree of `document`; None when it is None or `{}`, which narrow nothing.

    Dates and datetimes in ranges come out as UTC datetimes with a `Z`; a date alone means its first moment.
    Raises InvalidRequest, its message opening with the path of what is wrong.
    """
    if document is None or document == {}:
        return None
    return _Reader().conditions(document, "filter", depth=1)


class _Reader:
    """Reads one document, counting its conditions."""

    def __init__(self) -> None:
        self._count = 0

    def conditions(self, document: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise _wrong(path, f"is nested deeper than {MAX_DEPTH} levels. Flatten the filter")
        if not isinstance(document, Mapping):
            raise _wrong(path, 'must be an object such as {"year": {"$gte": 2020}}')
        if not document:
            raise _wrong(path, "is empty. Give it a condition or leave it out")
        return _all_of([self._entry(key, value, path, depth) for key, value in document.items()])

    def _entry(self, key: object, value: object, path: str, depth: int) -> Filter:
        here = f"{path}.{_shown(key)}"
        match key:
            case "$and":
                return _all_of(self._branches(value, here, depth))
            case "$or":
                branches = self._branches(value, here, depth)
                return branches[0] if len(branches) == 1 else AnyOf(tuple(branches))
            case "$not":
                return Not(self.conditions(value, here, depth + 1))
        return self._field(_field_path(key, here), value, here, depth)

    def _branches(self, value: object, path: str, depth: int) -> list[Filter]:
        if not isinstance(value, list) or not value:
            raise _wrong(path, "needs a list of at least one condition")
        return [self.conditions(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value)]

    def _field(self, field: str, value: object, path: str, depth: int) -> Filter:
        if isinstance(value, list):
            raise _wrong(path, 'is a list. Write {"$in": [...]} for "one of these"')
        if not isinstance(value, Mapping):
            return self._compare(field, "$eq", value, path)
        if not value:
            raise _wrong(path, f"has no operator. Use one of {', '.join(_OPERATORS)}")
        return _all_of([self._operator(field, name, operand, path, depth) for name, operand in value.items()])

    def _operator(self, field: str, name: object, operand: object, path: str, depth: int) -> Filter:
        here = f"{path}.{_shown(name)}"
        if not isinstance(name, str) or name not in _OPERATORS:
            raise _wrong(here, f"is no operator. Use one of {', '.join(_OPERATORS)}")
        if name != "$not":
            return self._compare(field, name, operand, here)
        if depth >= MAX_DEPTH:
            raise _wrong(here, f"is nested deeper than {MAX_DEPTH} levels. Flatten the filter")
        if not isinstance(operand, Mapping):
            raise _wrong(here, 'needs an object of operators, such as {"$not": {"$gt": 5}}')
        return Not(self._field(field, operand, here, depth + 1))

    def _compare(self, field: str, name: str, operand: object, path: str) -> Filter:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise _wrong("filter", f"has more than {MAX_CONDITIONS} conditions. Use $in for lists of values")
        operator = cast(_Operator, name.removeprefix("$"))
        if operand is None and operator in ("eq", "ne"):
            return Compare(field, "exists", operator == "ne")
        if operator == "exists":
            if not isinstance(operand, bool):
                raise _wrong(path, "must be true or false")
            return Compare(field, operator, operand)
        if operator in _RANGES:
            return Compare(field, operator, _bound(field, operand, path))
        if field in DATE_FIELDS:
            raise _wrong(path, "is a point in time and never matches exactly. Use $gte and $lt")
        if operator in ("in", "nin"):
            return Compare(field, operator, _values(field, operand, path))
        return Compare(field, operator, _scalar(field, operand, path))


def _all_of(conditions: list[Filter]) -> Filter:
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _field_path(key: object, path: str) -> str:
    """`title` stays `title`; `year` and `metadata.year` both become `metadata.year`."""
    if not isinstance(key, str):
        raise _wrong(path, "is no field name. Names are strings")
    if key in TEXT_FIELDS or key in DATE_FIELDS:
        return key
    if key.startswith("$"):
        raise _wrong(path, "does not belong here. Use a field name, $and, $or or $not")
    name = key.removeprefix("metadata.")
    if not _KEY.fullmatch(name):
        raise _wrong(path, "is no field name. Names are 1 to 64 letters, digits, _ or -, optionally after `metadata.`")
    return f"metadata.{name}"


def _bound(field: str, operand: object, path: str) -> Scalar:
    if field in TEXT_FIELDS:
        raise _wrong(path, "compares text by size. Ranges are for numbers and dates; use $eq or $in")
    value = _scalar(field, operand, path)
    if isinstance(value, str):
        return _moment(value, path)
    if isinstance(value, bool) or field in DATE_FIELDS:
        raise _wrong(path, _NO_DATE if field in DATE_FIELDS else "must be a number or a date")
    return value


def _values(field: str, operand: object, path: str) -> tuple[Scalar, ...]:
    if not isinstance(operand, list) or not operand:
        raise _wrong(path, "needs a list of at least one value")
    if len(operand) > MAX_VALUES:
        raise _wrong(path, f"lists more than {MAX_VALUES:,} values. Split the request")
    return tuple(_scalar(field, value, f"{path}[{place}]") for place, value in enumerate(operand))


def _scalar(field: str, value: object, path: str) -> Scalar:
    """`value` if it is a plain value that a store can hold; numbers stay within 64 bits."""
    match value:
        case str():
            if len(value) > MAX_STRING:
                raise _wrong(path, f"is longer than {MAX_STRING:,} characters")
            if _SURROGATE_OR_NUL.search(value):
                raise _wrong(path, "contains NUL or half of a surrogate pair. Send valid Unicode text")
            return value
        case bool() | int() | float() if field in TEXT_FIELDS:
            raise _wrong(path, "must be a string")
        case bool():
            return value
        case int() if -_INT64 <= value < _INT64:
            return value
        case float() if math.isfinite(value):
            return value
        case int() | float():
            raise _wrong(path, "is out of range. Use finite numbers within 64 bits")
    raise _wrong(path, "must be a string, a number, true or false")


_NO_DATE = "must be a date or a datetime as in RFC 3339: 2026-01-31 or 2026-01-31T12:00:00Z"


def _moment(text: str, path: str) -> str:
    if not _RFC3339.fullmatch(text):
        raise _wrong(path, _NO_DATE)
    try:
        moment = datetime.fromisoformat(text.upper())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong(path, _NO_DATE) from None
    return moment.isoformat().replace("+00:00", "Z")


def _shown(key: object) -> str:
    """A key as an error may repeat it: hostile text must not travel on into logs and answers."""
    text = str(key) if isinstance(key, str) else repr(type(key).__name__)
    return text if re.fullmatch(r"[\w$.-]{1,80}", text, re.ASCII) else ascii(text[:40])


def _wrong(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {problem}.", code="invalid_filter")
